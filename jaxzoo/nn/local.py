"""Convolutions that do not share their weights."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer

from jaxzoo.nn import init
from jaxzoo.nn.precision import refuse_whole_numbers
from jaxzoo.nn.size import Size, per_axis


class LocallyConnected2d(nnx.Module):
    """A convolution with another kernel at every place: (N, H, W, in_channels) to (N, h, w, out_channels).

    Darknet's layer `local`. Leaves: kernel (h · w, in_channels · kh · kw, out_channels) and bias (h · w, out_channels),
    the places row by row, and of the inputs at one place those of a channel together, as `torch.nn.functional.unfold`
    has them.

    Args:
      input_size: (H, W), which the number of kernels depends on.
      padding: pixels on both sides, for both axes or per axis.
      kernel_init, bias_init: initialisers, U(±1 / sqrt(in_channels · kh · kw)) unless given.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        input_size: Size,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        *,
        kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        rngs: nnx.Rngs,
    ):
        self.in_features, self.out_features = in_channels, out_channels
        self.input_size = per_axis(input_size, 2, "input_size")
        self.kernel_size, self.stride = per_axis(kernel_size, 2, "kernel_size"), per_axis(stride, 2, "stride")
        self.padding = per_axis(padding, 2, "padding", 0)
        sizes = zip(self.input_size, self.kernel_size, self.stride, self.padding, strict=True)
        self.output_size = tuple((side + 2 * p - k) // s + 1 for side, k, s, p in sizes)
        if min(self.output_size) < 1:
            raise ValueError(f"a kernel of {self.kernel_size} does not fit into an input of {self.input_size}")
        places, inputs = math.prod(self.output_size), in_channels * math.prod(self.kernel_size)
        start = init.torch_default_bias(inputs)
        self.kernel = nnx.Param((kernel_init or start)(rngs.params(), (places, inputs, out_channels)))
        self.bias = nnx.Param((bias_init or start)(rngs.params(), (places, out_channels)))

    def __call__(self, x: jax.Array) -> jax.Array:
        refuse_whole_numbers(self, x)
        if x.ndim != 4 or x.shape[1:] != (*self.input_size, self.in_features):
            raise ValueError(
                f"LocallyConnected2d takes (N, {self.input_size[0]}, {self.input_size[1]}, {self.in_features}), "
                f"channels last, and was given {x.shape}"
            )
        kernel = self.kernel[...]
        dtype = jnp.result_type(x, kernel)
        y = jnp.einsum("npi,pio->npo", self._unfolded(x.astype(dtype)), kernel.astype(dtype))
        return (y + self.bias[...].astype(dtype)).reshape(x.shape[0], *self.output_size, self.out_features)

    def _unfolded(self, x: jax.Array) -> jax.Array:
        """(N, H, W, C) to (N, h · w, C · kh · kw)."""
        x = jnp.pad(x, [(0, 0), *((p, p) for p in self.padding), (0, 0)])
        (height, width), (down, across) = self.output_size, self.stride
        taps = [
            x[:, i : i + down * (height - 1) + 1 : down, j : j + across * (width - 1) + 1 : across]
            for i in range(self.kernel_size[0])
            for j in range(self.kernel_size[1])
        ]
        return jnp.stack(taps, -1).reshape(x.shape[0], height * width, -1)
