"""`python -m jaxzoo list`: what there is."""

from collections.abc import Mapping

import tyro
from rich import box
from rich.console import Console
from rich.table import Column, Table

from jaxzoo.errors import UsageError, nearest
from jaxzoo.figures import digits, model_info
from jaxzoo.registry import list_models


def list(pattern: tyro.conf.Positional[str] = "*", /) -> None:
    """List the models: parameters, multiply-adds (GMACs) per image of the input size, and published weights.

    The weights' default stands first, each with its accuracy on ImageNet-1K (acc@1) or its mIoU, in percent, as
    published.

    Args:
        pattern: Part of a name, such as resnet, or a shell pattern, such as 'resnet?0*'. Default: all models.
    """
    names = list_models(pattern if any(c in pattern for c in "*?[") else f"*{pattern}*")
    if not names:
        raise UsageError(f"no model is named like {pattern!r}{nearest(pattern, list_models())}")
    numbers = [Column(name, justify="right") for name in ("params", "GMACs", "input")]
    quality = Column("acc@1\nmIoU", justify="right", no_wrap=True, min_width=5)
    name = Column("model", min_width=max(map(len, names)))
    weights = Column("weights", overflow="fold")
    table = Table(name, *numbers, weights, quality, box=box.SIMPLE_HEAD, pad_edge=False)
    for info in map(model_info, names):
        table.add_row(
            info.name,
            f"{digits(info.parameters / 1e6)} M",
            digits(info.multiply_adds / 1e9),
            str(info.input_size),
            "\n".join(info.weights),
            "\n".join(_quality(w.metrics) for w in info.weights.values()),
        )
    console = Console(highlight=False)
    if not console.is_terminal:  # a file or a program has no width to keep to
        console.width = max(console.width, 120)
    console.print(table)
    console.print("jaxzoo info NAME says more about one")


def _quality(metrics: Mapping[str, float]) -> str:
    percent = metrics.get("acc@1", metrics.get("miou"))
    return "–" if percent is None else f"{percent:.2f}"
