"""Conv and ConvTranspose compute what torch's do, forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from jax import export
from timm.layers import Conv2dSame

from jaxzoo.nn import Conv, ConvTranspose
from jaxzoo.nn.cpu import convolution
from jaxzoo.nn.cpu.convolution import in_branch
from tests.compare import agree, close, normal, twins

RNGS = nnx.Rngs(0)

# channels in and out, kernel size, further arguments, input height and width
CONVOLUTIONS = {
    "plain": (3, 5, 3, {}, (7, 9)),
    "larger": (3, 5, 3, {"padding": 1}, (12, 13)),
    "larger, dilated and strided": (3, 5, 3, {"dilation": 2, "stride": 2, "padding": 2}, (21, 20)),
    "larger, even kernel": (3, 5, (2, 4), {"padding": 1}, (12, 13)),
    "larger, no padding": (3, 5, 3, {"bias": False}, (12, 13)),
    "larger, wider padding": (3, 5, (3, 2), {"padding": (4, 3)}, (12, 13)),
    "pointwise": (4, 6, 1, {}, (5, 3)),
    "pointwise strided": (4, 6, 1, {"stride": 2}, (7, 8)),
    "pointwise strided by three, padded": (4, 6, 1, {"stride": 3, "padding": 1}, (7, 8)),
    "pointwise without bias": (4, 6, 1, {"bias": False}, (5, 3)),
    "stem": (3, 8, 7, {"stride": 2, "padding": 3, "bias": False}, (15, 18)),
    "patches": (3, 8, 4, {"stride": 4}, (9, 11)),
    "strides per axis": (3, 5, 3, {"stride": (2, 3), "padding": (1, 2)}, (8, 11)),
    "dilated": (3, 5, 3, {"dilation": 2, "padding": 2}, (7, 9)),
    "dilated and strided": (3, 5, 3, {"dilation": (3, 2), "stride": 2, "padding": (3, 1)}, (11, 10)),
    "dilated, more channels": (40, 6, 3, {"dilation": (2, 3), "padding": (2, 3)}, (11, 12)),
    "dilated without padding": (40, 6, (3, 2), {"dilation": (3, 4)}, (11, 12)),
    "dilated as far as the image": (40, 6, 3, {"dilation": 6, "padding": 6}, (5, 13)),
    "dilated with wider padding": (40, 6, (3, 2), {"dilation": (3, 4), "padding": (7, 1)}, (4, 9)),
    "dilated beyond the image": (40, 6, 2, {"dilation": 20, "padding": 10}, (5, 4)),
    "asymmetric kernel": (3, 5, (1, 7), {"padding": (0, 3)}, (5, 9)),
    "even kernel": (3, 5, (2, 4), {"padding": 1, "stride": 2}, (6, 9)),
    "same": (3, 5, 3, {"padding": "same"}, (7, 6)),
    "same with an even kernel": (3, 5, (2, 4), {"padding": "same"}, (7, 6)),
    "same, dilated": (3, 5, (3, 4), {"padding": "same", "dilation": 3}, (7, 6)),
    "valid": (3, 5, 3, {"padding": "valid", "stride": 2}, (7, 6)),
    "padding wider than the kernel": (3, 5, 3, {"padding": 4}, (4, 5)),
    "input of one pixel": (3, 5, 3, {"padding": 1}, (1, 1)),
    "kernel as large as the input": (3, 5, (4, 6), {}, (4, 6)),
    "unread border": (3, 5, 2, {"stride": 3}, (7, 9)),
    "two groups": (4, 6, 3, {"groups": 2, "padding": 1}, (6, 7)),
    "groups of one output": (6, 3, 3, {"groups": 3, "padding": 1, "stride": 2}, (6, 7)),
    "groups, dilated": (8, 8, 3, {"groups": 4, "padding": 2, "dilation": 2}, (6, 7)),
    "groups, pointwise": (8, 12, 1, {"groups": 4}, (6, 7)),
    "groups, strided, no bias": (16, 16, 3, {"groups": 4, "padding": 1, "stride": 2, "bias": False}, (9, 8)),
    "groups of three blocks, the last smaller": (40, 80, 3, {"groups": 10, "padding": 1, "stride": 2}, (19, 21)),
    "many groups in blocks": (64, 64, 3, {"groups": 32, "padding": 1}, (12, 13)),
    "too many groups for blocks": (288, 288, 3, {"groups": 36, "padding": 1}, (10, 11)),
    "many groups": (64, 64, 3, {"groups": 32, "padding": 1}, (5, 6)),
    "groups of 40 channels": (80, 80, 3, {"groups": 2, "padding": 1, "stride": 2}, (5, 6)),
    "depthwise": (5, 5, 3, {"groups": 5, "padding": 1}, (6, 7)),
    "depthwise strided": (5, 5, 3, {"groups": 5, "padding": 1, "stride": 2}, (7, 8)),
    "depthwise 7×7": (5, 5, 7, {"groups": 5, "padding": 3}, (6, 9)),
    "depthwise 5×5 strided": (6, 6, 5, {"groups": 6, "padding": 2, "stride": 2, "bias": False}, (8, 7)),
    "depthwise dilated": (5, 5, 3, {"groups": 5, "padding": 2, "dilation": 2}, (6, 7)),
    "depthwise strided and dilated": (5, 5, 3, {"groups": 5, "padding": 3, "dilation": 3, "stride": 2}, (9, 8)),
    "depthwise strides per axis": (5, 5, (3, 2), {"groups": 5, "padding": (1, 0), "stride": (1, 3)}, (6, 8)),
    "depthwise with unread border": (5, 5, 2, {"groups": 5, "stride": 3}, (7, 9)),
    "depthwise 7×7 of many rows": (96, 96, 7, {"groups": 96, "padding": 3}, (20, 17)),
    "depthwise 5×5 strided of many rows": (96, 96, 5, {"groups": 96, "padding": 2, "stride": 2}, (33, 30)),
    "depthwise same": (5, 5, (4, 3), {"groups": 5, "padding": "same"}, (7, 6)),
    "depthwise on one pixel": (5, 5, 5, {"groups": 5, "padding": 2}, (1, 1)),
    "depthwise with two outputs each": (3, 6, 3, {"groups": 3, "padding": 1}, (5, 6)),
    "depthwise with four outputs each, strided": (3, 12, 3, {"groups": 3, "padding": 1, "stride": 2}, (5, 6)),
    "one channel": (1, 1, 3, {"padding": 1}, (5, 6)),
    "reflect": (3, 5, 3, {"padding": 2, "padding_mode": "reflect"}, (5, 6)),
    "replicate": (3, 5, 3, {"padding": (1, 6), "padding_mode": "replicate", "stride": 2}, (5, 6)),
    "circular": (3, 5, 3, {"padding": (5, 2), "padding_mode": "circular"}, (5, 6)),
    "circular same": (3, 5, (2, 3), {"padding": "same", "padding_mode": "circular"}, (5, 6)),
    "depthwise reflect": (5, 5, 3, {"groups": 5, "padding": 1, "padding_mode": "reflect"}, (5, 6)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_conv_equals_torch(case):
    channels, out, kernel, arguments, size = CONVOLUTIONS[case]
    theirs = torch.nn.Conv2d(channels, out, kernel, **arguments)
    agree(*twins(lambda rngs: Conv(channels, out, kernel, **arguments, rngs=rngs), theirs), normal(2, channels, *size))


@pytest.mark.parametrize("case", [case for case in CONVOLUTIONS if case.startswith("larger")])
def test_conv_in_a_branch_equals_torch(case):
    with in_branch():
        test_conv_equals_torch(case)


@pytest.fixture
def large_maps(monkeypatch):
    """Has maps of any size count as large."""
    for threshold in ("LARGE_GRADIENT", "LARGE_MAP", "LARGE_INPUTS", "LARGE_OUTPUTS"):
        monkeypatch.setattr(convolution, threshold, 0)
    convolution._compiled.clear_cache()
    yield
    convolution._compiled.clear_cache()


PLAN = ((1, 1), ((1, 1), (1, 1)), (1, 1), 1)  # strides, padding, dilation, groups
LARGE_MAPS = ("larger", "larger, even kernel", "larger, no padding", "larger, wider padding")


@pytest.mark.parametrize("case", LARGE_MAPS)
def test_conv_of_a_large_map_equals_torch(case, large_maps):
    test_conv_equals_torch(case)


def test_kernel_gradients_of_large_maps_go_through_transformations(large_maps):
    """Forward over reverse mode, a batch of kernels, bfloat16; and the gradient is a loop over the taps."""
    x, kernel = jnp.asarray(normal(2, 12, 13, 3)), jnp.asarray(normal(3, 3, 3, 5))

    def total(function):
        return lambda kernel, x: jnp.square(function(x, kernel, *PLAN)).sum()

    ours, plain = total(convolution.conv), total(convolution._xla)
    direction = jnp.ones_like(kernel)
    for both in (
        lambda f: jax.grad(f)(kernel, x),
        lambda f: jax.jvp(lambda k: jax.grad(f)(k, x), (kernel,), (direction,))[1],
        lambda f: jax.grad(lambda x: jax.grad(f)(kernel, x).sum())(x),
        lambda f: jax.vmap(jax.grad(f), (0, None))(jnp.stack([kernel, direction]), x),
    ):
        close(both(ours), both(plain))
    gradient = jax.grad(ours)(kernel.astype(jnp.bfloat16), x.astype(jnp.bfloat16))
    assert gradient.dtype == jnp.bfloat16
    close(gradient.astype(float), jax.grad(plain)(kernel, x), bound=2**-7)  # measured: 0.0037, half an ulp of bfloat16
    assert "while" in jax.jit(jax.grad(ours)).lower(kernel, x).as_text()


def test_a_gradient_is_exported_for_any_batch(large_maps):
    x, kernel = jnp.asarray(normal(2, 12, 13, 3)), jnp.asarray(normal(3, 3, 3, 5))
    gradient = jax.jit(jax.grad(lambda kernel, x: jnp.square(convolution.conv(x, kernel, *PLAN)).sum()))
    (batch,) = export.symbolic_shape("batch")
    program = export.export(gradient)(kernel, jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype))
    close(program.call(kernel, x), gradient(kernel, x))


@pytest.mark.parametrize(
    ("shape", "outputs", "large"),
    [
        ((2, 75, 75, 256), 256, True),
        ((1, 75, 75, 256), 256, False),
        ((2, 150, 150, 64), 128, True),
        ((2, 150, 150, 128), 64, False),
        ((2, 300, 300, 3), 128, False),
        ((64, 28, 28, 128), 128, False),
    ],
)
def test_only_large_kernel_gradients_are_by_taps(shape, outputs, large):
    x, kernel = jax.ShapeDtypeStruct(shape, "f4"), jax.ShapeDtypeStruct((3, 3, shape[-1], outputs), "f4")
    gradient = jax.grad(lambda kernel, x: convolution.conv(x, kernel, *PLAN).sum())
    assert ("while" in jax.jit(gradient).lower(kernel, x).as_text()) == large


def test_large_patches_are_no_program_of_a_slice_each():
    """As ViT-B/32 has: 1,024 slices took XLA 98 s to compile."""
    conv = Conv(3, 4, 32, 32, rngs=RNGS)
    assert jax.jit(lambda x: conv(x)).lower(jnp.ones((1, 70, 64, 3))).as_text().count("slice") < 10


@pytest.mark.parametrize("size", [(7, 9), (8, 6), (5, 10)])
@pytest.mark.parametrize(
    ("kernel", "arguments"),
    [
        (3, {"stride": 2}),
        (3, {"stride": 2, "groups": 4}),
        (5, {"stride": 3, "bias": False}),
        ((2, 4), {"stride": (1, 2)}),
        (3, {"stride": 2, "dilation": 2}),
        (1, {"stride": 2}),
        (2, {"stride": 4}),
    ],
)
def test_padding_of_tensorflow(kernel, arguments, size):
    theirs = Conv2dSame(4, 8, kernel, **arguments)
    agree(*twins(lambda rngs: Conv(4, 8, kernel, padding="SAME", **arguments, rngs=rngs), theirs), normal(2, 4, *size))


@pytest.mark.parametrize(
    "arguments", [{}, {"stride": 2, "padding": 1}, {"groups": 2}, {"groups": 4, "padding": "same"}]
)
@pytest.mark.parametrize("n", [1, 3])
def test_conv_of_other_ranks_equals_torch(n, arguments):
    theirs = (torch.nn.Conv1d if n == 1 else torch.nn.Conv3d)(4, 4, 3, **arguments)
    agree(*twins(lambda rngs: Conv(4, 4, (3,) * n, **arguments, rngs=rngs), theirs), normal(2, 4, *(5, 4, 6)[:n]))


@pytest.mark.parametrize(
    ("channels", "out", "kernel", "arguments"),
    [
        (3, 5, 3, {}),
        (3, 5, 2, {"stride": 2}),
        (3, 5, 2, {"stride": 2, "bias": False}),
        (3, 5, 4, {"stride": 2, "padding": 1}),
        (3, 5, 3, {"stride": 2, "padding": 1, "output_padding": 1}),
        (3, 5, 3, {"stride": (2, 3), "padding": (0, 1), "output_padding": (1, 2)}),
        (3, 5, (1, 5), {"stride": (1, 4), "padding": (0, 2)}),
        (3, 5, 2, {"stride": 4, "output_padding": 3}),
        (3, 5, 3, {"dilation": 2, "padding": 1}),
        (3, 5, 3, {"dilation": (1, 3), "stride": 2, "output_padding": 1}),
        (3, 5, 1, {"stride": 2}),
        (3, 5, 3, {"padding": 2}),
        (4, 6, 3, {"groups": 2}),
        (6, 3, 3, {"groups": 3, "stride": 2, "padding": 1, "output_padding": 1, "dilation": 2}),
        (5, 5, 4, {"groups": 5, "stride": 2, "padding": 1, "bias": False}),
        (3, 5, 8, {"stride": 4, "padding": 2}),
        (3, 5, 7, {"stride": 3, "padding": 1, "output_padding": 2}),
        (2, 3, 64, {"stride": 32, "bias": False}),
    ],
)
def test_conv_transpose_equals_torch(channels, out, kernel, arguments):
    theirs = torch.nn.ConvTranspose2d(channels, out, kernel, **arguments)
    agree(
        *twins(lambda rngs: ConvTranspose(channels, out, kernel, **arguments, rngs=rngs), theirs),
        normal(2, channels, 4, 5),
    )


@pytest.mark.parametrize("n", [1, 3])
def test_conv_transpose_of_other_ranks_equals_torch(n):
    arguments = {"stride": 2, "padding": 1, "groups": 2}
    theirs = (torch.nn.ConvTranspose1d if n == 1 else torch.nn.ConvTranspose3d)(4, 6, 3, **arguments)
    agree(
        *twins(lambda rngs: ConvTranspose(4, 6, (3,) * n, **arguments, rngs=rngs), theirs), normal(2, 4, *(3, 4, 5)[:n])
    )


@pytest.mark.parametrize("kind", [Conv, ConvTranspose])
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"groups": 2}, "groups=2"),
        ({"padding": (1, 2, 3)}, "padding"),
        ({"stride": (1, 2, 3)}, "stride"),
        ({"stride": 0}, "stride"),
        ({"dilation": 0}, "dilation"),
        ({"kernel_size": 0}, "kernel_size"),
    ],
)
def test_impossible_arguments_are_named(kind, arguments, named):
    with pytest.raises(ValueError, match=named):
        kind(**{"in_channels": 3, "out_channels": 4, "kernel_size": 3, **arguments}, rngs=RNGS)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"padding": "Same"}, "'Same'"),
        ({"padding": "same", "stride": 2}, "stride"),
        ({"padding_mode": "mirror"}, "'mirror'.*reflect"),
    ],
)
def test_impossible_paddings_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        Conv(3, 4, 3, **arguments, rngs=RNGS)


def test_output_padding_is_below_stride_or_dilation():
    with pytest.raises(ValueError, match="output_padding"):
        ConvTranspose(3, 4, 3, stride=2, output_padding=2, rngs=RNGS)


@pytest.mark.parametrize("kind", [Conv, ConvTranspose])
@pytest.mark.parametrize("shape", [(5, 5, 3), (1, 3, 5, 5), (5, 5)])
def test_images_of_another_layout_are_refused(kind, shape):
    with pytest.raises(ValueError, match=r"\(N, H, W, 3\)"):
        kind(3, 4, 3, rngs=RNGS)(jnp.zeros(shape))


@pytest.mark.parametrize("arguments", [{}, {"dilation": 2, "padding": 1}, {"groups": 3, "out_channels": 3}])
def test_an_image_smaller_than_the_kernel_is_refused(arguments):
    conv = Conv(**{"in_channels": 3, "out_channels": 4, "kernel_size": 5, **arguments}, rngs=RNGS)
    with pytest.raises(ValueError, match=r"\(1, 4, 6, 3\)"):
        conv(jnp.zeros((1, 4, 6, 3)))


@pytest.mark.parametrize(("mode", "padding"), [("reflect", 5), ("circular", 6)])
def test_padding_beyond_what_the_image_has_is_refused(mode, padding):
    conv = Conv(3, 4, 3, padding=padding, padding_mode=mode, rngs=RNGS)
    with pytest.raises(ValueError, match="padding"):
        conv(jnp.zeros((1, 5, 8, 3)))


def test_a_depthwise_gradient_of_no_images_is_zero():
    conv = Conv(3, 3, np.int64(3), groups=3, rngs=RNGS)
    gradient = jax.grad(lambda conv: conv(jnp.zeros((0, 5, 5, 3))).sum())(conv)
    assert not gradient.kernel[...].any()
