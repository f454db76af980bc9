"""`python -m jaxzoo info`: all about one model."""

from collections.abc import Sequence

import tyro
from flax import nnx
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from jaxzoo.commands import tasks
from jaxzoo.errors import UsageError
from jaxzoo.inspect.summary import ModuleSummary, summary
from jaxzoo.model_size import digits
from jaxzoo.registry import argument_names, card, create_model


def info(name: tyro.conf.Positional[str], /, image_size: int | None = None, depth: int = 2) -> None:
    """What a model is, its published weights, and its modules with output shapes, parameters and FLOPs.

    A FLOP is an addition or a multiplication; those of convolutions and products of matrices count. Modules without an
    output do not run in eval mode.

    Args:
        name: name of the model; `python -m jaxzoo list` has them all.
        image_size: side of the square image, in pixels; the native size unless given.
        depth: how many levels of modules inside modules to show.
    """
    side = card(name).input_size if image_size is None else image_size
    if depth < 0 or side < 1:
        raise UsageError(f"--depth {depth} or --image-size {side} is too small")
    modules = _modules(name, image_size)
    console = Console(highlight=False)
    for title, fact in (_facts(name, modules[0], side) | _weights(name)).items():
        console.print(f"[bold]{title}[/]: {escape(fact)}")
    if depth:
        console.print(_table(modules[1:], depth))


def _modules(name: str, image_size: int | None) -> list[ModuleSummary]:
    fixed = image_size and "image_size" in argument_names(name)
    try:
        model = nnx.eval_shape(lambda: create_model(name, **({"image_size": image_size} if fixed else {})))
        return summary(model, card(name).example_inputs(size=image_size))
    except (TypeError, ValueError, ZeroDivisionError) as error:
        if image_size is None:
            raise
        raise UsageError(f"{name} cannot take images of {image_size} × {image_size} pixels: {error}") from error


def _facts(name: str, whole: ModuleSummary, side: int) -> dict[str, str]:
    c = card(name)
    macs, flops = digits(whole.multiply_adds / 1e9), digits(2 * whole.multiply_adds / 1e9)
    return {
        "model": f"{name} ({c.task})",
        "paper": c.paper,
        "reference": c.twin,
        **({"timm": c.timm} if c.timm else {}),
        "arguments": ", ".join(argument_names(name)),
        "size": f"{whole.parameters:,} parameters, {macs} GMACs ({flops} GFLOPs) for an image of {side} × {side}",
    }


def _weights(name: str) -> dict[str, str]:
    found, described = {}, tasks.of_model(name).described
    for weights, published in card(name).weights.items():
        needed = ", ".join(f"{key}={value}" for key, value in published.arguments.items())
        about = (published.described(), needed, described(published.preprocess))
        found[f"weights {weights}"] = "; ".join(filter(None, about))
    return found


def _table(modules: Sequence[ModuleSummary], depth: int) -> Table:
    numbers = (Column(title, justify="right") for title in ("output", "parameters", "MFLOPs"))
    table = Table("module", "kind", *numbers, box=box.SIMPLE_HEAD, pad_edge=False)
    for module in modules:
        *above, own = module.path.split(".")
        if len(above) < depth:
            shapes = ", ".join(" × ".join(map(str, shape[1:])) for shape in module.outputs)
            flops = f"{2 * module.multiply_adds / 1e6:,.1f}" if module.multiply_adds else ""
            parameters = f"{module.parameters:,}" if module.parameters else ""
            table.add_row("  " * len(above) + own, module.kind, shapes or "–", parameters, flops)
    return table
