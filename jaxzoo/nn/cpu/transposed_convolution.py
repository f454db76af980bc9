"""Transposed convolutions: XLA's own, and the CPU's fast ones.

XLA dilates the input with zeros and multiplies by them: at a stride of 32 all but one in 1024 of its products are zero.
Outputs at the same place between two inputs see the same taps of the kernel, so all places together are one dense
convolution with `stride²` times as many channels: a product of matrices, and so are its gradients.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jaxzoo.nn.cpu.convolution import dimensions
from jaxzoo.nn.cpu.multilinear import bilinear
from jaxzoo.nn.cpu.sliding_window import from_phases, pad, windows
from jaxzoo.nn.linear import affine


def conv_transpose(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> jax.Array:
    """The gradient of a convolution with respect to its input, (N, *space, C) and (*space, out / groups, C), one dtype.

    The result has (length - 1) · stride - 2 · padding + dilation · (kernel - 1) + output_padding + 1 elements per axis.
    """
    plan = tuple(strides), tuple(padding), tuple(output_padding), tuple(dilation), groups
    if groups > 1 or set(dilation) != {1} or set(strides) == {1}:
        return _xla(x, kernel, *plan)
    return _conv_transpose(x, kernel, plan=plan)


def _xla(x: jax.Array, kernel: jax.Array, strides, padding, output_padding, dilation, groups: int) -> jax.Array:
    *space, outs, _ = kernel.shape
    n = len(space)
    kernel = jnp.flip(kernel, range(n)).reshape(*space, outs, groups, -1)
    kernel = jnp.moveaxis(kernel, -1, -3).swapaxes(-1, -2)  # (*space, in / groups, groups, out / groups)
    kernel = kernel.reshape(*space, kernel.shape[-3], groups * outs)
    reach = [d * (k - 1) for k, d in zip(space, dilation, strict=True)]
    return lax.conv_general_dilated(
        x,
        kernel,
        (1,) * n,
        [(r - p, r - p + o) for r, p, o in zip(reach, padding, output_padding, strict=True)],
        lhs_dilation=strides,
        rhs_dilation=dilation,
        dimension_numbers=dimensions(n),
        feature_group_count=groups,
    )


def _by_phases(x: jax.Array, kernel: jax.Array, strides, padding, output_padding, dilation, groups: int) -> jax.Array:
    *space, outs, ins = kernel.shape
    n = len(space)
    taps = [-(-k // s) for k, s in zip(space, strides, strict=True)]  # that one output sees
    kernel = jnp.pad(kernel, [*((0, t * s - k) for t, s, k in zip(taps, strides, space, strict=True)), (0, 0), (0, 0)])
    kernel = kernel.reshape(*(v for pair in zip(taps, strides, strict=True) for v in pair), outs, ins)
    kernel = kernel.transpose(*range(0, 2 * n, 2), 2 * n + 1, *range(1, 2 * n, 2), 2 * n)  # (*taps, in, *strides, out)
    kernel = jnp.flip(kernel, range(n)).reshape(math.prod(taps) * ins, math.prod(strides) * outs)
    patches = windows(pad(x, [(t - 1, t - 1) for t in taps]), taps, (1,) * n, (1,) * n)
    y = affine(jnp.concatenate([*patches], -1), kernel)  # XLA's gradients of such a convolution are slow
    y = y.reshape(*y.shape[:-1], *strides, outs)  # (N, *space, *strides, out)
    y = y.transpose(*range(n + 1, 2 * n + 1), *range(n + 1), 2 * n + 1)  # (*strides, N, *space, out)
    length = [count * s for count, s in zip(y.shape[n + 1 : -1], strides, strict=True)]
    wanted = [
        (count - 1) * s - 2 * p + k + o
        for count, s, p, k, o in zip(x.shape[1:-1], strides, padding, space, output_padding, strict=True)
    ]
    ends = [(-p, p + w - full) for p, w, full in zip(padding, wanted, length, strict=True)]
    return pad(from_phases(y, length), ends)


_conv_transpose = bilinear(
    "conv_transpose",
    lambda x, kernel, *, plan: _xla(x, kernel, *plan),
    lambda x, kernel, *, plan: _by_phases(x, kernel, *plan),
)
