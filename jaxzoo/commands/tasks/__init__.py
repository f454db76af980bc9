"""What commands ask the task of a model. A new task is one file here, named as its models' cards name it."""

import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import jax
import numpy as np
from flax import nnx
from jax.tree_util import Partial
from PIL import Image

from jaxzoo.cache import keep_compiled_programs
from jaxzoo.errors import UsageError, nearest
from jaxzoo.preprocess import Preparation
from jaxzoo.registry import card

if TYPE_CHECKING:
    from convert.weights import Weights


TOP = 5  # classes that are named for an image, unless --top says how many


@dataclasses.dataclass(frozen=True)
class PredictOptions:
    """Those of `jaxzoo predict` that a task may need or refuse."""

    top: int | None
    temperature: float | None
    batch_size: int
    annotate: Path | None
    out: Path | None
    crf: bool
    score: float | None
    max_detections: int | None
    canvas: Literal["exact", "buckets"] | None


def refuse(model: str, options: PredictOptions, *names: str) -> None:
    """Raises UsageError if options of these names were given, which the model's task does not have."""
    if given := [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) not in (None, False)]:
        are = "is an option" if len(given) == 1 else "are options"
        raise UsageError(f"{' and '.join(given)} {are} of other tasks, and {model} is for {card(model).task}")


@dataclasses.dataclass(frozen=True)
class View:
    """An image as a network sees it."""

    inputs: tuple[Any, ...]  # of the network, a batch of one image (1, H, W, C) first
    picture: Image.Image  # what is on it, from the upper left, in as many pixels

    def box(self, box: Sequence[float] | None, own: Image.Image) -> np.ndarray | None:
        """A box (x1, y1, x2, y2) in pixels of an image, of which this is the whole, in pixels of the picture."""
        return None if box is None else np.multiply(box, np.divide(self.picture.size, own.size)[[0, 1, 0, 1]])


@dataclasses.dataclass(frozen=True)
class Target:
    """An output to explain: in words, as a function of all outputs (see `jaxzoo.inspect.cam`; None if it is not there),
    and its place, in pixels of the view's picture, if it has one."""

    text: str
    score: Partial | None
    box: np.ndarray | None = None


class Handler(Protocol):
    """A module that has these."""

    Prediction: type
    """A dataclass of one class in a result; its last field is how strong it is, 0–1."""

    def described(self, preprocess: Preparation) -> str:
        """How images are prepared, in words."""

    def example_labels(self, inputs: Any, classes: int, generator: np.random.Generator) -> Any:
        """Random labels for a batch of inputs: arrays of int32, or what the models' own `losses` take; None where there
        are no labels to learn from."""

    def check(self, model: str, options: PredictOptions) -> None:
        """Raises UsageError for options that this task does not have, or lacks."""

    def predict(
        self, paths: Sequence[Path], model: str, weights: str, options: PredictOptions
    ) -> Mapping[Path, Sequence[Any]]:
        """The strongest `Prediction`s for each image that can be read, printed as they are found."""

    # Of tasks whose images `jaxzoo inspect` shows; others have none of these.

    def view(self, model: nnx.Module, preprocess: Preparation, picture: Image.Image) -> View:
        """An image as it goes into the network."""

    def class_names(self, known: Sequence[str] | None, count: int | None) -> Sequence[str]:
        """Of a model for `count` classes, as its builder counts them; `known` are those of the weights, if they say."""

    def targets(
        self, outputs: Any, names: Sequence[str], labels: Sequence[int], box: np.ndarray | None
    ) -> Sequence[Target]:
        """What to explain of a view's outputs: these classes, or the one that is found. Raises UsageError for a box, in
        pixels of the view, where it means nothing."""


def of_model(name: str) -> Handler:
    """The handler of a model's task. Raises `UsageError` if there is no such model."""
    task = card(name).task
    return importlib.import_module(task if "." in task else f"{__name__}.{task}")


@dataclasses.dataclass(frozen=True)
class Network:
    """A network with its weights, how its images are prepared, and the names of its classes if they are known."""

    run: Callable[[Any], Any]  # from a batch of inputs to what `load_network` makes of the outputs
    preprocess: Preparation
    classes: Sequence[str] | None


def read_model(name: str, weights: str) -> tuple[nnx.Module, "Weights", dict[str, Any]]:
    """A model with these weights, the facts that came with them, and the arguments that built it."""
    from convert.loading import load_model
    from convert.sources import read_weights

    keep_compiled_programs()
    found = read_weights(name, weights)
    model, arguments = load_model(name, found)
    return model, found, arguments


def class_index(asked: str, names: Sequence[str]) -> int:
    """The class of a name, or of a part of it that only one has, in any case; or of a number. Raises UsageError."""
    wanted = asked.casefold()
    lower = [name.casefold() for name in names]
    if wanted in lower:
        return lower.index(wanted)
    if asked.isdecimal() and int(asked) < len(names):
        return int(asked)
    parts = [i for i, name in enumerate(lower) if wanted in name] if wanted and not asked.isdecimal() else []
    if len(parts) == 1:
        return parts[0]
    found = f"; {', '.join(names[i] for i in parts[:5])} are classes" if parts else nearest(wanted, lower)
    raise UsageError(f"there is no class {asked!r}{found}; there are {len(names)}, from 0 ({names[0]}) on")


def load_network(name: str, weights: str, result: Callable[[Any], Any]) -> Network:
    """A model with these weights, compiled together with `result`, which is given its outputs."""
    from convert.weights import preprocess_of

    model, found, arguments = read_model(name, weights)
    graph, state = nnx.split(model)
    run = jax.jit(lambda state, inputs: result(nnx.merge(graph, state)(inputs)))
    return Network(lambda inputs: run(state, inputs), preprocess_of(name, found, arguments, model), found.classes)
