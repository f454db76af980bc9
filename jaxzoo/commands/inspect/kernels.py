"""`python -m jaxzoo inspect kernels`: what a model has learnt, number by number."""

from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image
from rich import box
from rich.console import Console
from rich.table import Column, Table

from jaxzoo.commands.inspect.sight import Sight, check_outputs, draw_rows
from jaxzoo.errors import UsageError
from jaxzoo.inspect.drawing import bars, kernel_pictures
from jaxzoo.inspect.maps import calls_of, first_kernel
from jaxzoo.inspect.parameters import dead_kernels, kernel_of, parameter_statistics
from jaxzoo.registry import card

SIDE, ACROSS, MATRIX = 72, 16, 900  # pixels of a kernel, kernels in a row, pixels of a matrix
NAMED = 12  # dead kernels of a layer that are named


def kernels(
    model: str,
    weights: str,
    out: Annotated[Path | None, tyro.conf.arg(aliases=("--output",))] = None,
    layer: str | None = None,
    arrays: Path | None = None,
) -> None:
    """Print each parameter's mean, deviation, share of zeros and histogram, and the depthwise kernels that are dead.

    Args:
        model: Model, such as resnet50; `jaxzoo list` shows all.
        weights: Those that `jaxzoo predict` takes.
        out: New PNG file for a sheet of a layer's kernels.
        layer: Path of the layer that is drawn, such as layer1.0.conv1. Default: the first one.
        arrays: New .npz file for the kernel, and the table's columns.
    """
    check_outputs(out, arrays)
    sight = Sight.of(model, weights, images=False)
    calls = calls_of(sight.model, card(model).example_inputs())
    starts = {call.path: call.start for call in calls}
    layer = layer or first_kernel(sight.model, calls)
    if layer is None and (out or arrays):
        raise UsageError(f"{model} has no layer with a kernel over places; name another: --layer PATH")
    kernel = kernel_of(sight.model, layer) if layer else None
    # In the network's order; what does not run, as auxiliary heads, comes last.
    statistics = parameter_statistics(sight.model)
    statistics.sort(key=lambda one: starts.get(one.path.rpartition(".")[0], np.inf))
    numbers = [Column(title, justify="right", no_wrap=True) for title in ("mean", "deviation", "zeros")]
    table = Table("parameter", "shape", *numbers, "histogram", "from … to", box=box.SIMPLE_HEAD, pad_edge=False)
    for one in statistics:
        shape = " × ".join(map(str, one.shape))
        zeros = f"{100 * one.zeros:.1f} %" if one.finite else "not finite"
        ends = f"{one.edges[0]:.3g} … {one.edges[-1]:.3g}"
        table.add_row(one.path, shape, f"{one.mean:.3g}", f"{one.deviation:.3g}", zeros, bars(one.counts), ends)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 160)
    console.print(table)
    dead = dead_kernels(sight.model)
    for path, channels in dead.items():
        shown = ", ".join(map(str, channels[:NAMED])) + (", …" if len(channels) > NAMED else "")
        print(f"dead depthwise kernels in {path}: {len(channels)} ({shown})")
    if out:
        draw_kernels(kernel, f"{layer} of {model}: {' × '.join(map(str, kernel.shape))}", out)
    if arrays:
        numbers = ("path", "mean", "deviation", "zeros", "counts", "edges")
        columns = {name: np.array([getattr(one, name) for one in statistics]) for name in numbers}
        np.savez_compressed(arrays, kernel=kernel, **columns)


def draw_kernels(kernel: np.ndarray, title: str, out: Path) -> None:
    """A sheet of a layer's kernels, as `jaxzoo.inspect.drawing.kernel_pictures` draws them."""
    if kernel.ndim not in (2, 4):
        raise UsageError(f"a kernel of shape {kernel.shape} cannot be drawn: only those over two axes, and matrices")
    tiles = [(picture, caption) for caption, picture in kernel_pictures(kernel)]
    if len(tiles) == 1 and max(tiles[0][0].size) > SIDE:
        return draw_rows([tiles], title, out, side=max(SIDE, min(MATRIX, max(tiles[0][0].size))))
    blank = (Image.new("RGB", tiles[0][0].size, "white"), "")
    tiles += [blank] * (-len(tiles) % min(ACROSS, len(tiles)))
    draw_rows([tiles[i : i + ACROSS] for i in range(0, len(tiles), ACROSS)], title, out, side=SIDE)
