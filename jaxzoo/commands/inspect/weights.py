"""`python -m jaxzoo inspect weights`: what changed between two checkpoints."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich import box
from rich.console import Console
from rich.table import Column, Table

from jaxzoo.commands.inspect.sight import check_outputs
from jaxzoo.errors import UsageError
from jaxzoo.inspect.parameters import Change, changes


def weights(
    before: tyro.conf.Positional[str],
    after: tyro.conf.Positional[str],
    /,
    model: str,
    out: Annotated[Path | None, tyro.conf.arg(aliases=("--output",))] = None,
    arrays: Path | None = None,
) -> None:
    """Print what changed between two checkpoints of a model, tensor by tensor, in the network's order.

    The relative change is the norm of the difference divided by the norm of the first.

    Args:
        before: Weights that `jaxzoo predict` takes.
        after: Others of the same model; those of other shapes, as of another number of classes, are named.
        model: Model, such as resnet50; `jaxzoo list` shows all.
        out: New PNG file for a picture of the relative changes.
        arrays: New .npz file for these numbers, by the tensors' names.
    """
    from convert.sources import read_weights

    check_outputs(out, arrays)
    first, second = (read_weights(model, source).tensors for source in (before, after))
    found = [one for one in changes(first, second) if np.issubdtype(first[one.name].dtype, np.floating)]  # no counters
    if not found:
        raise UsageError(f"{before} and {after} have no tensor of one name and shape")
    numbers = [Column(title, justify="right", no_wrap=True) for title in ("relative change", "largest change")]
    table = Table("tensor", "shape", *numbers, box=box.SIMPLE_HEAD, pad_edge=False)
    for one in found:
        table.add_row(one.name, " × ".join(map(str, one.shape)), f"{one.relative:.3g}", f"{one.largest:.3g}")
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 120)
    console.print(table)
    same = sum(one.relative == 0 for one in found)
    print(f"{same} of {len(found)} tensors are the same")
    compared = {name for name, array in first.items() if name in second and array.shape == second[name].shape}
    for title, names in (
        (f"only in {before}", first.keys() - second.keys()),
        (f"only in {after}", second.keys() - first.keys()),
        ("of another shape", (first.keys() & second.keys()) - compared),
    ):
        if names:
            print(f"{title}: {', '.join(sorted(names))}")
    if out:
        draw_changes(found, f"{model}: from {Path(before).name} to {Path(after).name}", out)
    if arrays:
        columns = {name: np.array([getattr(one, name) for one in found]) for name in ("name", "relative", "largest")}
        np.savez_compressed(arrays, **columns)


def draw_changes(found: Sequence[Change], title: str, out: Path) -> None:
    """The relative change of each tensor, on a logarithmic scale, in the network's order; those of one kind alike."""
    from matplotlib.figure import Figure

    from train.reporting.figure import save

    moved = [(place, one) for place, one in enumerate(found) if np.isfinite(one.relative) and one.relative > 0]
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    kinds = dict.fromkeys(one.name.rpartition(".")[2] for _, one in moved)
    for kind in kinds:
        points = [(place, one.relative) for place, one in moved if one.name.rpartition(".")[2] == kind]
        axes.plot(*zip(*points, strict=True), "o", markersize=4, label=kind)
    if moved:
        axes.set_yscale("log")
        figure.legend(loc="outside right upper")
    axes.set(title=title, xlabel="tensor, in the network's order", ylabel="relative change")
    # The modules by the first parts of their names, where they begin.
    starts: dict[str, int] = {}
    for place, one in enumerate(found):
        module = ".".join(one.name.split(".")[:2][: one.name.count(".")])
        if module not in starts and place - max(starts.values(), default=-np.inf) >= len(found) / 48:
            starts[module] = place
    axes.set_xticks(list(starts.values()), list(starts), rotation=90, fontsize=7)
    axes.grid(axis="y", alpha=0.3)
    save(figure, out)
