"""How large objects are and where they lie, as one picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from jaxzoo.errors import UsageError
from train.reporting.curves import BLUE, GRAY
from train.reporting.figure import save
from train.reporting.sample import evenly_spread

LIMITS = (32, 96)  # pixels: COCO calls an object small whose area is below the first's square, large above the second's
MOST_BINS = 50


def draw_sizes(source: Sequence, path: Path, most: int = 20_000) -> None:
    """Widths and heights of objects in parts of their images, places of their centres, and COCO's small, medium and
    large ones: in up to `most` images, evenly spread. Crowds, and images that cannot be read, are left out; no image is
    decoded.
    """
    source = source.with_parts()  # no masks, which take long to draw
    boxes, areas, indices = [np.zeros((0, 4))], [np.zeros(0)], evenly_spread(len(source), most)
    for index in indices:
        try:
            (height, width), objects = source.size(index), source.objects(index)
        except UsageError:  # said when its turn comes
            continue
        objects = objects.some(~objects.crowd)
        boxes.append(objects.boxes / (width, height, width, height))
        areas.append(objects.area)
    boxes, sides = np.concatenate(boxes), np.sqrt(np.concatenate(areas))
    figure = Figure(figsize=(13.5, 4.4), layout="constrained")
    count = f"{len(boxes):,} object{'s' * (len(boxes) != 1)} in {len(indices):,} image{'s' * (len(indices) != 1)}"
    figure.suptitle(count)
    size, place, area = figure.subplots(1, 3)
    wide, high = (boxes[:, 2:] - boxes[:, :2]).T
    x, y = (boxes[:, :2] + boxes[:, 2:]).T / 2
    _density(figure, size, wide, high, "width and height", "width / image's width", "height / image's height")
    _density(figure, place, x, y, "centres", "x / image's width", "y / image's height")
    place.invert_yaxis()  # as images have it
    _sizes(area, sides)
    save(figure, path)


def _density(figure: Figure, axes: Axes, x: np.ndarray, y: np.ndarray, title: str, across: str, up: str) -> None:
    """How many of the points lie in each of the squares of the unit square."""
    found, edges, _ = np.histogram2d(x, y, _bins(len(x)), ((0, 1), (0, 1)))
    norm = LogNorm(1, found.max()) if found.max() > 50 else Normalize(0, max(found.max(), 1))
    shown = axes.pcolormesh(edges, edges, np.where(found, found, np.nan).T, cmap="viridis", norm=norm)
    ticks = None if isinstance(norm, LogNorm) else MaxNLocator(integer=True)
    figure.colorbar(shown, ax=axes, label="objects", fraction=0.046, ticks=ticks)
    axes.set(title=title, xlabel=across, ylabel=up, xlim=(0, 1), ylim=(0, 1), aspect="equal", facecolor="#f3f4f6")


def _sizes(axes: Axes, sides: np.ndarray) -> None:
    """A histogram of square roots of areas, divided as COCO does."""
    low, high = (min(sides.min(), LIMITS[0]) / 2, max(sides.max(), LIMITS[1]) * 2) if len(sides) else (8, 384)
    axes.hist(sides, np.geomspace(low, high, _bins(len(sides)) + 1), color=BLUE)
    axes.set(
        title="size", xlabel="square root of the area, in pixels", ylabel="objects", xscale="log", xlim=(low, high)
    )
    ticks = [2**power for power in range(16) if low <= 2**power <= high]
    axes.set_xticks(ticks, map(str, ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    top = max(axes.get_ylim()[1], 1)
    axes.set_ylim(0, 1.15 * top)
    edges = (low, *LIMITS, high)
    for i, name in enumerate(("small", "medium", "large")):
        part = ((sides >= (0, *LIMITS)[i]) & (sides < (*LIMITS, np.inf)[i])).sum() / max(len(sides), 1)
        middle = np.sqrt(edges[i] * edges[i + 1])
        axes.text(middle, 1.13 * top, f"{name}\n{part:.1%}", ha="center", va="top", color=GRAY, fontsize=9)
    for limit in LIMITS:
        axes.axvline(limit, color=GRAY, linestyle="--", linewidth=1)


def _bins(count: int) -> int:
    """So few that those of a histogram of so many objects are not mostly empty."""
    return int(np.clip(round(np.sqrt(count)), 10, MOST_BINS))
