"""`python -m jaxzoo list`: what there is."""

import tyro
from rich import box
from rich.console import Console
from rich.table import Column, Table

from jaxzoo.errors import UsageError, nearest
from jaxzoo.figures import digits
from jaxzoo.registry import list_models, model_info


def list(pattern: tyro.conf.Positional[str] = "*", /) -> None:
    """A table of the models: parameters, multiply-adds (GMACs) per image of the input size, and the published weights.

    The weights' default stands first; acc@1 is their accuracy on ImageNet-1K, in percent, as published.

    Args:
        pattern: only names like this: a part of the name, or a shell pattern such as 'resnet?0*'.
    """
    names = list_models(pattern if any(c in pattern for c in "*?[") else f"*{pattern}*")
    if not names:
        raise UsageError(f"no model is named like {pattern!r}{nearest(pattern, list_models())}")
    numbers = [Column(name, justify="right") for name in ("params", "GMACs", "input")]
    accuracy = Column("acc@1", justify="right")
    table = Table("model", *numbers, "weights", accuracy, box=box.SIMPLE_HEAD, pad_edge=False)
    for info in map(model_info, names):
        accuracies = (w.metrics.get("acc@1") for w in info.weights.values())
        table.add_row(
            info.name,
            f"{digits(info.parameters / 1e6)} M",
            digits(info.multiply_adds / 1e9),
            str(info.input_size),
            "\n".join(info.weights),
            "\n".join("–" if a is None else f"{a:.2f}" for a in accuracies),
        )
    console = Console(highlight=False)
    console.print(table)
    console.print("python -m jaxzoo info NAME says more about one")
