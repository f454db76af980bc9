"""`python -m jaxzoo info`: all about one model."""

import tyro
from flax import nnx
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from jaxzoo.errors import UsageError
from jaxzoo.figures import digits
from jaxzoo.inspect import summary
from jaxzoo.registry import argument_names, card, create_model


def info(name: tyro.conf.Positional[str], /, image_size: int | None = None, depth: int = 2) -> None:
    """Show a model: its published weights, and its modules with output shapes, parameters and FLOPs.

    A FLOP is an addition or a multiplication; those of convolutions and products of matrices count. Modules without an
    output do not run in eval mode.

    Args:
        name: Model, such as resnet50; `jaxzoo list` shows all.
        image_size: Side of the square input image, in pixels. Default: the model's own.
        depth: Levels of nested modules to show.
    """
    c, known = card(name), argument_names(name)
    side = c.input_size if image_size is None else image_size
    if depth < 0 or side < 1:
        raise UsageError(f"--depth {depth} or --image-size {side} is too small")
    arguments = {"image_size": side} if image_size and "image_size" in known else {}
    try:
        model = nnx.eval_shape(lambda: create_model(name, **arguments))
        rows = summary(model, c.example_inputs(size=side).shape)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        if image_size is None:
            raise
        raise UsageError(f"{name} cannot take images of {side} × {side} pixels: {error}") from error

    console = Console(highlight=False)
    total = rows[0]
    facts = {
        "model": f"{name} ({c.task})",
        "paper": c.paper,
        "reference": c.twin,
        "arguments": ", ".join(known),
        "size": f"{total.parameters:,} parameters, {digits(total.multiply_adds / 1e9)} GMACs "
        f"({digits(2 * total.multiply_adds / 1e9)} GFLOPs) for an image of {side} × {side}",
    }
    for title, fact in facts.items():
        console.print(f"[bold]{title}[/]: {escape(fact)}")
    for weights, published in c.weights.items():
        metrics = ", ".join(f"{key} {value}" for key, value in published.metrics.items())
        needed = ", ".join(f"{key}={value}" for key, value in published.arguments.items())
        about = "; ".join(
            filter(None, (metrics, needed, published.preprocess.described(crops=c.task == "classification")))
        )
        console.print(f"[bold]weights {weights}[/]: {escape(about)}")
    numbers = (Column(title, justify="right") for title in ("output", "parameters", "MFLOPs"))
    table = Table("module", "kind", *numbers, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows[1:]:
        *above, own = row.path.split(".")
        if len(above) < depth:
            shapes = ", ".join(" × ".join(map(str, shape[1:])) for shape in row.outputs)
            flops = f"{2 * row.multiply_adds / 1e6:,.1f}" if row.multiply_adds else ""
            parameters = f"{row.parameters:,}" if row.parameters else ""
            table.add_row("  " * len(above) + own, row.kind, shapes or "–", parameters, flops)
    if depth:
        console.print(table)
