"""`python -m train data DATA`: what a data set holds, and what training makes of its images."""

from pathlib import Path

import jax
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxzoo.errors import UsageError
from train.data import Data
from train.data.batches import TrainingBatches
from train.reporting.contact_sheet import draw_sheet
from train.reporting.progress import say
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
) -> None:
    """Prints how much there is of each class, and draws the first ones of a run's first epoch as its model sees them.

    Args:
      title: what the data is called.
      out: the PNG file to write; a name without an ending gets one.
      seed, repeats, strict: as the run would have them.
      count: how many images to draw, at most.

    Raises:
      UsageError: an image cannot be read and `strict`, or none can; `out` cannot be written.
    """
    out = out if out.suffix else out.with_suffix(".png")
    if not out.parent.is_dir():
        raise UsageError(f"there is no folder {out.parent} to write {out.name} into; give another --out")
    Console().print(counts(data, task, title))
    if not len(data.train):
        say("there are no training images to draw")
        return
    sizes = out.with_stem(f"{out.stem}_sizes")
    if task.draw_data(data.train, sizes):
        say(f"sizes and places of objects: {sizes}")
    buckets = task.training_buckets(data.train)
    count = min(count, max(map(len, buckets)))
    batches = TrainingBatches(
        data.train, task.training_example, count, seed, repeats=repeats, strict=strict, buckets=buckets
    )
    batch = batches(0)
    if not (tiles := task.tiles(batch, jax.random.key(seed))):
        say("its task draws no training examples")
        return
    tiles = [
        tile._replace(caption=[*tile.caption, Path(data.train.name(index)).name])
        for tile, index in zip(tiles, batch["indices"], strict=True)
    ]
    width, height = tiles[0].size or tiles[0].picture.size
    draw_sheet(
        tiles, f"{title}: {count} training images as the model sees them, {width} x {height} pixels", out, keep=False
    )
    say(f"{count} augmented training images: {out}")


def counts(data: Data, task: Task, title: str) -> Table:
    """A table with a line per class: its training and held-out images, say; the last line adds them up."""
    table = Table(title=Text(title), show_footer=True)
    table.add_column("class", footer=f"{len(data.classes)} classes")
    columns = []
    for side, source in (("training", data.train), ("held out", data.held_out)):
        for unit, (numbers, total) in task.counts(source).items():
            columns.append(numbers.tolist())
            table.add_column(f"{side}\n{unit}", footer=str(total), justify="right")
    for name, *numbers in zip(data.classes, *columns, strict=True):
        # Few or no images are easily overlooked in a long table.
        table.add_row(Text(name), *map(str, numbers), style=None if min(numbers) else "bold red")
    return table
