"""Convolutions as the CPU computes them fast; elsewhere XLA's own serve.

XLA's CPU compiler turns the gradients of a grouped convolution into dense ones, which cost up to a thousand times the
work and the memory; it runs depthwise ones a hundred times slower than torch, and those with an output of one or two
pixels fifty times slower than a product of matrices. So here
- a 1×1 convolution is a product of matrices,
- so is one with a tiny output, of the patches that each position sees,
- a depthwise one is a sum of shifted products,
- and the gradient of a grouped kernel one product of matrices per group.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jaxzoo.nn.linear import affine
from jaxzoo.nn.precision import wide

Sides = tuple[tuple[int, int], ...]


def dimensions(n: int) -> tuple[str, str, str]:
    """XLA's names for the axes of input, kernel and output with `n` spatial axes."""
    space = "DHW"[-n:]
    return f"N{space}C", f"{space}IO", f"N{space}C"


def conv(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Sequence, dilation: Sequence[int], groups: int
) -> jax.Array:
    """`lax.conv_general_dilated` of (N, *space, C) and (*space, C / groups, out), which have one dtype."""
    plan = tuple(strides), tuple(tuple(sides) for sides in padding), tuple(dilation), groups
    on_cpu = _choose(x, kernel, *plan)
    if on_cpu is _xla:
        return _xla(x, kernel, *plan)
    return lax.platform_dependent(
        x, kernel, cpu=lambda x, k: on_cpu(x, k, *plan), default=lambda x, k: _xla(x, k, *plan)
    )


def _choose(
    x: jax.Array, kernel: jax.Array, strides, padding: Sides, dilation, groups: int
) -> Callable[..., jax.Array]:
    """The formulation that is fastest on a CPU."""
    if groups == 1 and kernel.shape[:-2] == (1,) * (kernel.ndim - 2) and not any(map(any, padding)):
        return _one_by_one
    if max(_output_size(x, kernel, strides, padding, dilation)) <= 2:
        return _by_patches
    return _grouped if groups > 1 else _xla


def _one_by_one(x: jax.Array, kernel: jax.Array, strides, padding: Sides, dilation, groups: int) -> jax.Array:
    return affine(x[:, *(slice(None, None, s) for s in strides)], kernel.reshape(kernel.shape[-2:]))


def _by_patches(x: jax.Array, kernel: jax.Array, strides, padding: Sides, dilation, groups: int) -> jax.Array:
    size = _output_size(x, kernel, strides, padding, dilation)
    x = _pad(x, padding)
    seen = jnp.stack([_seen(x, tap, strides, dilation, size) for tap in _taps(kernel)], -2)
    if groups == 1:
        y = affine(seen.reshape(-1, math.prod(kernel.shape[:-1])), kernel.reshape(-1, kernel.shape[-1]))
    else:
        seen = seen.reshape(-1, seen.shape[-2], groups, kernel.shape[-2])  # (positions, taps, groups, in)
        weights = kernel.reshape(seen.shape[1], kernel.shape[-2], groups, -1)  # (taps, in, groups, out)
        y = jnp.einsum("ptgi,tigo->pgo", seen, weights)
    return y.reshape(x.shape[0], *size, kernel.shape[-1])


def _xla(x: jax.Array, kernel: jax.Array, strides, padding: Sides, dilation, groups: int) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, strides, padding, None, dilation, dimensions(x.ndim - 2), feature_group_count=groups
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def _grouped(x: jax.Array, kernel: jax.Array, strides, padding: Sides, dilation, groups: int) -> jax.Array:
    if _is_depthwise(kernel, groups):
        return _shift_and_add(_pad(x, padding), kernel, strides, dilation)
    return _xla(x, kernel, strides, padding, dilation, groups)


def _forward(x, kernel, strides, padding, dilation, groups):
    return _grouped(x, kernel, strides, padding, dilation, groups), (x, kernel)


def _backward(strides, padding, dilation, groups, inputs, gradient):
    x, kernel = inputs
    size = gradient.shape[1:-1]
    if _is_depthwise(kernel, groups):
        # Zeros between the gradient's elements undo the stride; then it is filtered with the kernel turned around.
        sides = [
            (d * (k - 1) - low, length + low - (n - 1) * s - 1, s - 1)
            for d, k, (low, _), length, n, s in zip(
                dilation, kernel.shape[:-2], padding, x.shape[1:-1], size, strides, strict=True
            )
        ]
        spaced = lax.pad(gradient, jnp.zeros((), gradient.dtype), [(0, 0, 0), *sides, (0, 0, 0)])
        turned = jnp.flip(kernel, range(kernel.ndim - 2))
        x_gradient = _shift_and_add(spaced, turned, (1,) * len(size), dilation)
        return x_gradient, _depthwise_kernel_gradient(_pad(x, padding), kernel, gradient, strides, dilation)
    (x_gradient,) = jax.vjp(lambda x: _xla(x, kernel, strides, padding, dilation, groups), x)[1](gradient)
    return x_gradient, _grouped_kernel_gradient(_pad(x, padding), kernel, gradient, strides, dilation, groups)


_grouped.defvjp(_forward, _backward)


def _is_depthwise(kernel: jax.Array, groups: int) -> bool:
    return kernel.shape[-2] == 1 and kernel.shape[-1] == groups


def _output_size(x: jax.Array, kernel: jax.Array, strides, padding: Sides, dilation) -> list[int]:
    axes = zip(x.shape[1:-1], kernel.shape[:-2], strides, padding, dilation, strict=True)
    return [(length + sum(sides) - d * (k - 1) - 1) // s + 1 for length, k, s, sides, d in axes]


def _pad(x: jax.Array, padding: Sides) -> jax.Array:
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((*sides, 0) for sides in padding), (0, 0, 0)])


def _taps(kernel: jax.Array):
    return itertools.product(*map(range, kernel.shape[:-2]))


def _seen(x: jax.Array, tap: Sequence[int], strides, dilation, size: Sequence[int]) -> jax.Array:
    """What one tap of the kernel sees of the padded input: (N, *size, C)."""
    starts = [t * d for t, d in zip(tap, dilation, strict=True)]
    stops = [start + (n - 1) * s + 1 for start, n, s in zip(starts, size, strides, strict=True)]
    return lax.slice(x, (0, *starts, 0), (x.shape[0], *stops, x.shape[-1]), (1, *strides, 1))


def _shift_and_add(x: jax.Array, kernel: jax.Array, strides, dilation) -> jax.Array:
    size = _output_size(x, kernel, strides, ((0, 0),) * len(strides), dilation)
    products = (wide(_seen(x, tap, strides, dilation, size)) * wide(kernel[tap][0]) for tap in _taps(kernel))
    return functools.reduce(jnp.add, products).astype(x.dtype)


def _depthwise_kernel_gradient(x, kernel, gradient, strides, dilation) -> jax.Array:
    size, factor = gradient.shape[1:-1], wide(gradient)
    axes = tuple(range(gradient.ndim - 1))

    def row(first: jax.Array) -> jax.Array:
        """The taps with one index along the first axis: a loop over these keeps programs with large kernels small."""
        slab = lax.dynamic_slice_in_dim(x, first * dilation[0], (size[0] - 1) * strides[0] + 1, 1)
        taps = itertools.product([0], *map(range, kernel.shape[1:-2]))
        return jnp.stack([jnp.sum(wide(_seen(slab, tap, strides, dilation, size)) * factor, axes) for tap in taps])

    return lax.map(row, jnp.arange(kernel.shape[0])).reshape(kernel.shape).astype(kernel.dtype)


def _grouped_kernel_gradient(x, kernel, gradient, strides, dilation, groups: int) -> jax.Array:
    size = gradient.shape[1:-1]
    seen = jnp.stack([_seen(x, tap, strides, dilation, size) for tap in _taps(kernel)])
    seen = seen.reshape(len(seen), -1, groups, kernel.shape[-2])  # (taps, positions, groups, in)
    gradient = gradient.reshape(-1, groups, kernel.shape[-1] // groups)  # (positions, groups, out)
    result = jnp.einsum("tpgi,pgo->tigo", seen, gradient, precision=lax.Precision.HIGHEST)
    return result.reshape(kernel.shape)
