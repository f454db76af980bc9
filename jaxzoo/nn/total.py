"""Sums over everything but the channels."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax


def total(term: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    """Sums `term(*arrays)`, elementwise and (..., C), to (C,).

    XLA's CPU code adds up such sums one number at a time; here it adds up vectors, and computes the terms on the way.
    """
    return lax.platform_dependent(
        *arrays,
        cpu=functools.partial(_by_eighths, term),
        default=lambda *arrays: jnp.sum(term(*arrays), tuple(range(arrays[0].ndim - 1))),
    )


def _by_eighths(term: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    arrays = [x.reshape(math.prod(x.shape[:-1][:1]), math.prod(x.shape[1:-1]), x.shape[-1]) for x in arrays]
    for axis in (1, 0):  # the batch last, for it may be spread over devices
        while (length := arrays[0].shape[axis]) >= 16 and math.prod(arrays[0].shape[:-1]) > 512:
            part = -(-length // 8)
            cuts = [(i, min(i + part, length)) for i in range(0, length, part)]
            pieces = [term(*(lax.slice_in_dim(x, *cut, axis=axis) for x in arrays)) for cut in cuts]
            behind = [(0, part - pieces[-1].shape[axis], 0) if i == axis else (0, 0, 0) for i in range(3)]
            pieces[-1] = lax.pad(pieces[-1], jnp.zeros((), pieces[-1].dtype), behind)
            # Otherwise XLA would fuse all into the last sum, which takes one number at a time.
            arrays = [lax.optimization_barrier(functools.reduce(jnp.add, pieces))]
            term = _itself
    return term(*arrays).sum((0, 1))


def _itself(x: jax.Array) -> jax.Array:
    return x
