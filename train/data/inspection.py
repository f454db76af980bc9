"""`python -m train data DATA`: what a data set holds, and what training makes of its images."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table
from rich.text import Text

from train.data import Data
from train.data.batches import Batch, TrainingBatches
from train.progress import say
from train.report.sheet import Tile, draw_sheet
from train.tasks import Task


def show(
    data: Data,
    task: Task,
    title: str,
    out: Path,
    *,
    seed: int = 0,
    repeats: int = 1,
    strict: bool = False,
    count: int = 48,
    seen: Callable[[Batch], tuple[np.ndarray, Sequence[str]]] | None = None,
) -> None:
    """Prints how many images each class has, and draws the first ones of a run's first epoch.

    Args:
      title: what the data is called.
      out: the PNG file to write.
      seed, repeats, strict: as the run would have them.
      count: how many images to draw, at most.
      seen: what the device makes of a batch before the model sees it: images (N, H, W, 3) uint8 RGB, and a line for
        each; the images as the host makes them, and their classes, unless given.

    Raises:
      UsageError: an image cannot be read and `strict`, or none can.
    """
    Console().print(counts(data, title))
    count = min(count, len(data.train))
    batch = TrainingBatches(data.train, task.training_example, count, seed, repeats=repeats, strict=strict)(0)
    if seen:
        images, lines = seen(batch)
    else:
        images, lines = batch["image"], [data.classes[label] for label in batch["label"]]
    names = [Path(data.train.name(index)).name for index in batch["indices"]]
    tiles = [
        Tile(Image.fromarray(image), [line, name])
        for image, line, name in zip(np.asarray(images), lines, names, strict=True)
    ]
    height, width = images.shape[1:3]
    draw_sheet(tiles, f"{title}: {count} training images as the model sees them, {width} x {height} pixels", out)
    say(f"{count} augmented training images: {out}")


def counts(data: Data, title: str) -> Table:
    """A table with a line per class: its training and held-out images; the last line adds them up."""
    table = Table(title=Text(title), show_footer=True)
    sides = {
        name: np.bincount(source.labels, minlength=len(data.classes))
        for name, source in (("training", data.train), ("held out", data.held_out))
    }
    table.add_column("class", footer=f"{len(data.classes)} classes")
    for name, numbers in sides.items():
        table.add_column(name, footer=str(numbers.sum()), justify="right")
    for name, *numbers in zip(data.classes, *sides.values(), strict=True):
        # Few or no images are easily overlooked in a long table.
        table.add_row(Text(name), *map(str, numbers), style=None if min(numbers) else "bold red")
    return table
