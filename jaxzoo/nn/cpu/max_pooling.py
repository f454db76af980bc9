"""Maxima of windows: XLA's own, and the CPU's fast ones, whose gradient XLA's takes fifty times as long for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxzoo.nn.cpu.multilinear import multilinear
from jaxzoo.nn.cpu.sliding_window import Pads, pad, scatter_windows, taps_of, windows
from jaxzoo.nn.precision import wide

Plan = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]  # kernel, stride, dilation


@functools.partial(jax.jit, static_argnums=(1, 2))
def max_pool(x: jax.Array, plan: Plan, pads: Pads) -> jax.Array:
    """(N, *space, C) to (N, *output size, C)."""
    kernel, stride, dilation = plan
    if set(dilation) != {1}:  # XLA has no gradient
        return _by_windows(x, plan, pads)
    spatial = (1, *kernel, 1), (1, *stride, 1), ((0, 0), *pads, (0, 0))
    return lax.platform_dependent(
        x,
        cpu=lambda x: _by_windows(x, plan, pads),
        default=lambda x: lax.reduce_window(x, _lowest(x), lax.max, *spatial),
    )


def winners(x: jax.Array, plan: Plan, pads: Pads) -> tuple[jax.Array, jax.Array]:
    """The maxima, and which tap of its window held each: the first of equal ones, and NaN before any number."""
    best, *others = windows(pad(x, pads, _lowest(x)), *plan)
    winner = jnp.zeros(best.shape, jnp.int16)
    for i, value in enumerate(others, start=1):
        higher = (value > best) | (value != value)
        best, winner = jnp.where(higher, value, best), jnp.where(higher, jnp.int16(i), winner)
    return best, winner


def _lowest(x: jax.Array) -> np.generic:
    return np.asarray(-np.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min, x.dtype)[()]


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _by_windows(x: jax.Array, plan: Plan, pads: Pads) -> jax.Array:
    return winners(x, plan, pads)[0]


@_by_windows.defjvp
def _by_windows_slope(plan, pads, values, slopes):
    best, winner = winners(*values, plan, pads)
    winner = lax.optimization_barrier(winner)  # XLA would compute it anew for every tap that asks for it
    return best, _gather(*slopes, winner, plan=plan, pads=pads)


def _gather_winners(x: jax.Array, winner: jax.Array, *, plan: Plan, pads: Pads) -> jax.Array:
    """Of every window the number that its winning tap sees."""
    values = windows(pad(x, pads), *plan)
    return sum(jnp.where(winner == i, value, 0) for i, value in enumerate(values))


def _scatter_winners(y: jax.Array, winner: jax.Array, *, plan: Plan, pads: Pads, length: tuple[int, ...]) -> jax.Array:
    def won(tap: tuple[int, ...], winner: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.where(winner == np.ravel_multi_index(tap, plan[0]), wide(y), 0)

    padded = [n + sum(ends) for n, ends in zip(length, pads, strict=True)]
    x = scatter_windows(won, [winner, y], padded, *plan)
    return pad(x, [(-low, -high) for low, high in pads]).astype(y.dtype)


def _to_image(y: jax.Array, x: jax.Array, winner: jax.Array, *, plan: Plan, pads: Pads) -> jax.Array:
    return _scatter(y, winner, plan=plan, pads=pads, length=x.shape[1:-1])


def _to_windows(x: jax.Array, y: jax.Array, winner: jax.Array, *, plan: Plan, pads: Pads, length) -> jax.Array:
    return _gather(x, winner, plan=plan, pads=pads)


_gather = multilinear("gather_winners", _gather_winners, [_to_image, None])
_scatter = multilinear("scatter_winners", _scatter_winners, [_to_windows, None])


def winner_positions(winner: jax.Array, plan: Plan, pads: Pads, length: tuple[int, ...]) -> jax.Array:
    """Where the maxima are in an image of this length along each spatial axis, counted in reading order."""
    kernel, stride, dilation = plan
    taps = jnp.asarray(list(taps_of(kernel)), jnp.int32)[winner]  # (N, *output size, C, axes)
    place = jnp.zeros(winner.shape, jnp.int32)
    for axis, (s, d, (before, _)) in enumerate(zip(stride, dilation, pads, strict=True)):
        first = lax.broadcasted_iota(jnp.int32, winner.shape, axis + 1) * s - before
        place = place * length[axis] + first + taps[..., axis] * d
    return place
