"""Less memory for more time: the activations inside a network's blocks are computed again for the gradients.

Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016, https://arxiv.org/abs/1604.06174.
"""

import contextlib
from collections.abc import Iterator

import jax
from flax import nnx

from jaxzoo.errors import UsageError
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
    """While this lasts, the model's blocks keep nothing but input and output for the gradients.

    Raises:
      UsageError: it has no blocks.
    """
    found = blocks(model)
    if not found:
        raise UsageError(f"--remat: a {type(model).__name__} has no blocks that could be computed again; leave it out")
    for owner, name, block in found:
        _put(owner, name, Recomputed(block))
    try:
        yield
    finally:
        for owner, name, block in found:
            _put(owner, name, block)


def blocks(model: nnx.Module) -> list[tuple[nnx.Module, str | int, nnx.Module]]:
    """What is computed again: the owner of each block, its name there, and the block; none in AlexNet, say, or VGG.

    Blocks are the outermost modules of several layers that stand in a sequence, or are a part of the model itself
    that has less than half of its parameters.
    """
    modules = dict(sorted(nnx.iter_modules(model), key=lambda found: len(found[0])))
    half, chosen = _size(model) / 2, {}
    for path, module in modules.items():
        inside = any(path[:length] in chosen for length in range(len(path)))
        if not path or inside or not _layered(module):
            continue
        owner = modules[path[:-1]]
        if _holds(owner):
            is_block = not (_holds(module) and any(_layered(child) for _, child in nnx.iter_children(module)))
        else:
            is_block = owner is model and not _holds(module) and _size(module) < half
        if is_block:
            chosen[path] = module
    return [(modules[path[:-1]], path[-1], module) for path, module in chosen.items()]


def _layered(module: nnx.Module) -> bool:
    return sum(1 for _ in nnx.iter_modules(module)) > 2


def _size(module: nnx.Module) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


def _holds(module: nnx.Module) -> bool:
    return type(module) in _CONTAINERS


def _put(owner: nnx.Module, name: str | int, module: nnx.Module) -> None:
    if isinstance(name, str):
        setattr(owner, name, module)
    else:
        owner[name] = module
