"""How large every model is and how much it computes, known without building it."""

import dataclasses
import functools
import json
import math
from collections.abc import Sequence
from importlib import resources

import jax
from flax import nnx

from jaxzoo.inspect.flops import multiply_adds


@dataclasses.dataclass(frozen=True)
class Figures:
    """Of one model with its default arguments: its parameters, and its multiply-adds for one image of native size."""

    parameters: int
    multiply_adds: int


@functools.cache
def stored() -> dict[str, Figures]:
    """What figures.json says, which `python -m tests.models_table` writes; it has every model of the zoo."""
    rows = json.loads(resources.files("jaxzoo").joinpath("figures.json").read_text())
    return {name: Figures(**row) for name, row in rows.items()}


def measure(model: nnx.Module, shape: Sequence[int]) -> Figures:
    """The same by looking: at a model, which may be abstract, for an input of that shape."""
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    return Figures(parameters, multiply_adds(model, shape)[""])


def digits(number: float) -> str:
    """Three significant ones: 167, 17.6, 0.000416."""
    return f"{number:#.3g}".rstrip(".")
