"""`python -m jaxzoo list`: a table of the models."""

import tyro
from rich import box
from rich.console import Console
from rich.table import Column, Table

from jaxzoo.errors import UsageError, nearest
from jaxzoo.inspect.model_info import model_info
from jaxzoo.model_size import digits
from jaxzoo.registry import UNITS, Published, list_models


def list(pattern: tyro.conf.Positional[str] = "*", /) -> None:
    """List the models: parameters, multiply-adds (GMACs) per image of the input size, and published weights.

    Detectors that find masks or keypoints count them for as many boxes as they return, found or not, where torchvision
    publishes numbers of an image in which few are found.

    The weights' default stands first, each with its main metric as published, such as the accuracy on ImageNet-1K.

    Args:
        pattern: Part of a name, such as resnet, or a shell pattern, such as 'resnet?0*'. Default: all models.
    """
    names = list_models(pattern if any(c in pattern for c in "*?[") else f"*{pattern}*")
    if not names:
        raise UsageError(f"no model is named like {pattern!r}{nearest(pattern, list_models())}")
    numbers = [Column(name, justify="right") for name in ("params", "GMACs", "input")]
    infos = [model_info(name) for name in names]
    metrics = dict.fromkeys(next(iter(w.metrics), "") for info in infos for w in info.weights.values())
    titles = "\n".join(f"{metric} {UNITS.get(metric, '')}".strip() for metric in metrics if metric)
    quality = Column(titles, justify="right", no_wrap=True, min_width=5)
    name = Column("model", min_width=max(map(len, names)))
    weights = Column("weights", overflow="fold")
    table = Table(name, *numbers, weights, quality, box=box.SIMPLE_HEAD, pad_edge=False)
    for info in infos:
        table.add_row(
            info.name,
            f"{digits(info.parameters / 1e6)} M",
            digits(info.multiply_adds / 1e9),
            str(info.input_size),
            "\n".join(info.weights),
            "\n".join(map(_main_metric, info.weights.values())),
        )
    console = Console(highlight=False)
    if not console.is_terminal:  # a file or a program has no width to keep to
        console.width = max(console.width, 120)
    console.print(table)
    console.print("jaxzoo info NAME says more about one")


def _main_metric(weights: Published) -> str:
    return next((f"{value:.2f}" for value in weights.metrics.values()), "–")
