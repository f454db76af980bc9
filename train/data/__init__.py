"""Images to learn from. One file per kind of source, each with `load(...) -> Data`; `load` here picks by the name.

A source is anything with a length whose items are `(PIL RGB image, label)`; items are read when they are asked for, by
several threads.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxzoo.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set and what follows from its kind.

    `image_size` is the side of its images where all have one, in pixels; `photographs` says whether a mirrored or
    cropped image is still an image of the same class.
    """

    train: Sequence[tuple[Any, int]]
    held_out: Sequence[tuple[Any, int]]
    classes: list[str]
    image_size: int | None = None
    photographs: bool = True


def load(name: str, *, val_fraction: float = 0.2, seed: int = 0) -> Data:
    """`digits`, `folder:PATH` or `tfds:NAME`. Raises UsageError if there is no such data."""
    kind, _, place = name.partition(":")
    if name == "digits":
        from train.data import digits

        return digits.load()
    if kind == "folder" and place:
        from train.data import folder

        return folder.load(place, val_fraction=val_fraction, seed=seed)
    if kind == "tfds" and place:
        from train.data import tfds

        return tfds.load(place, val_fraction=val_fraction, seed=seed)
    raise UsageError(f"unknown data {name!r}; it is digits, folder:PATH or tfds:NAME")


def stratified_split(
    labels: Sequence[int], fraction: float, seed: int, names: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Indices to train on and to hold out: `fraction` of every class, but at least one of each if it has two.

    With `names` an image's side depends on its own name, so that hardly any change sides when others come or go.
    """
    labels = np.asarray(labels)
    rng = np.random.default_rng(seed)
    train, held_out = [], []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if names is None:
            order = rng.permutation(members)
        else:
            order = np.array(sorted(members, key=lambda i: hashlib.sha256(f"{seed} {names[i]}".encode()).digest()))
        count = min(max(1, round(fraction * len(order))), len(order) - 1)
        held_out.append(order[:count])
        train.append(order[count:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(held_out))
