"""Every submodule's output, without hooks in the models."""

import functools
from collections.abc import Callable

import jax
from flax import nnx


def outputs(model: nnx.Module, *inputs: jax.Array) -> dict[str, jax.Array]:
    """Runs a model and returns what each submodule returned, by dotted path, in the order in which they finished.

    The model's own output is the last, under `""`; a module that ran several times gives its last result. Works inside
    `jax.jit`. (`nnx.capture` cannot hold the output of a list beside those of its children.)

    >>> outputs(model, images)["layer1.0.conv1"].shape
    (1, 56, 56, 64)
    """
    paths = {id(module): ".".join(map(str, path)) for path, module in nnx.iter_modules(model)}
    kinds = {type(module) for _, module in nnx.iter_modules(model) if callable(module)}
    calls = {kind: kind.__call__ for kind in kinds}
    inherited = {kind for kind in kinds if "__call__" not in vars(kind)}
    found: dict[str, jax.Array] = {}

    def recording(call: Callable) -> Callable:
        @functools.wraps(call)
        def wrapper(module, *args, **kwargs):
            result = call(module, *args, **kwargs)
            if id(module) in paths:
                found.pop(paths[id(module)], None)
                found[paths[id(module)]] = result
            return result

        return wrapper

    for kind, call in calls.items():
        kind.__call__ = recording(call)
    try:
        model(*inputs)
    finally:
        for kind, call in calls.items():
            if kind in inherited:
                del kind.__call__
            else:
                kind.__call__ = call
    return found
