"""The parts of a data set that is split already, as people call them."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from jaxzoo.errors import UsageError
from jaxzoo.images import folders
from train.reporting.progress import say

T = TypeVar("T")

_NAMES = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev", "eval", "evaluation", "holdout", "heldout"),
    "test": ("test", "testing", "tst"),
}
_PARTS = {name: part for part, names in _NAMES.items() for name in names}
_NAMED = re.compile(rf"({'|'.join(_PARTS)})(?:[ _-]?(?:set|split|data|images?|\d+))*")


def part_named(name: str) -> str | None:
    """`train`, `val` or `test` for what people call these: Training, VALID, dev, test_set, train2017; else None."""
    match = _NAMED.fullmatch(name.lower())
    return _PARTS[match[1]] if match else None


def sides(parts: Iterable[tuple[str, T]]) -> tuple[T | None, T | None]:
    """Of named things, what to train on and what to hold out: the validation part, or else the test part.

    What is no part is passed over; a test part that is not needed is said. Raises UsageError if a part comes twice.
    """
    found: dict[str, tuple[str, T]] = {}
    for name, thing in parts:
        if (part := part_named(name)) is None:
            continue
        if part in found:
            raise UsageError(f"{found[part][1]} and {thing} are both called {part}; remove or rename one")
        found[part] = name, thing
    train, val, test = (found.get(part, (None, None))[1] for part in _NAMES)
    if val is not None and test is not None:
        say(f"left out: {test}, as {val} is what is held out")
    return train, test if val is None else val


def split_folders(root: Path, is_part: Callable[[Path], object]) -> tuple[Path | None, Path | None]:
    """Of a folder, the folders to train on and to hold out; None for a side that there is not.

    Args:
      is_part: whether a folder holds what a part of this data must hold.
    """
    inside = folders(root)
    parts = [(folder.name, folder) for folder in inside if part_named(folder.name) and is_part(folder)]
    train, held_out = sides(parts)
    # A class may be called train, and lie among others.
    whole = (train and held_out) or all(part_named(folder.name) for folder in inside)
    return (train, held_out) if whole else (None, None)
