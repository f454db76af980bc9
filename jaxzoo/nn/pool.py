"""Pooling on (N, H, W, C) with torch's arithmetic for partial windows."""

from numbers import Integral

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from jaxzoo.errors import UsageError
from jaxzoo.nn.cpu import max_pooling as cpu
from jaxzoo.nn.precision import narrow, wide
from jaxzoo.nn.size import Size, per_axis


def _hashable(size: Size | None) -> Size | None:
    """As a module keeps it: attributes decide whether two models are equal."""
    return size if size is None or isinstance(size, Integral) else tuple(size)


def _window_ends(
    length: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool
) -> tuple[int, int]:
    """Number of windows along one axis, and the padding after the last element that they need."""
    if padding > kernel // 2:
        raise ValueError(f"padding {padding} is more than half of the window of {kernel}")
    reach = dilation * (kernel - 1) + 1
    span = length + 2 * padding - reach
    if span < 0:
        raise UsageError(
            f"a window of {reach} does not fit {length} elements with {padding} of padding on both sides: "
            "the image is too small for this network"
        )
    count = -(-span // stride) + 1 if ceil_mode else span // stride + 1
    if ceil_mode and (count - 1) * stride >= length + padding:  # a window must not start in the padding at the end
        count -= 1
    return count, max((count - 1) * stride + reach - length - padding, 0)


def _plan(x: jax.Array, kernel_size: Size, stride: Size | None, padding: Size, ceil_mode: bool, dilation: Size = 1):
    """Kernel, stride, dilation, padding on both sides and numbers of windows for every spatial axis."""
    n = x.ndim - 2
    kernel = per_axis(kernel_size, n, "kernel_size")
    stride = kernel if stride is None else per_axis(stride, n, "stride")
    before = per_axis(padding, n, "padding", 0)
    dilation = per_axis(dilation, n, "dilation")
    sizes = zip(x.shape[1:-1], kernel, stride, before, dilation, strict=True)
    ends = [_window_ends(*size, ceil_mode) for size in sizes]
    return (
        kernel,
        stride,
        dilation,
        [(b, e) for b, (_, e) in zip(before, ends, strict=True)],
        [count for count, _ in ends],
    )


def max_pool(
    x: jax.Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """`torch.nn.functional.max_pool2d` on (N, H, W, C). The stride is the kernel size unless given.

    With `return_indices`, also where each maximum is in its image, y · W + x, as torch counts.
    """
    kernel, stride, dilation, pads, _ = _plan(x, kernel_size, stride, padding, ceil_mode, dilation)
    plan = kernel, stride, dilation
    if not return_indices:
        return cpu.max_pool(x, plan, tuple(pads))
    best, winner = cpu.winners(x, plan, pads)
    return best, cpu.winner_positions(winner, plan, pads, x.shape[1:-1])


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
    kernel, stride, _, pads, counts = _plan(x, kernel_size, stride, padding, ceil_mode)
    divisor = np.ones((1,) * x.ndim)
    for axis, (k, s, (p, _), count) in enumerate(zip(kernel, stride, pads, counts, strict=True), start=1):
        length = x.shape[axis]
        start = np.arange(count) * s - p
        end = np.minimum(start + k, length + p)
        cells = end - start if count_include_pad else np.minimum(end, length) - np.maximum(start, 0)
        divisor = divisor * np.expand_dims(cells, [a for a in range(x.ndim) if a != axis])
    windows = (1, *kernel, 1), (1, *stride, 1), ((0, 0), *pads, (0, 0))
    total = lax.reduce_window(wide(x), 0.0, lax.add, *windows)
    return narrow(total / jnp.asarray(divisor, total.dtype), x)


def _adaptive_windows(length: int, count: int) -> list[tuple[int, int]]:
    """`count` windows that cover `length` elements; uneven and overlapping where it does not divide."""
    return [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]


def adaptive_avg_pool(x: jax.Array, output_size: Size) -> jax.Array:
    """`torch.nn.functional.adaptive_avg_pool2d` on (N, H, W, C)."""
    given, x = x, wide(x)
    for axis, count in enumerate(per_axis(output_size, x.ndim - 2, "output_size"), start=1):
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
    counts = per_axis(output_size, x.ndim - 2, "output_size")
    for axis in range(x.ndim - 2, 0, -1):  # the last axis first: of equal values the first in reading order counts
        windows = []
        for start, end in _adaptive_windows(x.shape[axis], counts[axis - 1]):
            window = lax.slice_in_dim(x, start, end, axis=axis)
            windows.append(jnp.take_along_axis(window, window.argmax(axis, keepdims=True), axis))
        x = jnp.concatenate(windows, axis)
    return x


class MaxPool(nnx.Module):
    """`torch.nn.MaxPool2d`; see `max_pool`."""

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ):
        self.kernel_size, self.stride, self.padding = map(_hashable, (kernel_size, stride, padding))
        self.dilation, self.return_indices, self.ceil_mode = _hashable(dilation), return_indices, ceil_mode

    def __call__(self, x: jax.Array) -> jax.Array | tuple[jax.Array, jax.Array]:
        sizes = self.kernel_size, self.stride, self.padding, self.dilation
        return max_pool(x, *sizes, self.ceil_mode, self.return_indices)


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
        self.kernel_size, self.stride, self.padding = map(_hashable, (kernel_size, stride, padding))
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def __call__(self, x: jax.Array) -> jax.Array:
        return avg_pool(x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)


class AdaptiveAvgPool(nnx.Module):
    """`torch.nn.AdaptiveAvgPool2d`."""

    def __init__(self, output_size: Size):
        self.output_size = _hashable(output_size)

    def __call__(self, x: jax.Array) -> jax.Array:
        return adaptive_avg_pool(x, self.output_size)


class AdaptiveMaxPool(nnx.Module):
    """`torch.nn.AdaptiveMaxPool2d`."""

    def __init__(self, output_size: Size):
        self.output_size = _hashable(output_size)

    def __call__(self, x: jax.Array) -> jax.Array:
        return adaptive_max_pool(x, self.output_size)
