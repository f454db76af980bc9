"""What is learnt. A task owns the layout of a batch, the loss, the metrics and the pictures; the loop knows none.

A new task is one file here, named as models' cards name it, with a class that has these members, and for the command
line
- `tasks_of(config, data, preprocess) -> list[Task]`: as it evaluates, and then for each stage of training,
- `DEFAULTS`: options that nobody gave, by name; `BATCH_SIZE`; and for the data that comes with jaxzoo `DEMO_EPOCHS` and
  `DEMO_LR_SCALE`, the factor of the usual learning rate,
- `INAPPLICABLE_OPTIONS`: names of the options that mean nothing to it,
and a line in `train.data` for its sources.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import jax
import numpy as np
from flax import nnx

import jaxzoo
from train.data.batches import Lot
from train.reporting.contact_sheet import Tile

Batch = dict[str, Any]
Sums = dict[str, jax.Array]


def of_model(name: str) -> ModuleType:
    """The file of what a model learns. Raises `UsageError` if there is no such model."""
    return importlib.import_module(f"train.tasks.{jaxzoo.card(name).task}")


class Task(Protocol):
    """Sums are what metrics are made of: scalars or arrays that are added up over batches, on the device."""

    metric: str
    """Name of the metric that chooses `best/`; higher is better."""

    def training_example(self, item: Any, rng: np.random.Generator) -> Batch:
        """An item of the data's source as arrays of fixed shape, augmented by `rng`. Runs on the host, in threads."""

    def evaluation_example(self, item: Any) -> Batch:
        """The same, without chance."""

    def blank(self) -> Batch:
        """An example of zeros."""

    def lots(self, source: Sequence, batch_size: int, wanted: int | None, multiple: int) -> list[Lot]:
        """The held-out items by the shapes of their examples, with `wanted` in a batch, or as many as suit those who
        train with `batch_size`; always a multiple of `multiple`."""

    def training_loss(self, model: nnx.Module, batch: Batch, key: jax.Array) -> tuple[jax.Array, Sums]:
        """The loss to minimise, a float32 scalar, and this batch's sums. Traced; `key` is for augmentation."""

    def evaluation_sums(self, model: nnx.Module, batch: Batch) -> Sums:
        """This batch's sums, leaving out where `batch["mask"]` is False. Traced."""

    def merged(self, sums: Sums, others: Sums) -> Sums:
        """Evaluation sums of two lots of batches as one. Traced."""

    def metrics(self, sums: dict[str, np.ndarray]) -> dict[str, float]:
        """Numbers for metrics.csv from added up sums of either kind."""

    def first_pictures(self, training: Batch, evaluation: Batch, key: jax.Array, folder: Path) -> None:
        """Draws the first batches as the model sees them, that of training augmented with `key`."""

    def tiles(self, batch: Batch, key: jax.Array) -> list[Tile]:
        """A training batch as the model sees it, augmented with `key`, with what it is said to be."""

    def counts(self, source: Sequence) -> dict[str, tuple[np.ndarray, int]]:
        """What people count in a source, such as images: by class (C,), and in all."""

    def pictures(self, sums: dict[str, np.ndarray], source: Sequence, folder: Path) -> None:
        """Draws what evaluation sums over `source` show into the run's folder."""
