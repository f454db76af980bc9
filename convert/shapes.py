"""Models without arrays: names and shapes of their tensors, and arguments told by the shapes in a checkpoint."""

import functools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convert import rules
from jaxzoo import card, create_model
from jaxzoo.registry import argument_names

Shapes = Mapping[str, tuple[int, ...]]


def shapes_of(module: nnx.Module) -> Shapes:
    """The shape of every tensor in a module's state_dict, by torch's names."""
    return {leaf.key: leaf.torch_shape for leaf in rules.leaves(module)}


@functools.cache
def default(name: str) -> nnx.Module:
    """A model of the zoo with its default arguments, abstract; leave it as it is."""
    return abstract(name)


@functools.cache
def default_shapes(name: str) -> Shapes:
    """`shapes_of` a model of the zoo with its default arguments."""
    return shapes_of(default(name))


def epsilons(name: str) -> set[float]:
    """The `epsilon` of each normalisation layer of a model of the zoo."""
    return {module.epsilon for _, module in nnx.iter_modules(default(name)) if hasattr(module, "epsilon")}


def abstract(name: str, **arguments) -> nnx.Module:
    """A model of shapes and dtypes, without arrays."""
    return nnx.eval_shape(lambda: create_model(name, **arguments))


def cast(model: nnx.Module, dtype: str | np.dtype) -> nnx.Module:
    """Gives the floating-point leaves of an abstract model this dtype, in place."""
    for leaf in rules.leaves(model):
        value = leaf.variable.get_value()
        if jnp.issubdtype(value.dtype, jnp.floating):
            leaf.variable.set_value(jax.ShapeDtypeStruct(value.shape, dtype))
    return model


def image_size_of(name: str, shapes: Shapes, arguments: Mapping[str, Any]) -> int | None:
    """The side in pixels of the images that a checkpoint of these shapes is for, if the model has to know it.

    A table of positions grows with the area; two abstract models tell how.
    """
    if "image_size" not in argument_names(name):
        return None
    side = card(name).input_size
    small, large = (shapes_at(name, {**arguments, "image_size": size}) for size in (side, 2 * side))
    for at_side, at_double, size in sizes_that_differ(small, small, large, shapes):
        per_pixel = (at_double - at_side) / (3 * side**2)
        area = side**2 + (size - at_side) / per_pixel
        if area > 0 and round(math.sqrt(area)) ** 2 == round(area):
            return round(math.sqrt(area))
    return None


def shapes_at(name: str, arguments: Mapping[str, Any]) -> Shapes:
    """`shapes_of` a model of the zoo with these arguments."""
    try:
        return _shapes_at(name, tuple(sorted(arguments.items())))
    except TypeError:  # an argument that cannot be kept
        return shapes_of(abstract(name, **arguments))


@functools.lru_cache(64)
def _shapes_at(name: str, arguments: tuple[tuple[str, Any], ...]) -> Shapes:
    return shapes_of(abstract(name, **dict(arguments)))


def sizes_that_differ(
    keys: Iterable[str], small: Shapes, large: Shapes, shapes: Shapes
) -> Iterator[tuple[int, int, int]]:
    """The axes that differ between two models: their sizes in the one, in the other, and in a checkpoint."""
    for key in keys:
        for a, b, size in zip(small[key], large[key], shapes.get(key, ()), strict=False):
            if a != b:
                yield a, b, size
