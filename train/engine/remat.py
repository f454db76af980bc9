"""Less memory for more time: the activations inside a network's blocks are computed again for the gradients.

Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016, https://arxiv.org/abs/1604.06174.
"""

import contextlib
from collections.abc import Iterator

import jax
from flax import nnx

from jaxzoo.errors import UsageError
from train.optim.parameter_groups import blocks


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
    modules = dict(nnx.iter_modules(model))
    found = [(modules[path[:-1]], path[-1], modules[path]) for path in blocks(model)]
    if not found:
        raise UsageError(f"--remat: a {type(model).__name__} has no blocks that could be computed again; leave it out")
    for owner, name, block in found:
        _put(owner, name, Recomputed(block))
    try:
        yield
    finally:
        for owner, name, block in found:
            _put(owner, name, block)


def _put(owner: nnx.Module, name: str | int, module: nnx.Module) -> None:
    if isinstance(name, str):
        setattr(owner, name, module)
    else:
        owner[name] = module
