"""The stages of a run: image size and regularisation grow from one to the next, as EfficientNetV2 is trained.

Tan and Le, "EfficientNetV2: Smaller Models and Faster Training", ICML 2021, section 4.
"""

import dataclasses
from collections.abc import Sequence

from flax import nnx

from jaxzoo import nn
from train.augment import strengths
from train.config.options import Config
from train.data.batches import Batch, TrainingBatches


@dataclasses.dataclass(frozen=True)
class Stages:
    """The batches of a whole run, each from its stage's; stages have equal numbers of epochs, or nearly."""

    batches: Sequence[TrainingBatches]
    epochs: int

    @property
    def per_epoch(self) -> int:
        return self.batches[0].per_epoch

    @property
    def broken(self) -> set[str]:
        return {name for batches in self.batches for name in batches.broken.values()}

    def at(self, step: int) -> int:
        """The stage of a step."""
        return min(step // self.per_epoch * len(self.batches) // self.epochs, len(self.batches) - 1)

    @property
    def most_rows(self) -> int:
        return self.batches[0].most_rows

    def bucket(self, step: int) -> tuple[int, int]:
        """What decides the shapes of a step's batch: its stage, and its bucket there."""
        stage = self.at(step)
        return stage, self.batches[stage].bucket(step)

    def rows(self, step: int) -> int:
        return self.batches[0].rows(step)

    def row(self, step: int, row: int) -> Batch:
        return self.batches[self.at(step)].row(step, row)

    def __call__(self, step: int) -> Batch:
        return self.batches[self.at(step)](step)


def dropout_rates(config: Config, model: nnx.Module, count: int) -> list[float | None]:
    """The dropout of each stage: of --dropout, or else of the model's own greatest; None if there is nothing to do."""
    own = max((m.p for _, m in nnx.iter_modules(model) if type(m) in (nn.Dropout, nn.Dropout2d)), default=0.0)
    rate = config.dropout if config.dropout is not None else own if count > 1 and own else None
    return [rate if rate is None else rate * part for part in strengths(count)]
