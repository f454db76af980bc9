"""What is learnt. A task owns the layout of a batch, the loss, the metrics and the pictures; the loop knows none.

A new task is one file here, named as models' cards name it, with a class that has the members of `Task`, and for the
command line
- `tasks_of(config, data, preprocess) -> list[Task]`: as it evaluates, and then for each stage of training,
- `preparation(config, data, weights)`: how inputs are prepared, a `Preprocess`, or None where nothing is,
- `model_arguments(config, data, preprocess, weights)`: what the model is built with,
- `head_words(arguments)`: what a head that starts fresh is for, in words,
- `usual_options(data, side)`: options that nobody gave, by name, and `augmentation_line(asked, config, data, side)`,
  what training images go through, in words, or nothing; `side` is that of images, or None,
- `BATCH_SIZE`; and for the data that comes with jaxzoo `DEMO_EPOCHS` and `DEMO_LR_SCALE`, the factor of the usual
  learning rate,
- `INAPPLICABLE_OPTIONS`: names of the options that mean nothing to it,
and its sources in `train.data.SOURCES`. A task of one's own is such a file anywhere, which calls
`train.data.register_sources`, and cards name it by its dotted path.
"""

import importlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, TypeVar

import jax
import numpy as np
from flax import nnx

import jaxzoo
from jaxzoo.inspect.cam import Score
from jaxzoo.preprocess import Preprocess
from train.data import Data
from train.data.batches import Batch, Bucket
from train.metrics import Collector, Metric, Quantity, States
from train.reporting.contact_sheet import Tile

T = TypeVar("T")
Arrays = dict[str, jax.Array]
Outputs = dict[str, Any]  # what metrics look at, by name
Parts = dict[str, jax.Array]  # named parts of a loss
# Calls a function with the model that has these parameters; gives its result, and the model's other variables after it.
Apply = Callable[[Arrays, Callable[[nnx.Module], T]], tuple[T, Arrays]]


def of_model(name: str) -> ModuleType:
    """The file of what a model learns. Raises `UsageError` if there is no such model."""
    task = jaxzoo.card(name).task
    return importlib.import_module(task if "." in task else f"train.tasks.{task}")


class Task(Protocol):
    """A batch is a dictionary of pytrees of arrays, whose first axis counts the examples."""

    metric: str
    """Name of the metric that chooses `best/`."""

    quantities: Mapping[str, Quantity]
    """How the metrics are read; what is missing is a part, and higher is better."""

    headline: Collection[str] | None = None
    """Names of the numbers that a line about an epoch or an evaluation has, and that are drawn; all unless given."""

    training_metrics: Mapping[str, Metric]
    evaluation_metrics: Mapping[str, Metric]

    collected: Sequence[str] = ()
    """Names of the evaluation's outputs that the `collector` gets, a row for each item."""

    data: Data | None = None
    """What is learnt from and evaluated, where that is not the data as it was opened: with masks, say."""

    preprocess: Preprocess | None = None
    """How inputs are prepared for evaluation, for checkpoints to keep."""

    # Batches

    def training_example(self, item: Any, rng: np.random.Generator) -> Batch:
        """An item of the data's source as arrays, augmented by `rng`. Runs on the host, in threads. The items of a
        bucket have equal shapes."""

    def evaluation_example(self, item: Any) -> Batch:
        """The same, without chance."""

    def training_buckets(self, source: Sequence) -> Sequence[Sequence[int]]:
        """The items of a source by the shapes of their training examples; every batch is of one bucket, and a step is
        compiled for each. An item is in one bucket only."""
        return [range(len(source))]

    def evaluation_buckets(self, source: Sequence, batch_size: int, wanted: int | None, multiple: int) -> list[Bucket]:
        """The held-out items by the shapes of their examples, with `wanted` in a batch, or as many as suit those who
        train with `batch_size`; always a multiple of `multiple`."""
        return [Bucket(range(len(source)), wanted or batch_size, self.evaluation_example)]

    # Computation, traced

    def training_loss(self, model: nnx.Module, batch: Batch, key: jax.Array) -> tuple[jax.Array, tuple[Parts, Outputs]]:
        """The loss to minimise, a float32 scalar; the parts of it that are worth a curve of their own; and outputs for
        `training_metrics`. `key` is for augmentation."""

    def loss_and_gradients(
        self, apply: Apply, params: Arrays, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Arrays, tuple[Parts, Outputs, Arrays]]:
        """The loss, what the optimizer is given for every parameter, and the loss's parts, the outputs for
        `training_metrics` and the model's other variables after the step.

        This is the gradient of `training_loss`, unless a task has another rule of learning, such as contrastive
        divergence.
        """

        def loss(params: Arrays) -> tuple[jax.Array, tuple[Parts, Outputs, Arrays]]:
            (loss, (parts, outputs)), variables = apply(params, lambda model: self.training_loss(model, batch, key))
            return loss, (parts, outputs, variables)

        (value, rest), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        return value, gradients, rest

    def evaluation_outputs(self, model: nnx.Module, batch: Batch) -> Outputs:
        """Outputs for `evaluation_metrics` and the collector; `mask`, `batch["mask"]` or what comes of it, is False
        where a row is no item."""

    # Records, on the host

    def collector(self) -> Collector | None:
        """A new one for each evaluation, where metrics need the results of single items."""
        return None

    def table(self, numbers: Mapping[str, float]) -> str:
        """Lines about an evaluation's numbers, after that of the headline: at the end of a run, and of --eval-only."""
        return ""

    def draw_first_batches(self, training: Batch, evaluation: Batch, key: jax.Array, folder: Path) -> None:
        """Draws the first batches as the model sees them, that of training augmented with `key`."""

    def draw(self, states: States, source: Sequence, folder: Path, collector: Collector | None = None) -> None:
        """Draws what an evaluation of `source` found, by its metrics' states and collector, into the run's folder."""

    def explained(self, batch: Batch) -> tuple[Any, Score] | None:
        """What class activation maps are drawn of: the model's inputs for a batch of evaluation, and the score of each
        image, see `jaxzoo.inspect.cam`; None for nothing. Traced."""
        return None

    def explained_tiles(self, batch: Batch) -> list[Tile]:
        """The images of such a batch as the model sees them, on the host, with what those scores are for."""
        return []

    def tiles(self, batch: Batch, key: jax.Array) -> list[Tile]:
        """A training batch as the model sees it, augmented with `key`, with what it is said to be."""
        return []

    def draw_data(self, source: Sequence, path: Path) -> bool:
        """Draws what else people look at in a source, such as sizes of objects, and says whether there is anything."""
        return False

    def counts(self, source: Sequence) -> dict[str, tuple[np.ndarray, int]]:
        """What people count in a source, such as images: by class (C,), and in all."""
        return {}
