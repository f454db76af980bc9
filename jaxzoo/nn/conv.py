"""Convolutions with torch's arguments and semantics, channels last."""

import math
from numbers import Integral

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.nn.initializers import Initializer

from jaxzoo.errors import UsageError
from jaxzoo.nn import init
from jaxzoo.nn.cpu.convolution import conv
from jaxzoo.nn.cpu.transposed_convolution import conv_transpose
from jaxzoo.nn.precision import refuse_whole_numbers
from jaxzoo.nn.size import Size, per_axis

_PAD_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def _check_layout(layer: nnx.Module, x: jax.Array) -> None:
    refuse_whole_numbers(layer, x)
    axes = ["N", *"DHW"[-len(layer.kernel_size) :], str(layer.in_features)]
    if x.ndim != len(axes) or x.shape[-1] != layer.in_features:
        raise ValueError(f"{type(layer).__name__} takes ({', '.join(axes)}), channels last, and was given {x.shape}")


def _check_groups(groups: int, in_channels: int, out_channels: int) -> None:
    if groups < 1 or in_channels % groups or out_channels % groups:
        raise ValueError(f"groups={groups} does not divide in_channels={in_channels} and out_channels={out_channels}")


class Conv(nnx.Conv):
    """`torch.nn.Conv2d` on (N, H, W, C); with a `kernel_size` of three numbers `Conv3d`, of one `Conv1d`.

    Leaves: kernel (kh, kw, in_channels / groups, out_channels) and, unless `bias=False`, bias (out_channels,).

    Args:
      padding: pixels on both sides, for all axes or per axis, or "same" (stride 1) or "valid"; or "SAME", TensorFlow's,
        which follows the input's size and puts an odd pixel at the end (`timm.layers.Conv2dSame`).
      padding_mode: "zeros", "reflect", "replicate" or "circular".
      kernel_init, bias_init: initialisers; torch's defaults unless given.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        kernel_init: Initializer = init.torch_default,
        bias_init: Initializer | None = None,
        rngs: nnx.Rngs,
    ):
        _check_groups(groups, in_channels, out_channels)
        n = 2 if isinstance(kernel_size, Integral) else len(kernel_size)
        kernel_size = per_axis(kernel_size, n, "kernel_size")
        stride, dilation = per_axis(stride, n, "stride"), per_axis(dilation, n, "dilation")
        if padding_mode != "zeros" and padding_mode not in _PAD_MODES:
            raise ValueError(f"padding_mode is {padding_mode!r}; it must be one of: zeros, {', '.join(_PAD_MODES)}")
        if padding == "same":
            if stride != (1,) * n:
                raise ValueError(f'padding="same" goes with stride 1 only, not with stride {stride}')
            extra = [d * (k - 1) for k, d in zip(kernel_size, dilation, strict=True)]
            sides = tuple((e // 2, e - e // 2) for e in extra)
        elif padding == "SAME":
            sides = padding
        else:
            sides = tuple((p, p) for p in per_axis(0 if padding == "valid" else padding, n, "padding", 0))
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding=sides,
            kernel_dilation=dilation,
            feature_group_count=groups,
            use_bias=bias,
            kernel_init=kernel_init,
            bias_init=bias_init or init.torch_default_bias(math.prod(kernel_size) * in_channels // groups),
            rngs=rngs,
        )
        self.padding_mode = padding_mode

    def __call__(self, x: jax.Array) -> jax.Array:
        _check_layout(self, x)
        kernel = self.kernel[...]
        dtype = jnp.result_type(x, kernel)
        padding = self.padding
        reach = [d * (k - 1) for k, d in zip(self.kernel_size, self.kernel_dilation, strict=True)]
        if padding == "SAME":
            padding = lax.padtype_to_pads(x.shape[1:-1], [r + 1 for r in reach], self.strides, padding)
        if any(length + sum(p) <= r for length, p, r in zip(x.shape[1:-1], padding, reach, strict=True)):
            raise UsageError(
                f"an input of {x.shape} is smaller than the kernel of {self.kernel_size}: "
                "the image is too small for this network"
            )
        if self.padding_mode != "zeros":
            most = [length - (self.padding_mode == "reflect") for length in x.shape[1:-1]]
            if self.padding_mode != "replicate" and any(max(p) > m for p, m in zip(padding, most, strict=True)):
                raise ValueError(f"{self.padding_mode} padding of {padding} takes more than an input of {x.shape} has")
            x = jnp.pad(x, [(0, 0), *padding, (0, 0)], _PAD_MODES[self.padding_mode])
            padding = [(0, 0)] * len(padding)
        x, kernel = x.astype(dtype), kernel.astype(dtype)
        y = conv(x, kernel, self.strides, padding, self.kernel_dilation, self.feature_group_count)
        return y if self.bias is None else y + self.bias[...].astype(dtype)


class ConvTranspose(nnx.ConvTranspose):
    """`torch.nn.ConvTranspose2d` on (N, H, W, C): the gradient of `Conv` with respect to its input.

    Leaves: kernel (kh, kw, out_channels / groups, in_channels) and, unless `bias=False`, bias (out_channels,).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        *,
        kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        rngs: nnx.Rngs,
    ):
        _check_groups(groups, in_channels, out_channels)
        n = 2 if isinstance(kernel_size, Integral) else len(kernel_size)
        kernel_size = per_axis(kernel_size, n, "kernel_size")
        stride, dilation = per_axis(stride, n, "stride"), per_axis(dilation, n, "dilation")
        output_padding = per_axis(output_padding, n, "output_padding", 0)
        if any(o >= max(s, d) for o, s, d in zip(output_padding, stride, dilation, strict=True)):
            raise ValueError(f"output_padding {output_padding} must be below stride {stride} or dilation {dilation}")
        bound = init.torch_default_bias(math.prod(kernel_size) * out_channels // groups)
        super().__init__(
            in_channels,
            out_channels // groups,  # flax knows no groups here; the bias is made below
            kernel_size,
            stride,
            padding="VALID",
            kernel_dilation=dilation,
            use_bias=False,
            transpose_kernel=True,
            kernel_init=kernel_init or bound,
            rngs=rngs,
        )
        if bias:
            self.bias = nnx.Param((bias_init or bound)(rngs.params(), (out_channels,), jnp.float32))
        self.torch_padding = per_axis(padding, n, "padding", 0)
        self.output_padding = output_padding
        self.groups = groups

    def __call__(self, x: jax.Array) -> jax.Array:
        _check_layout(self, x)
        kernel = self.kernel[...]
        dtype = jnp.result_type(x, kernel)
        plan = self.strides, self.torch_padding, self.output_padding, self.kernel_dilation, self.groups
        y = conv_transpose(x.astype(dtype), kernel.astype(dtype), *plan)
        return y if self.bias is None else y + self.bias[...].astype(dtype)
