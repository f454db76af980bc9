"""Models that reconstruct images, which have no classes: `jaxzoo reconstruct` and `jaxzoo generate` run them."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxzoo.commands.tasks import PredictOptions
from jaxzoo.errors import UsageError
from jaxzoo.preprocess import Pixels


@dataclasses.dataclass(frozen=True)
class Prediction:
    """There is none."""


def described(preprocess: Pixels) -> str:
    return preprocess.described()


def example_labels(inputs: Any, classes: int, generator: np.random.Generator) -> None:
    return None


def check(model: str, options: PredictOptions) -> None:
    raise UsageError(f"{model} has no classes to predict: `jaxzoo reconstruct` and `jaxzoo generate` take it")


def predict(paths: Sequence[Path], model: str, weights: str, options: PredictOptions) -> Mapping[Path, Sequence[Any]]:
    """Never called: `check` refuses all options."""
    raise NotImplementedError
