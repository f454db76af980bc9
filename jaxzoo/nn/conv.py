"""Convolutions with torch's arguments and semantics, channels last."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.nn.initializers import Initializer

from jaxzoo.nn import init

Size = int | Sequence[int]

_PAD_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def spread(value: Size, n: int) -> tuple[int, ...]:
    """One number for every spatial axis, or one for each."""
    return (value,) * n if isinstance(value, int) else tuple(value)


def _dimensions(n: int) -> tuple[str, str, str]:
    space = "DHW"[-n:]
    return f"N{space}C", f"{space}IO", f"N{space}C"


class Conv(nnx.Conv):
    """`torch.nn.Conv2d` on (N, H, W, C); with a `kernel_size` of three numbers `Conv3d`, of one `Conv1d`.

    Leaves: kernel (kh, kw, in_channels / groups, out_channels) and, unless `bias=False`, bias (out_channels,).

    Args:
      padding: pixels on both sides, for all axes or per axis, or "same" (stride 1) or "valid".
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
        kernel_size = spread(kernel_size, 2)
        n = len(kernel_size)
        dilation = spread(dilation, n)
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"groups={groups} does not divide in_channels={in_channels} and out_channels={out_channels}")
        if padding_mode != "zeros" and padding_mode not in _PAD_MODES:
            raise ValueError(f"padding_mode is {padding_mode!r}; it must be one of: zeros, {', '.join(_PAD_MODES)}")
        if padding == "same":
            extra = [d * (k - 1) for k, d in zip(kernel_size, dilation, strict=True)]
            sides = [(e // 2, e - e // 2) for e in extra]
        else:
            sides = [(p, p) for p in spread(0 if padding == "valid" else padding, n)]
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            spread(stride, n),
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
        kernel = self.kernel[...]
        dtype = jnp.result_type(x, kernel)
        padding = self.padding
        if self.padding_mode != "zeros":
            x = jnp.pad(x, [(0, 0), *padding, (0, 0)], _PAD_MODES[self.padding_mode])
            padding = [(0, 0)] * len(padding)
        y = lax.conv_general_dilated(
            x.astype(dtype),
            kernel.astype(dtype),
            self.strides,
            padding,
            rhs_dilation=self.kernel_dilation,
            dimension_numbers=_dimensions(len(padding)),
            feature_group_count=self.feature_group_count,
        )
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
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"groups={groups} does not divide in_channels={in_channels} and out_channels={out_channels}")
        kernel_size = spread(kernel_size, 2)
        n = len(kernel_size)
        bound = init.torch_default_bias(math.prod(kernel_size) * out_channels // groups)
        super().__init__(
            in_channels,
            out_channels // groups,  # flax knows no groups here; the bias is made below
            kernel_size,
            spread(stride, n),
            padding="VALID",
            kernel_dilation=spread(dilation, n),
            use_bias=False,
            transpose_kernel=True,
            kernel_init=kernel_init or bound,
            rngs=rngs,
        )
        if bias:
            self.bias = nnx.Param((bias_init or bound)(rngs.params(), (out_channels,), jnp.float32))
        self.torch_padding = spread(padding, n)
        self.output_padding = spread(output_padding, n)
        self.groups = groups

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...]
        dtype = jnp.result_type(x, kernel)
        *space, out, _ = kernel.shape
        axes = tuple(range(len(space)))
        kernel = jnp.flip(kernel, axes).reshape(*space, out, self.groups, -1)
        kernel = jnp.moveaxis(kernel, -1, -3).swapaxes(-1, -2)  # (kh, kw, in / groups, groups, out / groups)
        kernel = kernel.reshape(*space, kernel.shape[-3], self.groups * out)
        reach = [d * (k - 1) for k, d in zip(space, self.kernel_dilation, strict=True)]
        y = lax.conv_general_dilated(
            x.astype(dtype),
            kernel.astype(dtype),
            (1,) * len(space),
            [(r - p, r - p + o) for r, p, o in zip(reach, self.torch_padding, self.output_padding, strict=True)],
            lhs_dilation=self.strides,
            rhs_dilation=self.kernel_dilation,
            dimension_numbers=_dimensions(len(space)),
            feature_group_count=self.groups,
        )
        return y if self.bias is None else y + self.bias[...].astype(dtype)
