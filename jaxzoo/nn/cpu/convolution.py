"""Convolutions: XLA's own, and the CPU's fast ones.

XLA's CPU compiler turns the gradients of a grouped convolution into dense ones, which cost up to a thousand times the
work and the memory; it runs depthwise ones a hundred times slower than torch, and those with an output of a few
pixels up to fifty times slower than a product of matrices. So here
- a 1×1 convolution is a product of matrices,
- so is one with a small output, of the patches that each position sees,
- a dilated one is a sum of such products, one per tap, of the pixels that it sees, without the padding,
- the gradient of a kernel on large maps is one such product per tap,
- a depthwise one is a sum of shifted products, and so are its gradients,
- and one in groups a few dense ones; the gradient of a kernel with many groups is one product of matrices per group.
"""

import contextlib
import contextvars
import functools
import math
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import export, lax

from jaxzoo.nn.cpu.multilinear import bilinear
from jaxzoo.nn.cpu.sliding_window import output_size, pad, phases, scatter_windows, taps_of, windows
from jaxzoo.nn.linear import affine
from jaxzoo.nn.precision import wide

# Sizes at which another formulation becomes the faster one, measured in milliseconds of the result and both gradients
# together: float32, batch 8, 3×3, on two cores with AVX-512 under jax 0.10.1.
SMALL_OUTPUT = 8  # 256 channels: patches 2.9 at 4×4 and 11.4 at 7×7, XLA 5.6 and 15.1; from 8×8 on about equal
SMALL_GROUPED_OUTPUT = 2  # 1,024 channels in 32 groups at 2×2: 2.7, as dense blocks 3.4; 384 depthwise at 7×7: 4.8, 1.0
TAP_CHANNELS = 32  # dilation 12 at 28×28: by taps 7.0 with 32 channels and 23.3 with 128, XLA 8.0 and 26.9; below equal
DENSE_CHANNELS = 32  # at 28×28 in 32 groups: 39 with 128 channels in such blocks, XLA 2,490 with 256 channels
FEW_BLOCKS = 8  # 256 channels in 32 groups at 14×14: 10.0 in 8 blocks, 15.0 in groups; a block compiles for 0.16 s
# And for the gradient of a kernel alone, batch 2 unless said, processor time by taps and XLA's. XLA's is slow where the
# output's gradient, over which it goes nine times, outgrows the cache.
LARGE_GRADIENT = 2**21  # numbers: 256 channels at 75×75 221 and 391, batch 1 100 and 86; 128 there 67 and 48
LARGE_MAP = 38**2  # positions: 512 channels, batch 8, 697 and 905; smaller ones in larger batches were not measured
LARGE_INPUTS, LARGE_OUTPUTS = 64, 128  # channels: 64 to 128 at 150×150 200 and 782, 128 to 64 211 and 89

Pads = tuple[tuple[int, int], ...]
Plan = tuple[tuple[int, ...], Pads, tuple[int, ...], int]  # strides, pads, dilation, groups


def dimensions(n: int) -> tuple[str, str, str]:
    """XLA's names for the axes of input, kernel and output with `n` spatial axes."""
    space = "DHW"[-n:]
    return f"N{space}C", f"{space}IO", f"N{space}C"


def conv(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Sequence, dilation: Sequence[int], groups: int
) -> jax.Array:
    """`lax.conv_general_dilated` of (N, *space, C) and (*space, C / groups, out), which have one dtype."""
    plan = tuple(strides), tuple(tuple(pads) for pads in padding), tuple(dilation), groups
    return _compiled(x, kernel, plan=plan, branch=_branch.get())


# One program, and one for both gradients, outside of `jax.jit`; inside, the same as without.
@functools.partial(jax.jit, static_argnames=("plan", "branch"))
def _compiled(x: jax.Array, kernel: jax.Array, *, plan: Plan, branch: bool) -> jax.Array:
    if _choose(x, kernel, *plan) is not _xla:
        return _conv(x, kernel, plan=plan)
    if branch and plan[-1] == 1:
        return _ordered(x, kernel, *plan)
    return _conv(x, kernel, plan=plan) if _is_large(x.shape, kernel.shape, *plan) else _xla(x, kernel, *plan)


_branch = contextvars.ContextVar("_branch", default=False)


@contextlib.contextmanager
def in_branch() -> Iterator[None]:
    """For convolutions that `lax.cond` or a loop contains: XLA's CPU compiler brings the gradients of those outside
    into the order of axes that it has fast code for, and takes 60 times as long for the others."""
    token = _branch.set(True)
    try:
        yield
    finally:
        _branch.reset(token)


def _xla(x: jax.Array, kernel: jax.Array, strides, padding: Pads, dilation, groups: int) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, strides, padding, None, dilation, dimensions(x.ndim - 2), feature_group_count=groups
    )


def _ordered_input_gradient(gradient: jax.Array, kernel: jax.Array, *, shape, plan: Plan) -> jax.Array:
    strides, padding, dilation, _ = plan
    space = range(kernel.ndim - 2)
    reach = [d * (k - 1) for d, k in zip(dilation, kernel.shape, strict=False)]
    spread = [(n - 1) * s + 1 for n, s in zip(gradient.shape[1:], strides, strict=False)]
    before = [r - low for r, (low, _) in zip(reach, padding, strict=True)]
    after = [n - m - b + r for n, m, b, r in zip(shape[1:], spread, before, reach, strict=False)]
    return lax.conv_general_dilated(
        gradient,
        jnp.flip(kernel, space).swapaxes(-1, -2),
        (1,) * len(reach),
        list(zip(before, after, strict=True)),
        strides,
        dilation,
        dimensions(len(reach)),
    )


def _ordered_kernel_gradient(x: jax.Array, gradient: jax.Array, *, shape, plan: Plan) -> jax.Array:
    strides, padding, dilation, _ = plan
    n = len(strides)
    spread = [(m - 1) * s + 1 for m, s in zip(gradient.shape[1:], strides, strict=False)]
    after = [
        d * (k - 1) + m - length - low
        for d, k, m, length, (low, _) in zip(dilation, shape, spread, x.shape[1:], padding, strict=False)
    ]
    y = lax.conv_general_dilated(
        x.swapaxes(0, -1),  # the channels as a batch, the batch as channels
        jnp.moveaxis(gradient, 0, -2),
        dilation,
        [(low, high) for (low, _), high in zip(padding, after, strict=True)],
        None,
        strides,
        dimensions(n),
    )
    return jnp.moveaxis(y, 0, -2)


def _fast_input_gradient(gradient: jax.Array, kernel: jax.Array, *, shape, plan: Plan) -> jax.Array:
    x = jax.ShapeDtypeStruct(shape, gradient.dtype)
    function = _choose(x, kernel, *plan)
    if function is _depthwise:
        return _depthwise_input_gradient(gradient, kernel, shape, *plan)
    return jax.linear_transpose(lambda x: function(x, kernel, *plan), x)(gradient)[0]


def _fast_kernel_gradient(x: jax.Array, gradient: jax.Array, *, shape, plan: Plan) -> jax.Array:
    kernel = jax.ShapeDtypeStruct(shape, x.dtype)
    function = _choose(x, kernel, *plan)
    if function is _depthwise:
        return _depthwise_kernel_gradient(x, gradient, shape, *plan)
    if function is _in_groups:
        return _grouped_kernel_gradient(x, gradient, shape, *plan)
    if function is _xla and _is_large(x.shape, shape, *plan):
        return _kernel_gradient_by_taps(x, gradient, shape, *plan)
    if function is _by_patches:
        x = lax.optimization_barrier(x)  # to make the patches anew, which are many times as large as x
    return jax.linear_transpose(lambda kernel: function(x, kernel, *plan), kernel)(gradient)[0]


_conv = bilinear(
    "conv",
    lambda x, kernel, *, plan: _xla(x, kernel, *plan),
    lambda x, kernel, *, plan: _choose(x, kernel, *plan)(x, kernel, *plan),
    _fast_input_gradient,
    _fast_kernel_gradient,
)


_ordered_conv = bilinear(
    "ordered_conv",
    lambda x, kernel, *, plan: _xla(x, kernel, *plan),
    lambda x, kernel, *, plan: _xla(x, kernel, *plan),
    _ordered_input_gradient,
    _ordered_kernel_gradient,
)


def _ordered(x: jax.Array, kernel: jax.Array, *plan) -> jax.Array:
    return _ordered_conv(x, kernel, plan=plan)


def _choose(x: jax.Array, kernel: jax.Array, strides, padding: Pads, dilation, groups: int) -> Callable[..., jax.Array]:
    """The formulation that is fastest on a CPU."""
    if groups == 1 and kernel.shape[:-2] == (1,) * (kernel.ndim - 2) and not any(map(any, padding)):
        return _one_by_one
    if groups == 1 and max(dilation) > 1 and max(strides) == 1 and kernel.shape[-2] >= TAP_CHANNELS:
        return _by_taps
    padded = [length + sum(pads) for length, pads in zip(x.shape[1:-1], padding, strict=True)]
    if max(output_size(padded, kernel.shape[:-2], strides, dilation)) <= (
        SMALL_OUTPUT if groups == 1 else SMALL_GROUPED_OUTPUT
    ):
        return _by_patches
    if groups == 1:
        return _xla
    if kernel.shape[-2] == 1 and kernel.shape[-1] == groups:
        return _depthwise
    few = -(-groups // _groups_per_block(kernel, groups)) <= FEW_BLOCKS
    return _by_blocks if few else _in_groups


def _is_large(x: Sequence[int], kernel: Sequence[int], strides, padding: Pads, dilation, groups: int) -> bool:
    """Whether the gradient of the kernel is faster by taps than XLA's, given the shapes."""
    if groups > 1 or max(strides) > 1 or max(dilation) > 1 or any(map(export.is_symbolic_dim, x)):
        return False
    batch, positions, inputs, outputs = x[0], math.prod(x[1:-1]), x[-1], kernel[-1]
    enough = inputs >= LARGE_INPUTS and outputs >= LARGE_OUTPUTS and positions >= LARGE_MAP
    return enough and batch * positions * outputs >= LARGE_GRADIENT


def _one_by_one(x: jax.Array, kernel: jax.Array, strides, padding: Pads, dilation, groups: int) -> jax.Array:
    return affine(x[:, *(slice(None, None, s) for s in strides)], kernel.reshape(kernel.shape[-2:]))


def _by_taps(x: jax.Array, kernel: jax.Array, strides, padding: Pads, dilation, groups: int) -> jax.Array:
    """Where the dilation is as large as the image, as in DeepLab's pyramids, most taps see little but padding."""
    length = x.shape[1:-1]
    padded = [n + sum(pads) for n, pads in zip(length, padding, strict=True)]
    size = output_size(padded, kernel.shape[:-2], strides, dilation)
    y = jnp.zeros((x.shape[0], *size, kernel.shape[-1]), wide(x).dtype)
    for tap in taps_of(kernel.shape[:-2]):
        ahead = [t * d - low for t, d, (low, _) in zip(tap, dilation, padding, strict=True)]  # of the output's place
        first = [max(0, -a) for a in ahead]
        stop = [min(n, m - a) for n, m, a in zip(size, length, ahead, strict=True)]
        if any(f >= s for f, s in zip(first, stop, strict=True)):
            continue
        starts, stops = ([p + a for p, a in zip(ends, ahead, strict=True)] for ends in (first, stop))
        window = lax.slice(x, (0, *starts, 0), (x.shape[0], *stops, x.shape[-1]))
        after = [n - s for n, s in zip(size, stop, strict=True)]
        y += pad(affine(wide(window), wide(kernel[tap])), list(zip(first, after, strict=True)))
    return y.astype(x.dtype)


def _by_patches(x: jax.Array, kernel: jax.Array, strides, padding: Pads, dilation, groups: int) -> jax.Array:
    patches = _patches(pad(x, padding), kernel.shape[:-2], strides, dilation)
    size = patches.shape[1:-2]
    positions = math.prod(patches.shape[:-2])
    if groups == 1:
        y = affine(patches.reshape(positions, math.prod(kernel.shape[:-1])), kernel.reshape(-1, kernel.shape[-1]))
    else:
        patches = patches.reshape(
            positions, patches.shape[-2], groups, kernel.shape[-2]
        )  # (positions, taps, groups, in)
        weights = kernel.reshape(patches.shape[1], kernel.shape[-2], groups, -1)  # (taps, in, groups, out)
        y = jnp.einsum("ptgi,tigo->pgo", patches, weights)  # positions, taps, groups, inputs, outputs
    return y.reshape(x.shape[0], *size, kernel.shape[-1])


def _patches(x: jax.Array, kernel_size, strides, dilation) -> jax.Array:
    """The pixels of each window: (N, *output size, taps, C)."""
    if kernel_size != strides or max(dilation) > 1:
        return jnp.stack([*windows(x, kernel_size, strides, dilation)], -2)
    # Windows side by side are the image cut up: slices for the 1,024 taps of ViT-B/32 would take minutes to compile.
    length, n = x.shape[1:-1], len(strides)
    size = output_size(length, kernel_size, strides, dilation)
    x = pad(x, [(0, count * s - full) for count, s, full in zip(size, strides, length, strict=True)])
    tiles = phases(x, strides).transpose(*range(n, 2 * n + 1), *range(n), 2 * n + 1)
    return tiles.reshape(*tiles.shape[: n + 1], math.prod(strides), x.shape[-1])


def _by_blocks(x: jax.Array, kernel: jax.Array, strides, padding: Pads, dilation, groups: int) -> jax.Array:
    *taps, ins, outs = kernel.shape
    outs, together = outs // groups, _groups_per_block(kernel, groups)
    blocks = []
    for first in range(0, groups, together):
        count = min(together, groups - first)
        part = kernel[..., first * outs : (first + count) * outs].reshape(*taps, 1, ins, count, outs)
        dense = jnp.where(jnp.eye(count, dtype=bool)[:, None, :, None], part, 0)  # zero from one group to another
        dense = dense.reshape(*taps, count * ins, count * outs)
        part_of_x = x[..., first * ins : (first + count) * ins]
        plan = strides, padding, dilation, 1
        blocks.append(_choose(part_of_x, dense, *plan)(part_of_x, dense, *plan))
    return jnp.concatenate(blocks, -1)


def _groups_per_block(kernel: jax.Array, groups: int) -> int:
    """As many as make up the channels from which on XLA's dense convolutions are efficient."""
    return max(1, DENSE_CHANNELS // max(kernel.shape[-2], kernel.shape[-1] // groups))


def _in_groups(x: jax.Array, kernel: jax.Array, strides, padding: Pads, dilation, groups: int) -> jax.Array:
    return _xla(x, kernel, strides, padding, dilation, groups)


def _depthwise(x: jax.Array, kernel: jax.Array, strides, padding: Pads, dilation, groups: int) -> jax.Array:
    patches = windows(pad(x, padding), kernel.shape[:-2], strides, dilation)
    weights = (kernel[tap][0] for tap in taps_of(kernel.shape[:-2]))
    products = (wide(window) * wide(weight) for window, weight in zip(patches, weights, strict=True))
    return functools.reduce(jnp.add, products).astype(x.dtype)


def _depthwise_input_gradient(gradient, kernel, shape, strides, padding: Pads, dilation, groups: int) -> jax.Array:
    def term(tap: tuple[int, ...], gradient: jax.Array) -> jax.Array:
        return wide(gradient) * wide(kernel[tap][0])

    length = [n + sum(pads) for n, pads in zip(shape[1:-1], padding, strict=True)]
    padded = scatter_windows(term, [gradient], length, kernel.shape[:-2], strides, dilation)
    return pad(padded.astype(gradient.dtype), [(-low, -high) for low, high in padding])


def _depthwise_kernel_gradient(x, gradient, shape, strides, padding: Pads, dilation, groups: int) -> jax.Array:
    """Row by row of the images, which stay in the cache: each tap sums up its products with the gradient's rows."""
    *outer_taps, taps = shape[:-2]
    batch, *outer, width, channels = gradient.shape
    if batch == 0:
        return jnp.zeros(shape, x.dtype)
    x = pad(x, padding)
    starts = [tap * dilation[-1] for tap in range(taps)]
    stops = [start + (width - 1) * strides[-1] + 1 for start in starts]

    def row(x: jax.Array, place: Sequence[jax.Array]) -> jax.Array:
        sizes = (*[1] * len(place), *x.shape[-2:])
        start = [*place, *np.zeros(2, np.int32)]
        return wide(lax.dynamic_slice(x, start, sizes).reshape(x.shape[-2:]))

    def of_outer_tap(tap: jax.Array) -> jax.Array:
        def add_row(i: jax.Array, sums: list[jax.Array]) -> list[jax.Array]:
            place, i = [], lax.convert_element_type(i, jnp.int32)
            for length in reversed(outer):
                place, i = [i % length, *place], i // length
            seen = [p * s + t * d for p, s, t, d in zip(place, strides[:-1], tap, dilation[:-1], strict=True)]
            pixels, factor = row(x, (i, *seen)), row(gradient, (i, *place))
            windows = [pixels[start : stop : strides[-1]] for start, stop in zip(starts, stops, strict=True)]
            return [total + window * factor for total, window in zip(sums, windows, strict=True)]

        zeros = jnp.zeros((width, channels), wide(gradient).dtype)
        sums = lax.fori_loop(0, batch * math.prod(outer), add_row, [zeros] * taps)
        return jnp.stack([total.sum(0) for total in sums])

    places = jnp.asarray(np.array([*taps_of(outer_taps)], np.int32))  # (outer taps, axes but the last)
    return lax.map(of_outer_tap, places).reshape(shape).astype(x.dtype)


def _kernel_gradient_by_taps(x, gradient, shape, strides, padding: Pads, dilation, groups: int) -> jax.Array:
    """One product of matrices per tap, one after another: together, the shifted copies of x would be many times it."""
    x, size = pad(x, padding), gradient.shape[:-1]
    gradient = gradient.reshape(-1, shape[-1])

    def of_tap(tap: jax.Array) -> jax.Array:
        window = lax.dynamic_slice(x, tap, (*size, shape[-2])).reshape(-1, shape[-2])
        contracted = (((0,), (0,)), ((), ()))  # the positions
        return lax.dot_general(
            window, gradient, contracted, lax.Precision.HIGHEST, preferred_element_type=wide(x).dtype
        )

    places = np.array([(0, *tap, 0) for tap in taps_of(shape[:-2])], np.int32)
    return lax.map(of_tap, jnp.asarray(places)).reshape(shape).astype(x.dtype)


def _grouped_kernel_gradient(x, gradient, shape, strides, padding: Pads, dilation, groups: int) -> jax.Array:
    patches = jnp.stack([*windows(pad(x, padding), shape[:-2], strides, dilation)])
    positions = math.prod(gradient.shape[:-1])
    patches = patches.reshape(patches.shape[0], positions, groups, shape[-2])
    gradient = gradient.reshape(positions, groups, shape[-1] // groups)
    result = jnp.einsum("tpgi,pgo->tigo", patches, gradient, precision=lax.Precision.HIGHEST)
    return result.reshape(shape)
