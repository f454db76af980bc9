"""Gaussian filtering of values that lie anywhere in a space of a few dimensions, in time linear in their number.

Adams, Baek & Davis 2010, Fast High-Dimensional Filtering Using the Permutohedral Lattice, Computer Graphics Forum 29.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

PADDED = 1 << 14  # numbers of vertices are rounded up to multiples of this: fewer programs to compile
_MULTIPLIERS = np.random.default_rng(0).integers(0, 1 << 63, 64).astype(np.uint64) * 2 + np.uint64(1)


class Lattice(NamedTuple):
    """The occupied vertices of a lattice, for N points in d dimensions, M vertices, and d + 1 directions to blur in.

    Vertices stand in another order for every direction, in which those next to each other on the lattice are next to
    each other in memory.
    """

    shares: jax.Array  # (N, d + 1): how much of a point lies at each corner of the simplex that it is in
    first: jax.Array  # (N, d + 1): these corners, in the order of the first direction
    last: jax.Array  # and in that of the last
    orders: jax.Array  # (d, M): where the vertices of each further direction were in the direction before
    linked: jax.Array  # (d + 1, M - 1): whether a vertex and the one after it are neighbours


def build(features: np.ndarray, dtype: np.dtype = np.float32) -> Lattice:
    """The lattice for points (N, d), whose scale makes the Gaussian's standard deviation 1; d is at least 1."""
    count, d = features.shape
    places, ranks, shares = _simplices(np.asarray(features, np.float64).T)
    multipliers = _MULTIPLIERS[: d + 1]
    # A vertex is known by the sum of its coordinates times random numbers, modulo 2^64: two of a million have the same
    # with a probability of 1 in 40 million. The sum is linear, so that of a neighbour is a constant away.
    codes = np.empty((d + 1, count), np.uint64)
    codes[0] = (places.astype(np.uint64) * multipliers[:, None]).sum(0)
    by_rank = multipliers[np.argsort(ranks, axis=0)]
    for corner in range(d):
        codes[corner + 1] = codes[corner] + multipliers.sum() - np.uint64(d + 1) * by_rank[d - corner]
    steps = np.uint64(d + 1) * multipliers - multipliers.sum()  # of codes, to the next vertex in each direction
    known, example, vertices = np.unique(codes, return_index=True, return_inverse=True)
    corner, point = np.divmod(example, count)
    keys = places[:, point] + corner - np.where(ranks[:, point] > d - corner, d + 1, 0)  # (d + 1, M)

    total = -(-len(known) // PADDED) * PADDED
    rank_in = np.empty((d + 1, total), np.int32)  # of each vertex in the order of each direction
    in_order = np.empty((d + 1, total), np.int32)
    linked = np.zeros((d + 1, total - 1), bool)
    rest = np.arange(len(known), total)
    for direction in range(d + 1):
        step = steps[direction : direction + 1]
        along = keys[(direction + 1) % (d + 1)]  # falls by one at each step
        line = known + along.astype(np.uint64) * step  # the same for all vertices of a line
        order = np.lexsort((-along, line))
        linked[direction, : len(known) - 1] = known[order[1:]] == known[order[:-1]] + step
        in_order[direction] = np.concatenate([order, rest])
        rank_in[direction, in_order[direction]] = np.arange(total)
    vertices = vertices.reshape(d + 1, count).T
    moves = [rank_in[i - 1][in_order[i]] for i in range(1, d + 1)]
    arrays = (shares.T.astype(dtype), rank_in[0][vertices], rank_in[-1][vertices], np.stack(moves), linked)
    return Lattice(*map(jnp.asarray, arrays))


def _simplices(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where points (d, N) are: for each the nearest vertex whose coordinates are multiples of d + 1, the rank of each
    coordinate of the way from there (0 is the largest), and the shares of the d + 1 corners around it.
    """
    d, count = features.shape
    # Onto the plane of d + 1 coordinates whose sum is 0 (§3.1); blurring once in each direction then has variance 1.
    scaled = features * ((d + 1) * np.sqrt(2 / 3 / (np.arange(1, d + 1) * np.arange(2, d + 2)))[:, None])
    raised = np.zeros((d + 1, count))
    raised[:d] = np.cumsum(scaled[::-1], 0)[::-1]
    raised[1:] -= np.arange(1, d + 1)[:, None] * scaled

    nearest = np.rint(raised / (d + 1)).astype(np.int64)
    way = raised - (d + 1) * nearest
    ranks = np.empty((d + 1, count), np.int64)
    np.put_along_axis(ranks, np.argsort(-way, axis=0, kind="stable"), np.arange(d + 1)[:, None], 0)
    ranks += nearest.sum(0)  # rounded coordinates need not sum to 0: those that moved furthest move back
    back = (ranks < 0).astype(np.int64) - (ranks > d)
    ranks += (d + 1) * back
    places = (d + 1) * (nearest + back)

    falling = np.empty_like(raised)
    np.put_along_axis(falling, ranks, (raised - places) / (d + 1), 0)
    shares = np.empty_like(raised)
    shares[0] = 1 + falling[d] - falling[0]
    shares[1:] = (falling[:-1] - falling[1:])[::-1]
    return places, ranks, shares


def blurred(lattice: Lattice, values: jax.Array) -> jax.Array:
    """Sums of all values (N, C), each times about exp(-|distance|² / 2), up to a factor that is the same everywhere."""
    corners = lattice.shares.shape[1]
    x = jnp.zeros((lattice.orders.shape[1], values.shape[1]), values.dtype)
    for corner in range(corners):
        x = x.at[lattice.first[:, corner]].add(lattice.shares[:, corner, None] * values)
    for direction, linked in enumerate(lattice.linked):
        if direction:
            x = x[lattice.orders[direction - 1]]
        link = linked[:, None].astype(x.dtype) / 2
        x = x + jnp.pad(x[1:] * link, ((0, 1), (0, 0))) + jnp.pad(x[:-1] * link, ((1, 0), (0, 0)))
    return sum(lattice.shares[:, corner, None] * x[lattice.last[:, corner]] for corner in range(corners))
