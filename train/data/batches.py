"""Batches of images, each the same whoever makes it.

Batch `i` is a pure function of (seed, i): the order of an epoch, every random crop, and what stands in for an image
that cannot be read follow from the seed and the position alone. So a run continues at any batch exactly, and neither
the number of threads nor the number of processes changes anything.
"""

import copy
import dataclasses
import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxzoo.errors import UsageError

Batch = dict[str, np.ndarray]

say = functools.partial(print, flush=True)  # in every process: each meets other images

ATTEMPTS = 100  # So many stand-ins in a row that cannot be read either mean that something else is wrong.


class TrainingBatches:
    """Batch `i` of a training run without end; an epoch's left-over images, fewer than a batch, sit that epoch out.

    Beside what `example` makes, a batch has `indices` (N,) int32: which items of the source they are.

    Args:
      source: see `train.data.Source`.
      example: makes arrays of fixed shape from an item, augmented by the given generator.
      batch_size: examples per batch, over all processes together.
      seed: decides order, augmentation and stand-ins; below 2^32.
      repeats: how often every image comes in a row, see `epoch_order`.
      process, processes: this process makes its part of every batch, `batch_size / processes` rows in their order.
      strict: an image that cannot be read raises its UsageError; otherwise it is said once, counted in `broken`, and
        another image of the source, drawn by seed, epoch and place, stands in for it.
      report: is told of images that cannot be read; every process says its own unless given.

    Raises:
      UsageError: there are fewer images than a batch has, or processes cannot share a batch equally.
    """

    def __init__(
        self,
        source: Sequence,
        example: Callable[[Any, np.random.Generator], Batch],
        batch_size: int,
        seed: int,
        *,
        repeats: int = 1,
        process: int = 0,
        processes: int = 1,
        strict: bool = True,
        report: Callable[[str], None] = say,
    ):
        if batch_size > len(source):
            raise UsageError(f"--batch-size {batch_size} is more than the {len(source)} training images")
        self.source, self.example, self.batch_size, self.seed = source, example, batch_size, seed
        self.repeats = repeats
        self.places = interleave_repeats(batch_size, repeats)[_rows(batch_size, process, processes)].tolist()
        self.reader = Reader(source, strict=strict, report=report)
        self.per_epoch = len(source) // batch_size
        self.order = functools.lru_cache(maxsize=2)(self._order)

    def with_example(self, example: Callable[[Any, np.random.Generator], Batch]) -> "TrainingBatches":
        """The same batches as `example` makes them; images that cannot be read are said once by both together."""
        other = copy.copy(self)
        other.example = example
        return other

    def _order(self, epoch: int) -> np.ndarray:
        return epoch_order(len(self.source), np.random.default_rng((self.seed, epoch)), self.repeats)

    def rows(self, index: int) -> int:
        """How many examples of a batch this process makes."""
        return len(self.places)

    @property
    def most_rows(self) -> int:
        """How many of any."""
        return len(self.places)

    def row(self, index: int, row: int) -> Batch:
        """One example of a batch, as `stack` takes them."""
        epoch, number = divmod(index, self.per_epoch)
        position = number * self.batch_size + self.places[row]
        place = (self.seed, epoch, int(self.order(epoch)[position]), position % self.repeats)
        chosen, item = self._item(place)
        return self.example(item, np.random.default_rng(place)) | {"indices": np.int32(chosen)}

    def __call__(self, index: int) -> Batch:
        return stack([self.row(index, row) for row in range(self.rows(index))])

    def _item(self, place: tuple[int, int, int, int]) -> tuple[int, Any]:
        """The item that belongs there and its index, or those of the first stand-in that can be read."""
        chosen = place[2]
        for attempt in range(ATTEMPTS):
            if item := self.reader(chosen):
                return chosen, item[0]
            # A stream of its own, beside the one of the augmentation at this place.
            stream = np.random.SeedSequence(place, spawn_key=(attempt,))
            chosen = int(np.random.default_rng(stream).integers(len(self.source)))
        raise UsageError(
            f"{ATTEMPTS} images in a row cannot be read, the last being {self.source.name(chosen)}; is the disk there?"
        )

    @property
    def broken(self) -> dict[int, str]:
        """Names by index of the images that could not be read so far, in this process."""
        return self.reader.broken


@dataclasses.dataclass(frozen=True)
class Lot:
    """Items of a source whose examples have one shape: their `indices`, and how many make a batch, over all processes
    together. `blank` gives an example of nothing; without it, it is zeros in the shapes of another one."""

    indices: Sequence[int]
    rows: int
    example: Callable[[Any], Batch]
    blank: Callable[[], Batch] | None = None


class EvaluationBatches:
    """Every example once, in order. Where `mask` (N,) is False a row holds no example but zeros, and its index is -1.

    That is so in the filling of the last batch, and for images that cannot be read unless `strict`. Arguments are
    those of `TrainingBatches`; with `lots` in place of `example` and `batch_size`, one lot comes after the other.
    """

    def __init__(
        self,
        source: Sequence,
        example: Callable[[Any], Batch] | None = None,
        batch_size: int = 1,
        *,
        lots: Sequence[Lot] | None = None,
        process: int = 0,
        processes: int = 1,
        strict: bool = True,
        report: Callable[[str], None] = say,
    ):
        self.source = source
        self.lots = [Lot(range(len(source)), batch_size, example)] if lots is None else lots
        self.parts = [_rows(lot.rows, process, processes) for lot in self.lots]
        self.ends = np.cumsum([-(-len(lot.indices) // lot.rows) for lot in self.lots])
        self.reader = Reader(source, strict=strict, report=report)
        self.blank = functools.cache(self._blank)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def rows(self, index: int) -> int:
        """How many examples of a batch this process makes."""
        return len(self._places(index)[1])

    @property
    def most_rows(self) -> int:
        """How many of any."""
        return max(len(range(lot.rows)[part]) for lot, part in zip(self.lots, self.parts, strict=True))

    def row(self, index: int, row: int) -> Batch:
        """One example of a batch, as `stack` takes them."""
        number, places = self._places(index)
        lot, place = self.lots[number], places[row]
        asked = int(lot.indices[place]) if place < len(lot.indices) else -1
        item = self.reader(asked) if asked >= 0 else None
        example = lot.example(item[0]) if item else self.blank(number)
        return example | {"indices": np.int32(asked if item else -1), "mask": np.bool_(item is not None)}

    def _places(self, index: int) -> tuple[int, range]:
        """The lot of a batch, and which of that lot's examples are this process's rows."""
        number = int(np.searchsorted(self.ends, index, side="right"))
        lot = self.lots[number]
        first = int(index - (self.ends[number - 1] if number else 0)) * lot.rows
        return number, range(first, first + lot.rows)[self.parts[number]]

    def __call__(self, index: int) -> Batch:
        return stack([self.row(index, row) for row in range(self.rows(index))])

    def _blank(self, number: int) -> Batch:
        """An example of nothing in a lot."""
        lot = self.lots[number]
        if lot.blank:
            return lot.blank()
        for index in lot.indices[:ATTEMPTS]:
            if item := self.reader(index):
                return {key: np.zeros_like(value) for key, value in lot.example(item[0]).items()}
        raise UsageError(f"none of the first held-out images can be read, {self.source.name(0)} for one")

    @property
    def broken(self) -> dict[int, str]:
        """Names by index of the images that could not be read so far, in this process."""
        return self.reader.broken


class Reader:
    """Reads items of a source; one that cannot be read is reported the first time, and counted in `broken`."""

    def __init__(self, source: Sequence, *, strict: bool, report: Callable[[str], None]):
        self.source, self.strict, self.report = source, strict, report
        self.broken: dict[int, str] = {}
        self.lock = threading.Lock()

    def __call__(self, index: int) -> tuple[Any] | None:
        """The item, in a tuple; None if it cannot be read. Raises its UsageError if `strict`."""
        try:
            return (self.source[index],)
        except UsageError as error:
            if self.strict:
                raise
            with self.lock:
                new = index not in self.broken
                self.broken[index] = self.source.name(index)
            if new:
                self.report(f"left out: {error}")
            return None


def epoch_order(count: int, rng: np.random.Generator, repeats: int = 1) -> np.ndarray:
    """Indices below `count` in the order of an epoch: shuffled, each `repeats` times in a row, and the first `count`.

    With repeats an epoch shows that many times fewer images, each several times and differently augmented (repeated
    augmentation: Hoffer et al., "Augment your batch", CVPR 2020; Berman et al., "MultiGrain", 2019).
    """
    return np.repeat(rng.permutation(count)[: -(-count // repeats)], repeats)[:count]


def interleave_repeats(batch_size: int, repeats: int) -> np.ndarray:
    """Places in a batch, in an order in which no image stands beside another of its repetitions.

    Mixup and cutmix mix neighbours, which have to be different images; and processes and devices, which take
    consecutive rows, see an image once each where they can.
    """
    return np.concatenate([np.arange(first, batch_size, repeats) for first in range(repeats)])


def _rows(batch_size: int, process: int, processes: int) -> slice:
    """Which rows of every batch a process makes."""
    if batch_size % processes:
        raise UsageError(
            f"--batch-size {batch_size} cannot be shared equally among {processes} processes; "
            f"take a multiple of {processes}"
        )
    part = batch_size // processes
    return slice(process * part, (process + 1) * part)


def stack(examples: list[Batch]) -> Batch:
    """Examples as one batch."""
    return {key: np.stack([example[key] for example in examples]) for key in examples[0]}
