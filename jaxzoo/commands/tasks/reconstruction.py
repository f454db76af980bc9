"""Models that reconstruct images, which have no classes: `jaxzoo reconstruct` and `jaxzoo generate` run them."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from jaxzoo.commands.tasks import PredictOptions, read_model
from jaxzoo.errors import UsageError
from jaxzoo.preprocess import Pixels
from jaxzoo.registry import card


@dataclasses.dataclass(frozen=True)
class Prediction:
    """There is none."""


def read_reconstruction(weights: str) -> tuple[str, nnx.Module, Pixels]:
    """The name of the model that a run or a converted directory holds, the model with these weights, and how its images
    are prepared. Raises UsageError for a model of another task, or weights that do not say what they are of."""
    from convert import store
    from convert.weights import preprocess_of

    folder, _ = store.part_of(Path(weights))
    name = store.read_manifest(store.checkpoint_in(folder))["model"]
    if card(name).task != "reconstruction":
        raise UsageError(f"{weights} holds {name}, which is for {card(name).task}: `jaxzoo predict` takes it")
    model, found, arguments = read_model(name, weights)
    return name, model, preprocess_of(name, found, arguments, model)


def described(preprocess: Pixels) -> str:
    return preprocess.described()


def example_labels(inputs: Any, classes: int, generator: np.random.Generator) -> None:
    return None


def check(model: str, options: PredictOptions) -> None:
    raise UsageError(f"{model} has no classes to predict: `jaxzoo reconstruct` and `jaxzoo generate` take it")


def predict(paths: Sequence[Path], model: str, weights: str, options: PredictOptions) -> Mapping[Path, Sequence[Any]]:
    """Never called: `check` refuses all options."""
    raise NotImplementedError
