"""Sums over everything but the channels, and the way back."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from jaxzoo.nn.cpu.multilinear import multilinear


def _sum(x: jax.Array) -> jax.Array:
    return x.sum(range(x.ndim - 1))


def _by_eighths(x: jax.Array) -> jax.Array:
    """XLA's CPU code adds up such sums one number at a time; eight slices at a time, it adds up vectors."""
    if not all(isinstance(size, int) for size in x.shape):
        return _sum(x)
    x = x.reshape(math.prod(x.shape[:-1][:1]), math.prod(x.shape[1:-1]), x.shape[-1])
    for axis in (1, 0):  # the batch last, for it may be spread over devices
        while (length := x.shape[axis]) >= 16 and math.prod(x.shape[:-1]) > 512:
            part = -(-length // 8)
            pieces = [lax.slice_in_dim(x, i, min(i + part, length), axis=axis) for i in range(0, length, part)]
            short = [(0, part - pieces[-1].shape[axis], 0) if i == axis else (0, 0, 0) for i in range(3)]
            pieces[-1] = lax.pad(pieces[-1], jnp.zeros((), x.dtype), short)
            # Otherwise XLA would fuse all into the last sum, which takes one number at a time.
            x = lax.optimization_barrier(functools.reduce(jnp.add, pieces))
    return x.sum((0, 1))


_channel_sum = multilinear(
    "channel_sum", _sum, [lambda cotangent, x: broadcast_channels(cotangent, x.shape)], _by_eighths
)
_broadcast = multilinear(
    "broadcast_channels",
    lambda x, *, shape: jnp.broadcast_to(x, shape),
    [lambda cotangent, x, *, shape: _channel_sum(cotangent)],
)


def channel_sum(x: jax.Array) -> jax.Array:
    """(..., C) to (C,)."""
    return _channel_sum(x)


def broadcast_channels(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The transpose of `channel_sum`: (C,) to this shape, (..., C)."""
    return _broadcast(x, shape=tuple(shape))
