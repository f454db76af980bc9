"""Every submodule's output, without hooks in the models."""

from collections.abc import Callable

import jax
from flax import nnx

from jaxzoo.inspect.intercept import around_calls


def outputs(model: nnx.Module, *inputs: jax.Array) -> dict[str, jax.Array]:
    """Runs a model and returns what each submodule returned, by dotted path, in the order in which they finished.

    The model's own output is the last, under `""`; a module that ran several times gives its last result. Works inside
    `jax.jit`. (`nnx.capture` cannot hold the output of a list beside those of its children.)

    >>> outputs(model, images)["layer1.0.conv1"].shape
    (1, 56, 56, 64)
    """
    found: dict[str, jax.Array] = {}

    def record(path: str, call: Callable[[], jax.Array]) -> jax.Array:
        result = call()
        found.pop(path, None)
        found[path] = jax.tree.map(lambda leaf: leaf if hasattr(leaf, "shape") else None, result)  # without names
        return result

    with around_calls(model, record):
        model(*inputs)
    return found
