"""Pooling on (N, H, W, C) with torch's arithmetic for partial windows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from jaxzoo.errors import UsageError
from jaxzoo.nn.conv import Size, spread
from jaxzoo.nn.precision import narrow, wide
from jaxzoo.nn.taps import pad, put_back, seen


def _window_ends(length: int, kernel: int, stride: int, padding: int, ceil_mode: bool) -> tuple[int, int]:
    """Number of windows along one axis, and the padding behind the last element that they need."""
    if padding > kernel // 2:
        raise ValueError(f"padding {padding} is more than half of the window of {kernel}")
    span = length + 2 * padding - kernel
    if span < 0:
        raise UsageError(
            f"a window of {kernel} does not fit {length} elements with {padding} of padding on both sides: "
            "the image is too small for this network"
        )
    count = -(-span // stride) + 1 if ceil_mode else span // stride + 1
    if ceil_mode and (count - 1) * stride >= length + padding:  # a window must not start in the padding behind
        count -= 1
    return count, max((count - 1) * stride + kernel - length - padding, 0)


def _plan(x: jax.Array, kernel_size: Size, stride: Size | None, padding: Size, ceil_mode: bool):
    """Kernel, stride, padding and numbers of windows for every spatial axis."""
    n = x.ndim - 2
    kernel = spread(kernel_size, n, "kernel_size")
    stride = kernel if stride is None else spread(stride, n, "stride")
    before = spread(padding, n, "padding", 0)
    ends = [_window_ends(*a, ceil_mode) for a in zip(x.shape[1:-1], kernel, stride, before, strict=True)]
    return kernel, stride, [(b, e) for b, (_, e) in zip(before, ends, strict=True)], [count for count, _ in ends]


def _reduce(x: jax.Array, start, operation, kernel, stride, sides) -> jax.Array:
    return lax.reduce_window(x, start, operation, (1, *kernel, 1), (1, *stride, 1), ((0, 0), *sides, (0, 0)))


def max_pool(
    x: jax.Array, kernel_size: Size, stride: Size | None = None, padding: Size = 0, ceil_mode: bool = False
) -> jax.Array:
    """`torch.nn.functional.max_pool2d` on (N, H, W, C). The stride is the kernel size unless given."""
    kernel, stride, sides, _ = _plan(x, kernel_size, stride, padding, ceil_mode)
    return lax.platform_dependent(
        x,
        cpu=lambda x: _max_pool(x, kernel, stride, tuple(sides)),
        default=lambda x: _reduce(x, -jnp.inf, lax.max, kernel, stride, sides),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_pool(x: jax.Array, kernel, stride, sides) -> jax.Array:
    """XLA's own gradient takes fifty times as long on a CPU."""
    return _max_pool_forward(x, kernel, stride, sides)[0]


def _max_pool_forward(x, kernel, stride, sides):
    """Keeps which tap of the window held the maximum: the first of equal ones, and NaN before any number."""
    lowest = -np.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min
    best, *others = seen(pad(x, sides, lowest), kernel, stride, (1,) * len(kernel))
    winner = jnp.zeros(best.shape, jnp.int16)
    for i, value in enumerate(others, start=1):
        higher = (value > best) | (value != value)
        best, winner = jnp.where(higher, value, best), jnp.where(higher, jnp.int16(i), winner)
    # XLA would compute the winner anew for every tap that asks for it.
    return best, (lax.optimization_barrier(winner), x.shape[1:-1])


def _max_pool_backward(kernel, stride, sides, kept, gradient):
    winner, length = kept
    padded = [n + sum(ends) for n, ends in zip(length, sides, strict=True)]

    def won(tap: tuple[int, ...], winner: jax.Array, gradient: jax.Array) -> jax.Array:
        return jnp.where(winner == np.ravel_multi_index(tap, kernel), gradient, 0)

    x_gradient = put_back(won, [winner, gradient], padded, kernel, stride, (1,) * len(kernel))
    return (pad(x_gradient, [(-low, -high) for low, high in sides]),)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def avg_pool(
    x: jax.Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> jax.Array:
    """`torch.nn.functional.avg_pool2d` on (N, H, W, C).

    Cells that `ceil_mode` adds never count in the divisor; padding does unless `count_include_pad=False`.
    """
    kernel, stride, sides, counts = _plan(x, kernel_size, stride, padding, ceil_mode)
    divisor = np.ones((1,) * x.ndim)
    for axis, (k, s, (p, _), count) in enumerate(zip(kernel, stride, sides, counts, strict=True), start=1):
        length = x.shape[axis]
        start = np.arange(count) * s - p
        end = np.minimum(start + k, length + p)
        cells = end - start if count_include_pad else np.minimum(end, length) - np.maximum(start, 0)
        divisor = divisor * np.expand_dims(cells, [a for a in range(x.ndim) if a != axis])
    total = _reduce(wide(x), 0.0, lax.add, kernel, stride, sides)
    return narrow(total / jnp.asarray(divisor, total.dtype), x)


def _adaptive_windows(length: int, count: int) -> list[tuple[int, int]]:
    """`count` windows that cover `length` elements; uneven and overlapping where it does not divide."""
    return [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]


def adaptive_avg_pool(x: jax.Array, output_size: Size) -> jax.Array:
    """`torch.nn.functional.adaptive_avg_pool2d` on (N, H, W, C)."""
    given, x = x, wide(x)
    for axis, count in enumerate(spread(output_size, x.ndim - 2, "output_size"), start=1):
        length = x.shape[axis]
        if length % count == 0:
            x = x.reshape(*x.shape[:axis], count, length // count, *x.shape[axis + 1 :]).mean(axis + 1)
        else:
            share = np.zeros((count, length))
            for row, (start, end) in zip(share, _adaptive_windows(length, count), strict=True):
                row[start:end] = 1 / (end - start)
            y = jnp.tensordot(x, jnp.asarray(share, x.dtype), (axis, 1), precision=lax.Precision.HIGHEST)
            x = jnp.moveaxis(y, -1, axis)
    return narrow(x, given)


def adaptive_max_pool(x: jax.Array, output_size: Size) -> jax.Array:
    """`torch.nn.functional.adaptive_max_pool2d` on (N, H, W, C)."""
    counts = spread(output_size, x.ndim - 2, "output_size")
    for axis in range(x.ndim - 2, 0, -1):  # the last axis first: of equal values the first in reading order counts
        windows = []
        for start, end in _adaptive_windows(x.shape[axis], counts[axis - 1]):
            window = lax.slice_in_dim(x, start, end, axis=axis)
            windows.append(jnp.take_along_axis(window, window.argmax(axis, keepdims=True), axis))
        x = jnp.concatenate(windows, axis)
    return x


class MaxPool(nnx.Module):
    """`torch.nn.MaxPool2d`; see `max_pool`."""

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0, ceil_mode: bool = False):
        self.pool = functools.partial(
            max_pool, kernel_size=kernel_size, stride=stride, padding=padding, ceil_mode=ceil_mode
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.pool(x)


class AvgPool(nnx.Module):
    """`torch.nn.AvgPool2d`; see `avg_pool`."""

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ):
        self.pool = functools.partial(
            avg_pool,
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            ceil_mode=ceil_mode,
            count_include_pad=count_include_pad,
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.pool(x)


class AdaptiveAvgPool(nnx.Module):
    """`torch.nn.AdaptiveAvgPool2d`."""

    def __init__(self, output_size: Size):
        self.output_size = output_size

    def __call__(self, x: jax.Array) -> jax.Array:
        return adaptive_avg_pool(x, self.output_size)


class AdaptiveMaxPool(nnx.Module):
    """`torch.nn.AdaptiveMaxPool2d`."""

    def __init__(self, output_size: Size):
        self.output_size = output_size

    def __call__(self, x: jax.Array) -> jax.Array:
        return adaptive_max_pool(x, self.output_size)
