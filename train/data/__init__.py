"""Images to learn from. One file per kind of source, each with `load(...) -> Data`; `load` here picks by the name."""

import contextlib
import csv
import dataclasses
import functools
import hashlib
import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from jaxzoo.errors import UsageError
from train.data.objects import Skeleton
from train.reporting.sample import evenly_spread

T = TypeVar("T")


class Source(Protocol):
    """A part of a data set. Items are read when they are asked for, by several threads."""

    def __len__(self) -> int:
        """How many items there are."""

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """A PIL image, RGB, and its label. Raises UsageError, naming it, if the image cannot be read."""

    def name(self, index: int) -> str:
        """What people call the item: a path, or a record of something."""

    @property
    def labels(self) -> np.ndarray:
        """All labels (N,) without decoding an image; where they lie beside the images this reads everything. Only
        sources of labelled images have them."""


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set and what follows from its kind.

    `image_size` is the side of its images where all have one, in pixels; `photographs` says whether a mirrored or
    cropped image is still an image of the same class; `drawn` says that files were held out by fraction and seed;
    `skeleton` is that of the objects which have keypoints.
    `train` is empty where there is a test set alone, which can only be evaluated; `classes` where there are none.
    """

    train: Source
    held_out: Source
    classes: list[str] = dataclasses.field(default_factory=list)
    image_size: int | None = None
    photographs: bool = True
    drawn: bool = False
    skeleton: Skeleton | None = None

    def summary(self) -> str:
        """`10 classes, 1438 training images, 359 held out`"""
        classes = f"{len(self.classes)} classes, " if self.classes else ""
        return f"{classes}{len(self.train)} training images, {len(self.held_out)} held out"


# By task how a source is named, and the module that reads it. The first needs no place: it is what a run takes that
# names no data.
SOURCES = {
    "classification": {
        "digits": "train.data.sources.digits",
        "folder:PATH": "train.data.sources.folder",
        "list:FILE.csv": "train.data.sources.csv_list",
        "tfds:NAME[:SPLIT]": "train.data.sources.tfds",
    },
    "segmentation": {
        "scenes": "train.data.sources.scenes",
        "voc:PATH": "train.data.sources.voc",
        "pairs:PATH": "train.data.sources.pairs",
        "coco:PATH": "train.data.sources.coco",
        "tfds:NAME[:SPLIT]": "train.data.sources.tfds_masks",
    },
    "detection": {
        "scenes": "train.data.sources.digit_scenes",
        "coco:PATH": "train.data.sources.coco_objects",
        "voc:PATH": "train.data.sources.voc_objects",
        "yolo:PATH": "train.data.sources.yolo",
        "list:FILE.csv": "train.data.sources.csv_objects",
        "tfds:NAME[:SPLIT]": "train.data.sources.tfds_objects",
    },
    "reconstruction": {
        "digits": "train.data.sources.binary_digits",
        "folder:PATH": "train.data.sources.folder",
        "list:FILE.csv": "train.data.sources.csv_list",
        "tfds:NAME[:SPLIT]": "train.data.sources.tfds",
    },
}


def load(name: str, task: str = "classification", *, val_fraction: float = 0.2, seed: int = 0) -> Data:
    """What `name` means to models of this task. Raises UsageError if there is no such data."""
    kind, _, place = name.partition(":")
    for pattern, module in SOURCES[task].items():
        if name == pattern:
            return importlib.import_module(module).load()
        if kind == pattern.partition(":")[0] and place:
            return importlib.import_module(module).load(place, val_fraction=val_fraction, seed=seed)
    known = " or ".join(filter(None, [", ".join([*SOURCES[task]][:-1]), [*SOURCES[task]][-1]]))
    raise UsageError(f"unknown data {name!r} for {task}; it is {known}")


def register_sources(task: str, sources: Mapping[str, str]) -> None:
    """Makes sources known for a task of one's own: by how they are named the modules that read them, as in `SOURCES`.

    A name such as `pets:PATH` calls the module's `load(place, val_fraction=..., seed=...)`, one without a colon its
    `load()`; both give `Data`.
    """
    SOURCES[task] = dict(sources)


def default_source(task: str) -> str:
    """The data of a run that names none."""
    return next(iter(SOURCES[task]))


def is_default_source(name: str | None) -> bool:
    """Whether that is what comes along, for some task."""
    return name in {next(iter(sources)) for sources in SOURCES.values()}


def write_split(data: Data, folder: Path) -> None:
    """Writes split.csv into a run's folder: which files were drawn to be held out. Nothing where none were.

    `--data list:FOLDER/split.csv` reads it, so another run can have exactly the same split.
    """
    if not data.drawn:
        return
    partial = folder / ".split.csv.partial"
    with partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        for side, source in (("train", data.train), ("val", data.held_out)):
            for index, label in enumerate(source.labels.tolist()):
                writer.writerow([Path(source.name(index)).absolute(), data.classes[label], side])
    partial.replace(folder / "split.csv")


def drawn(items: Sequence[T], names: Sequence[str], fraction: float, seed: int, where: Path) -> list[list[T]]:
    """Items without a class, those to train on and those to hold out, by `stratified_split`. Raises UsageError."""
    if len(items) < 2 and fraction < 1:
        raise UsageError(f"{where} holds a single image: none can be held out")
    sides = stratified_split([0] * len(items), fraction, seed, names)
    return [[items[i] for i in side] for side in sides]


@functools.lru_cache(maxsize=4)
def picture_side(source: Source, most: int = 16) -> int | None:
    """The usual shorter side of the pictures in a source, in pixels: of `most` of them, evenly spread, the median.

    None if none of them can be read.
    """
    sides = []
    for index in evenly_spread(len(source), most):
        with contextlib.suppress(UsageError):  # said when its turn comes
            sides.append(min(source[index][0].size))
    return sorted(sides)[len(sides) // 2] if sides else None


def names_digest(data: Data) -> str:
    """A digest of the names of all items in their order, which stays when the folder that holds them all is moved."""
    names = [source.name(index) for source in (data.train, data.held_out) for index in range(len(source))]
    shared = len(os.path.commonpath([min(names), max(names)]))
    digest = hashlib.sha256(f"{len(data.train)}".encode())
    for name in names:
        digest.update(b"\n" + name[shared:].encode(errors="surrogateescape"))
    return digest.hexdigest()


def stratified_split(
    labels: Sequence[int], fraction: float, seed: int, names: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Indices to train on and to hold out: `fraction` of every class, but at least one of each if it has two.

    A fraction of 1 holds out all.
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
            order = np.array(
                sorted(
                    members,
                    key=lambda i: hashlib.sha256(f"{seed} {names[i]}".encode(errors="surrogateescape")).digest(),
                )
            )
        count = len(order) if fraction == 1 else min(max(1, round(fraction * len(order))), len(order) - 1)
        held_out.append(order[:count])
        train.append(order[count:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(held_out))
