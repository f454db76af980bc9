"""Models without arrays: their names and shapes, and what the shapes in a checkpoint tell of a model's arguments."""

import functools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
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
    """What a model of the zoo keeps its divisors from zero with, where it normalises."""
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


def head_of(
    name: str, shapes: Shapes, arguments: Mapping[str, Any], *, without: Collection[str] = ()
) -> tuple[list[str], int | None]:
    """The keys whose shape depends on the number of classes, and that number in a checkpoint of these shapes.

    Nothing is known of any model: two abstract ones are compared, and sizes grow linearly with the classes.
    """
    few, more = 7, 11
    small, large = _at(name, arguments, "num_classes", few, more)
    heads = [key for key in small if small[key] != large[key] and key not in without]
    for at_few, at_more, size in _sizes(heads, small, large, shapes):
        per_class = (at_more - at_few) / (more - few)
        classes = few + (size - at_few) / per_class
        if classes >= 1 and classes.is_integer():
            return heads, int(classes)
    return heads, None


def image_size_of(name: str, shapes: Shapes, arguments: Mapping[str, Any]) -> int | None:
    """The side in pixels of the images that a checkpoint of these shapes is for, if the model has to know it.

    A table of positions grows with the area; two abstract models tell how.
    """
    side = card(name).input_size
    small, large = _at(name, arguments, "image_size", side, 2 * side)
    for at_side, at_double, size in _sizes(small, small, large, shapes):
        per_pixel = (at_double - at_side) / (3 * side**2)
        area = side**2 + (size - at_side) / per_pixel
        if area > 0 and round(math.sqrt(area)) ** 2 == round(area):
            return round(math.sqrt(area))
    return None


def auxiliary(name: str, arguments: Mapping[str, Any]) -> tuple[str | None, set[str]]:
    """The argument that asks for heads which count in training only, and the names of their tensors."""
    for argument in [known for known in argument_names(name) if known.startswith("aux_")]:
        without, having = _at(name, arguments, argument, False, True)
        return argument, having.keys() - without.keys()
    return None, set()


def _at(name: str, arguments: Mapping[str, Any], argument: str, *values: int) -> list[Shapes]:
    """The shapes of a model at these values of an argument; none where it takes no such argument."""
    if argument not in argument_names(name):
        return [{} for _ in values]
    return [shapes_at(name, {**arguments, argument: value}) for value in values]


def shapes_at(name: str, arguments: Mapping[str, Any]) -> Shapes:
    """`shapes_of` a model of the zoo with these arguments."""
    try:
        return _shapes_at(name, tuple(sorted(arguments.items())))
    except TypeError:  # an argument that cannot be kept
        return shapes_of(abstract(name, **arguments))


@functools.lru_cache(64)
def _shapes_at(name: str, arguments: tuple[tuple[str, Any], ...]) -> Shapes:
    return shapes_of(abstract(name, **dict(arguments)))


def _sizes(keys: Iterable[str], small: Shapes, large: Shapes, shapes: Shapes) -> Iterator[tuple[int, int, int]]:
    """The axes that differ between two models: their sizes in the one, in the other, and in a checkpoint."""
    for key in keys:
        for a, b, size in zip(small[key], large[key], shapes.get(key, ()), strict=False):
            if a != b:
                yield a, b, size
