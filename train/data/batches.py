"""Batches, read ahead by threads.

Batch `i` is a pure function of (seed, i): the order of an epoch and every random crop follow from the seed and the
position alone. So a run continues at any batch exactly, and the number of threads changes nothing.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from jaxzoo.errors import UsageError

Batch = dict[str, np.ndarray]


class TrainingBatches:
    """Batch `i` of a training run without end; an epoch's left-over images, fewer than a batch, sit that epoch out."""

    def __init__(
        self, source: Sequence, example: Callable[[Any, np.random.Generator], Batch], batch_size: int, seed: int
    ):
        if batch_size > len(source):
            raise UsageError(f"--batch-size {batch_size} is more than the {len(source)} training images")
        self.source, self.example, self.batch_size, self.seed = source, example, batch_size, seed
        self.per_epoch = len(source) // batch_size
        self.order = functools.lru_cache(maxsize=2)(self._order)

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, epoch)).permutation(len(self.source))

    def __call__(self, index: int) -> Batch:
        epoch, position = divmod(index, self.per_epoch)
        chosen = self.order(epoch)[position * self.batch_size :][: self.batch_size]
        return _stack(
            [self.example(self.source[i], np.random.default_rng((self.seed, epoch, i))) for i in chosen.tolist()]
        )


class EvaluationBatches:
    """Every example once, in order. The last batch is filled up with its first example; `mask` (N,) is False there."""

    def __init__(self, source: Sequence, example: Callable[[Any], Batch], batch_size: int):
        self.source, self.example, self.batch_size = source, example, batch_size

    def __len__(self) -> int:
        return -(-len(self.source) // self.batch_size)

    def __call__(self, index: int) -> Batch:
        chosen = range(index * self.batch_size, min((index + 1) * self.batch_size, len(self.source)))
        examples = [self.example(self.source[i]) for i in chosen]
        missing = self.batch_size - len(examples)
        return _stack(examples + examples[:1] * missing) | {"mask": np.arange(self.batch_size) < len(examples)}


def read_ahead(batches: Callable[[int], Batch], start: int, stop: int, *, workers: int) -> Iterator[Batch]:
    """`batches(start)` to `batches(stop - 1)`, in order, while `workers` threads prepare the next ones."""
    import grain

    options = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=workers + 2)
    return iter(grain.MapDataset.range(start, stop).map(batches).to_iter_dataset(options))


def _stack(examples: list[Batch]) -> Batch:
    return {key: np.stack([example[key] for example in examples]) for key in examples[0]}
