"""The images that a command is given, and the progress through them."""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from jaxzoo.errors import UsageError
from jaxzoo.images import endings, image_files, read_image


def check_new(path: Path) -> None:
    """Raises UsageError where something is at `path`, or nothing can be written there."""
    if path.exists():
        raise UsageError(f"{path} exists already: remove it or choose another place")
    if not os.access(path.absolute().parent, os.W_OK):
        raise UsageError(f"there is no folder {path.parent} that {path.name} can be written to")


def image_paths(images: Sequence[Path]) -> list[Path]:
    """Every image once, in the order given; a folder stands for all below it. Raises UsageError."""
    paths: dict[Path, None] = {}
    others: list[Path] = []
    for path in images:
        if not path.exists():
            raise UsageError(f"there is no image or folder at {path}")
        inside = image_files(path, others.append) if path.is_dir() else [path]
        if not inside:
            raise UsageError(f"folder {path} holds no images")
        paths |= dict.fromkeys(inside)
    if others:
        print(f"left out, as they are no images that Pillow reads: {endings(others)}", file=sys.stderr)
    if not paths:
        raise UsageError("name at least one image, or a folder of them")
    return list(paths)


def read_in_batches(paths: Sequence[Path], size: int, pool: ThreadPoolExecutor) -> Iterator[dict[Path, Image.Image]]:
    """Images, up to `size` at a time; those that cannot be read are named on stderr and left out.

    A bar on stderr shows the progress, if there is somebody to watch it.
    """
    columns = ("images", MofNCompleteColumn(), BarColumn(None), TimeRemainingColumn())
    console = Console(stderr=True)
    seen = len(paths) > size and console.is_terminal
    with Progress(
        *columns, console=console, transient=True, disable=not seen, redirect_stdout=sys.stdout.isatty(), expand=True
    ) as bar:
        task = bar.add_task("", total=len(paths))
        for start in range(0, len(paths), size):
            batch = paths[start : start + size]
            read = zip(batch, pool.map(_read, batch), strict=True)
            yield {path: picture for path, picture in read if picture}
            bar.update(task, advance=len(batch))


def _read(path: Path) -> Image.Image | None:
    try:
        return read_image(path)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return None


@contextlib.contextmanager
def others_go_on(path: Path) -> Iterator[None]:
    """An image that the network cannot take is named on stderr and left out."""
    try:
        yield
    except UsageError as error:
        print(f"error: {path}: {error}", file=sys.stderr)


def unused(path: Path) -> Path:
    """The path, with a number if a picture of the same name from another folder is there already."""
    free, number = path, 1
    while free.exists():
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free
