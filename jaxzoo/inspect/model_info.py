"""All about a model: its card, and its size."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from jaxzoo.inspect.flops import multiply_adds
from jaxzoo.model_size import ModelSize, stored
from jaxzoo.preprocess import Preparation
from jaxzoo.registry import Published, card, create_model


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """A model's card, and with the default arguments its parameters and its multiply-adds per input of native size."""

    name: str
    task: str
    parameters: int
    multiply_adds: int
    input_size: int
    preprocess: Preparation
    weights: Mapping[str, Published]
    twin: str
    paper: str


def measure(model: nnx.Module, inputs: Any) -> ModelSize:
    """The size of a model, which may be abstract, for inputs as `multiply_adds` takes them."""
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    return ModelSize(parameters, multiply_adds(model, inputs)[""])


def model_info(name: str) -> ModelInfo:
    """Task, size, cost, input size, preprocessing, published weights, reference twin and paper.

    Parameters and multiply-adds are looked up for the zoo's own models, and counted for those that you registered.
    """
    c = card(name)
    size = stored().get(name) or measure(nnx.eval_shape(lambda: create_model(name)), c.example_inputs())
    return ModelInfo(
        name, c.task, size.parameters, size.multiply_adds, c.input_size, c.preprocess, c.weights, c.twin, c.paper
    )
