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

import jax
import numpy as np

from jaxzoo.errors import UsageError

Batch = dict[str, Any]  # pytrees of arrays by name

say = functools.partial(print, flush=True)  # in every process: each meets other images

ATTEMPTS = 100  # So many substitutes in a row that cannot be read either mean that something else is wrong.


class TrainingBatches:
    """Batch `i` of a training run without end; an epoch's left-over images, fewer than a batch, sit that epoch out.

    With `buckets` every batch is of one of them, in an order that mixes them, and each has left-over images.

    Beside what `example` makes, a batch has `indices` (N,) int32: which items of the source they are.

    Args:
      source: see `train.data.Source`.
      example: makes arrays from an item, augmented by the given generator; of fixed shape in a bucket.
      batch_size: examples per batch, over all processes together.
      seed: decides order, augmentation and substitutes; below 2^32.
      repeats: how often every image comes in a row, see `epoch_order`.
      process, processes: this process makes its part of every batch, `batch_size / processes` rows in their order.
      strict: an image that cannot be read raises its UsageError; otherwise it is said once, counted in `broken`, and
        another image of the source, drawn by seed, epoch and place, stands in for it.
      report: is told of images that cannot be read; every process says its own unless given.
      buckets: the indices of each, which have no item in common; all items in one unless given.

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
        buckets: Sequence[Sequence[int]] | None = None,
    ):
        self.buckets = [range(len(source))] if buckets is None else buckets
        if batch_size > max(map(len, self.buckets)):
            of = "training images" if len(self.buckets) == 1 else "training images of any size"
            raise UsageError(f"--batch-size {batch_size} is more than the {max(map(len, self.buckets))} {of}")
        self.source, self.example, self.batch_size, self.seed = source, example, batch_size, seed
        self.repeats = repeats
        self.places = interleave_repeats(batch_size, repeats)[_rows(batch_size, process, processes)].tolist()
        self.reader = Reader(source, strict=strict, report=report)
        self.per_epoch = sum(len(bucket) // batch_size for bucket in self.buckets)
        self.order = functools.lru_cache(maxsize=2)(self._order)

    def with_example(self, example: Callable[[Any, np.random.Generator], Batch]) -> "TrainingBatches":
        """The same batches as `example` makes them; images that cannot be read are said once by both together."""
        other = copy.copy(self)
        other.example = example
        return other

    def _order(self, epoch: int) -> list[tuple[int, int, np.ndarray]]:
        """Of every batch of an epoch its bucket, where it begins in the bucket's order, and that order."""
        found = []
        for number, bucket in enumerate(self.buckets):
            rng = self._rng(epoch, *[number] * (number > 0))
            order = np.asarray(bucket)[epoch_order(len(bucket), rng, self.repeats)]
            last = len(order) - self.batch_size
            found += [(number, first, order) for first in range(0, last + 1, self.batch_size)]
        if len(self.buckets) == 1:
            return found
        return [found[place] for place in self._rng(epoch, len(self.buckets)).permutation(len(found))]

    def _rng(self, epoch: int, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence((self.seed, epoch), spawn_key=key))

    def bucket(self, index: int) -> int:
        """The bucket that a batch is of."""
        return self.order(index // self.per_epoch)[index % self.per_epoch][0]

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
        bucket, first, order = self.order(epoch)[number]
        position = first + self.places[row]
        place = (self.seed, epoch, int(order[position]), position % self.repeats)
        chosen, item = self._item(place, self.buckets[bucket])
        return self.example(item, np.random.default_rng(place)) | {"indices": np.int32(chosen)}

    def __call__(self, index: int) -> Batch:
        return stack([self.row(index, row) for row in range(self.rows(index))])

    def _item(self, place: tuple[int, int, int, int], bucket: Sequence[int]) -> tuple[int, Any]:
        """The item that belongs there and its index, or those of the first readable substitute from its bucket."""
        chosen = place[2]
        for attempt in range(ATTEMPTS):
            if item := self.reader(chosen):
                return chosen, item[0]
            # A stream of its own, beside the one of the augmentation at this place.
            stream = np.random.SeedSequence(place, spawn_key=(attempt,))
            chosen = int(bucket[int(np.random.default_rng(stream).integers(len(bucket)))])
        raise UsageError(
            f"{ATTEMPTS} images in a row cannot be read, the last being {self.source.name(chosen)}; is the disk there?"
        )

    @property
    def broken(self) -> dict[int, str]:
        """Names by index of the images that could not be read so far, in this process."""
        return self.reader.broken


@dataclasses.dataclass(frozen=True)
class Bucket:
    """Items of a source whose examples have one shape: their `indices`, and how many make a batch, over all processes
    together. `blank` gives an example of nothing; without it, it is zeros in the shapes of another one."""

    indices: Sequence[int]
    rows: int
    example: Callable[[Any], Batch]
    blank: Callable[[], Batch] | None = None


class EvaluationBatches:
    """Every example once, in order. Where `mask` (N,) is False a row holds no example but zeros, and its index is -1.

    That is so in the filling of the last batch, and for images that cannot be read unless `strict`. Arguments are
    those of `TrainingBatches`; with `buckets` in place of `example` and `batch_size`, one comes after the other.
    """

    def __init__(
        self,
        source: Sequence,
        example: Callable[[Any], Batch] | None = None,
        batch_size: int = 1,
        *,
        buckets: Sequence[Bucket] | None = None,
        process: int = 0,
        processes: int = 1,
        strict: bool = True,
        report: Callable[[str], None] = say,
    ):
        self.source = source
        self.buckets = [Bucket(range(len(source)), batch_size, example)] if buckets is None else buckets
        self.parts = [_rows(bucket.rows, process, processes) for bucket in self.buckets]
        self.ends = np.cumsum([-(-len(bucket.indices) // bucket.rows) for bucket in self.buckets])
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
        return max(len(range(bucket.rows)[part]) for bucket, part in zip(self.buckets, self.parts, strict=True))

    def row(self, index: int, row: int) -> Batch:
        """One example of a batch, as `stack` takes them."""
        number, places = self._places(index)
        bucket, place = self.buckets[number], places[row]
        asked = int(bucket.indices[place]) if place < len(bucket.indices) else -1
        item = self.reader(asked) if asked >= 0 else None
        example = bucket.example(item[0]) if item else self.blank(number)
        return example | {"indices": np.int32(asked if item else -1), "mask": np.bool_(item is not None)}

    def _places(self, index: int) -> tuple[int, range]:
        """The bucket of a batch, and which of that bucket's examples are this process's rows."""
        number = int(np.searchsorted(self.ends, index, side="right"))
        bucket = self.buckets[number]
        first = int(index - (self.ends[number - 1] if number else 0)) * bucket.rows
        return number, range(first, first + bucket.rows)[self.parts[number]]

    def __call__(self, index: int) -> Batch:
        return stack([self.row(index, row) for row in range(self.rows(index))])

    def _blank(self, number: int) -> Batch:
        """An example of nothing in a bucket."""
        bucket = self.buckets[number]
        if bucket.blank:
            return bucket.blank()
        for index in bucket.indices[:ATTEMPTS]:
            if item := self.reader(index):
                return jax.tree.map(np.zeros_like, bucket.example(item[0]))
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
    return jax.tree.map(lambda *leaves: np.stack(leaves), *examples)
