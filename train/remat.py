"""Less memory for more time: the activations inside a network's blocks are computed again for the gradients.

Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016, https://arxiv.org/abs/1604.06174.
"""

import contextlib
from collections.abc import Iterator

import jax
from flax import nnx

from jaxzoo.nn import NamedSequential, Sequential

_CONTAINERS = (nnx.List, Sequential, NamedSequential)


class Recomputed(nnx.Module):
    """A block of which only input and output are kept."""

    def __init__(self, block: nnx.Module):
        self.block = block

    def __call__(self, *args: jax.Array) -> jax.Array:
        return nnx.remat(lambda block, *args: block(*args))(self.block, *args)


@contextlib.contextmanager
def recomputing(model: nnx.Module) -> Iterator[None]:
    """While this lasts, the model's blocks keep nothing but input and output for the gradients."""
    found = blocks(model)
    for owner, name, block in found:
        _put(owner, name, Recomputed(block))
    try:
        yield
    finally:
        for owner, name, block in found:
            _put(owner, name, block)


def blocks(model: nnx.Module) -> list[tuple[nnx.Module, str | int, nnx.Module]]:
    """The outermost modules of several layers that stand in a sequence: that sequence, their name there, and they."""
    modules = dict(sorted(nnx.iter_modules(model), key=lambda found: len(found[0])))
    chosen: dict[tuple, nnx.Module] = {}
    for path, module in modules.items():
        inside = any(path[:length] in chosen for length in range(len(path)))
        layered = sum(1 for _ in nnx.iter_modules(module)) > 2
        if path and not inside and layered and _holds(modules[path[:-1]]) and not _holds(module):
            chosen[path] = module
    return [(modules[path[:-1]], path[-1], module) for path, module in chosen.items()]


def _holds(module: nnx.Module) -> bool:
    return type(module) in _CONTAINERS


def _put(owner: nnx.Module, name: str | int, module: nnx.Module) -> None:
    if isinstance(owner, NamedSequential):
        setattr(owner, name, module)
    else:
        owner[name] = module
