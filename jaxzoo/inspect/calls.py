"""Acting around the calls of a model's submodules, without hooks in the models."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend.core import ClosedJaxpr


@contextlib.contextmanager
def around_calls(model: nnx.Module, around: Callable[[str, Callable[[], Any]], Any]) -> Iterator[None]:
    """While this lasts, a submodule's call is `around(path, call)`, which runs `call()` and returns its result."""
    paths = {id(module): ".".join(map(str, path)) for path, module in nnx.iter_modules(model)}
    kinds = {type(module) for _, module in nnx.iter_modules(model) if callable(module)}
    calls = {kind: kind.__call__ for kind in kinds}
    inherited = {kind for kind in kinds if "__call__" not in vars(kind)}

    def wrap(call: Callable) -> Callable:
        @functools.wraps(call)
        def wrapper(module, *args, **kwargs):
            run = functools.partial(call, module, *args, **kwargs)
            return around(paths[id(module)], run) if id(module) in paths else run()

        return wrapper

    for kind, call in calls.items():
        kind.__call__ = wrap(call)
    try:
        yield
    finally:
        for kind, call in calls.items():
            if kind in inherited:
                del kind.__call__
            else:
                kind.__call__ = call


def program(model: nnx.Module, shape: Sequence[int], around: Callable[[str, Callable[[], Any]], Any]) -> ClosedJaxpr:
    """One forward pass of a model, which may be abstract, on an input of this shape; `around_calls` while it is traced.

    Nothing is computed.
    """
    graph, state = nnx.split(model)

    def run(state: nnx.State, x: jax.Array) -> Any:
        copy = nnx.merge(graph, state, copy=True)
        with around_calls(copy, around):
            return copy(x)

    return jax.make_jaxpr(run)(state, jax.ShapeDtypeStruct(tuple(shape), jnp.float32))
