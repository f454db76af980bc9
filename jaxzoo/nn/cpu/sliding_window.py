"""Windows that slide over an image: the pixels that each of their taps sees, and the sum back into an image.

A window's tap is its place inside the kernel, a tuple with one index per spatial axis. With strides, the image is split
into phases first, of which one holds every s-th element, so that every tap sees a contiguous part of one of them.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
from jax import lax

Pads = Sequence[tuple[int, int]]


def taps_of(kernel_size: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """All places of a kernel, in reading order."""
    return itertools.product(*map(range, kernel_size))


def output_size(length: Sequence[int], kernel_size, strides, dilation) -> list[int]:
    """The number of windows along each axis of a padded image."""
    return [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(length, kernel_size, strides, dilation, strict=True)]


def pad(x: jax.Array, pads: Pads, value: float = 0) -> jax.Array:
    """(N, *space, C) with `value` on both sides of every spatial axis, or cropped where that is negative."""
    return lax.pad(x, jnp.array(value, x.dtype), [(0, 0, 0), *((*ends, 0) for ends in pads), (0, 0, 0)])


def phases(x: jax.Array, strides: Sequence[int]) -> jax.Array:
    """(N, *space, C) to (*strides, N, *phase, C); the ends are filled with zeros where a stride does not divide."""
    n, length = len(strides), x.shape[1:-1]
    counts = [-(-size // s) for size, s in zip(length, strides, strict=True)]
    x = pad(x, [(0, c * s - size) for c, s, size in zip(counts, strides, length, strict=True)])
    x = x.reshape(x.shape[0], *(v for pair in zip(counts, strides, strict=True) for v in pair), x.shape[-1])
    return x.transpose(*range(2, 2 * n + 1, 2), 0, *range(1, 2 * n, 2), 2 * n + 1)


def from_phases(parts: jax.Array, length: Sequence[int]) -> jax.Array:
    """The inverse of `phases`, for an image of this length along each spatial axis."""
    n = len(length)
    x = parts.transpose(n, *(axis for i in range(n) for axis in (n + 1 + i, i)), 2 * n + 1)
    x = x.reshape(x.shape[0], *(x.shape[i] * x.shape[i + 1] for i in range(1, 2 * n, 2)), x.shape[-1])
    return pad(x, [(0, size - full) for size, full in zip(length, x.shape[1:-1], strict=True)])


def locate(tap: Sequence[int], strides, dilation) -> tuple[tuple[int, ...], list[int]]:
    """The phase that a tap sees, and where in it its first window is."""
    at = [t * d for t, d in zip(tap, dilation, strict=True)]
    return tuple(a % s for a, s in zip(at, strides, strict=True)), [a // s for a, s in zip(at, strides, strict=True)]


def windows(x: jax.Array, kernel_size, strides, dilation) -> Iterator[jax.Array]:
    """For each tap, the pixels of a padded image that it sees: (N, *output size, C)."""
    size = output_size(x.shape[1:-1], kernel_size, strides, dilation)
    parts = phases(x, strides)
    for tap in taps_of(kernel_size):
        phase, start = locate(tap, strides, dilation)
        yield _window(parts[phase], start, size)


def scatter_windows(
    term: Callable[..., jax.Array], arrays: Sequence[jax.Array], length, kernel_size, strides, dilation
) -> jax.Array:
    """The transposed of `windows`: sums `term(tap, *arrays)` at the places that each tap saw.

    Args:
      term: elementwise, and zero where the arrays are.
      arrays: each (N, *output size, C).
      length: of the padded image, along each spatial axis.

    Returns:
      (N, *length, C).
    """
    counts = [-(-n // s) for n, s in zip(length, strides, strict=True)]
    far = [d * (k - 1) // s for d, k, s in zip(dilation, kernel_size, strides, strict=True)]
    size = arrays[0].shape[1:-1]
    padded = [pad(a, [(f, c - n) for f, c, n in zip(far, counts, size, strict=True)]) for a in arrays]
    sums: dict[tuple[int, ...], jax.Array] = {}
    for tap in taps_of(kernel_size):
        phase, start = locate(tap, strides, dilation)
        back = [f - s for f, s in zip(far, start, strict=True)]
        value = term(tap, *(_window(a, back, counts) for a in padded))
        sums[phase] = sums[phase] + value if phase in sums else value
    nothing = jnp.zeros_like(value)
    parts = jnp.stack([sums.get(phase, nothing) for phase in taps_of(strides)])
    return from_phases(parts.reshape(*strides, *value.shape), length)


def _window(x: jax.Array, start: Sequence[int], size: Sequence[int]) -> jax.Array:
    stop = [a + n for a, n in zip(start, size, strict=True)]
    return lax.slice(x, (0, *start, 0), (x.shape[0], *stop, x.shape[-1]))
