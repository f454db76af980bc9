"""What a model is, how large it is and how much it computes, known without building it."""

import dataclasses
import functools
import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources

import jax
from flax import nnx

from jaxzoo.inspect.flops import multiply_adds
from jaxzoo.preprocess import Preprocess
from jaxzoo.registry import Published, card, create_model


@dataclasses.dataclass(frozen=True)
class Figures:
    """Of one model with its default arguments: its parameters, and its multiply-adds for one image of native size."""

    parameters: int
    multiply_adds: int


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """A model's card, and with the default arguments its parameters and its multiply-adds per image of `input_size`."""

    name: str
    task: str
    parameters: int
    multiply_adds: int
    input_size: int
    preprocess: Preprocess
    weights: Mapping[str, Published]
    twin: str
    paper: str


@functools.cache
def stored() -> dict[str, Figures]:
    """What figures.json says, which `python -m tests.models_table` writes; it has every model of the zoo."""
    rows = json.loads(resources.files("jaxzoo").joinpath("figures.json").read_text())
    return {name: Figures(**row) for name, row in rows.items()}


def measure(model: nnx.Module, shape: Sequence[int]) -> Figures:
    """The same by looking: at a model, which may be abstract, for an input of that shape."""
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    return Figures(parameters, multiply_adds(model, shape)[""])


def model_info(name: str) -> ModelInfo:
    """Task, size, cost, input size, preprocessing, published weights, reference twin and paper.

    Parameters and multiply-adds are looked up for the zoo's own models, and counted for those that you registered.
    """
    c = card(name)
    size = stored().get(name)
    if size is None:
        abstract = nnx.eval_shape(lambda: create_model(name))
        size = measure(abstract, c.example_inputs().shape)
    return ModelInfo(
        name, c.task, size.parameters, size.multiply_adds, c.input_size, c.preprocess, c.weights, c.twin, c.paper
    )


def digits(number: float) -> str:
    """Three significant ones: 167, 17.6, 0.000416."""
    return f"{number:#.3g}".rstrip(".")
