"""Intercepting the calls of a model's submodules, without hooks in the models."""

import collections
import contextlib
import contextvars
import functools
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend.core import ClosedJaxpr

from jaxzoo.errors import UsageError, nearest

Around = Callable[[str, Callable[[], Any]], Any]

_lock = threading.Lock()
_users: collections.Counter[type] = collections.Counter()  # of each class whose calls are watched
_watching: contextvars.ContextVar[tuple[tuple[dict[int, str], Around], ...]] = contextvars.ContextVar(
    "watching", default=()
)


@contextlib.contextmanager
def around_calls(model: nnx.Module, around: Around) -> Iterator[None]:
    """While this lasts, a submodule's call is `around(path, call)`, which runs `call()` and returns its result.

    Other threads, and other models of the same classes, do not notice.
    """
    paths = {id(module): ".".join(map(str, path)) for path, module in nnx.iter_modules(model)}
    kinds = {type(module) for _, module in nnx.iter_modules(model) if callable(module)}
    with _lock:
        for kind in kinds:
            if not _users[kind]:
                _watch(kind)
        _users.update(kinds)
    before = _watching.set((*_watching.get(), (paths, around)))
    try:
        yield
    finally:
        _watching.reset(before)
        with _lock:
            _users.subtract(kinds)
            for kind in kinds:
                if not _users[kind]:
                    _unwatch(kind)


def called(model: nnx.Module, path: str) -> tuple[str, int]:
    """The module that a path means, and which of its calls: of `relu_1`, if nothing bears that name, the second.

    Raises:
      UsageError: no such module, or none that runs by itself.
    """
    modules = {".".join(map(str, path)): module for path, module in nnx.iter_modules(model)}
    numbered = re.fullmatch(r"(.+)_(\d+)", path)
    base, number = (numbered[1], int(numbered[2])) if numbered and path not in modules else (path, 0)
    if base not in modules or not base:
        raise UsageError(f"{type(model).__name__} has no module {path!r}{nearest(path, modules)}")
    if not callable(modules[base]):
        raise UsageError(f"{path!r} only holds modules and returns nothing; name one of them, such as {path}.0")
    return base, number


def _watch(kind: type) -> None:
    """Python looks for `__call__` in the class, so this is where calls can be noticed."""
    call = getattr(kind.__call__, "unwatched", kind.__call__)  # that of a class above may be watched already

    @functools.wraps(call)
    def watched(module, *args, **kwargs):
        run = functools.partial(call, module, *args, **kwargs)
        own = type(module).__call__ is watched  # else a subclass calls the method that it overrides
        for paths, around in _watching.get():
            if own and id(module) in paths:
                run = functools.partial(around, paths[id(module)], run)
        return run()

    watched.unwatched, watched.own = call, "__call__" in vars(kind)
    kind.__call__ = watched


def _unwatch(kind: type) -> None:
    if kind.__call__.own:
        kind.__call__ = kind.__call__.unwatched
    else:
        del kind.__call__


def program(model: nnx.Module, inputs: Any, around: Around) -> ClosedJaxpr:
    """One forward pass of a model, which may be abstract; `around_calls` while it is traced. Nothing is computed.

    Args:
      model: any NNX module; it is run in the mode it is in.
      inputs: the shape of its one float32 input; or shapes and dtypes of any pytree, as `ModelCard.example_inputs`
        gives them, of which a tuple is several arguments.
      around: see `around_calls`.
    """
    graph, state = nnx.split(model)
    if isinstance(inputs, tuple | list) and all(isinstance(size, int) for size in inputs):
        inputs = jax.ShapeDtypeStruct(tuple(inputs), jnp.float32)

    def run(state: nnx.State, *inputs: Any) -> Any:
        copy = nnx.merge(graph, state, copy=True)
        with around_calls(copy, around):
            return copy(*inputs)

    return jax.make_jaxpr(run)(state, *(inputs if isinstance(inputs, tuple) else (inputs,)))
