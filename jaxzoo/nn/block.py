"""Blocks that several families share, with the layout of torchvision.ops."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer

from jaxzoo.nn import init
from jaxzoo.nn.activation import ReLU, Sigmoid
from jaxzoo.nn.container import Identity, Sequential
from jaxzoo.nn.conv import Conv
from jaxzoo.nn.dropout import Dropout
from jaxzoo.nn.linear import Linear
from jaxzoo.nn.norm import BatchNorm
from jaxzoo.nn.pool import AdaptiveAvgPool
from jaxzoo.nn.size import Size, per_axis

Layer = Callable[..., nnx.Module]


class ConvNormActivation(Sequential):
    """`torchvision.ops.Conv2dNormActivation`: convolution, norm and activation under 0, 1, 2.

    The padding keeps the size at stride 1 unless given; the convolution has a bias only where no norm follows.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size = 3,
        stride: Size = 1,
        padding: Size | None = None,
        groups: int = 1,
        norm_layer: Layer | None = BatchNorm,
        activation_layer: Layer | None = ReLU,
        dilation: Size = 1,
        bias: bool | None = None,
        *,
        kernel_init: Initializer = init.torch_default,
        bias_init: Initializer | None = None,
        rngs: nnx.Rngs,
    ):
        if padding is None:
            sizes, dilations = per_axis(kernel_size, 2), per_axis(dilation, 2)
            padding = tuple((k - 1) // 2 * d for k, d in zip(sizes, dilations, strict=True))
        layers = [
            Conv(
                in_channels,
                out_channels,
                kernel_size,
                stride,
                padding,
                dilation,
                groups,
                norm_layer is None if bias is None else bias,
                kernel_init=kernel_init,
                bias_init=bias_init,
                rngs=rngs,
            )
        ]
        if norm_layer is not None:
            layers.append(norm_layer(out_channels, rngs=rngs))
        if activation_layer is not None:
            layers.append(activation_layer())
        super().__init__(*layers)


class BatchNormAct(BatchNorm):
    """timm's `BatchNormAct2d`: batch norm and, unless it is None, the activation after it, under one name."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        activation_layer: Layer | None = ReLU,
        *,
        rngs: nnx.Rngs,
    ):
        super().__init__(num_features, eps, momentum, rngs=rngs)
        self.act = Identity() if activation_layer is None else activation_layer()

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.act(super().__call__(x))


class SqueezeExcitation(nnx.Module):
    """`torchvision.ops.SqueezeExcitation`: scales channels by a gate computed from their means (Hu et al. 2018)."""

    def __init__(
        self,
        input_channels: int,
        squeeze_channels: int,
        activation: Layer = ReLU,
        scale_activation: Layer = Sigmoid,
        *,
        kernel_init: Initializer = init.torch_default,
        bias_init: Initializer | None = None,
        rngs: nnx.Rngs,
    ):
        self.avgpool = AdaptiveAvgPool(1)
        self.fc1 = Conv(input_channels, squeeze_channels, 1, kernel_init=kernel_init, bias_init=bias_init, rngs=rngs)
        self.fc2 = Conv(squeeze_channels, input_channels, 1, kernel_init=kernel_init, bias_init=bias_init, rngs=rngs)
        self.activation = activation()
        self.scale_activation = scale_activation()

    def __call__(self, x: jax.Array) -> jax.Array:
        gate = self.activation(self.fc1(self.avgpool(x)))
        return x * self.scale_activation(self.fc2(gate))


class MLP(Sequential):
    """`torchvision.ops.MLP`: Linear, activation, Dropout per hidden layer, then Linear and Dropout, under 0, 1, 2."""

    def __init__(
        self,
        in_channels: int,
        hidden_channels: list[int],
        activation_layer: Layer = ReLU,
        dropout: float = 0.0,
        *,
        kernel_init: Initializer = init.torch_default,
        bias_init: Initializer | None = None,
        rngs: nnx.Rngs,
    ):
        layers = []
        for i, channels in enumerate(hidden_channels):
            layers.append(Linear(in_channels, channels, kernel_init=kernel_init, bias_init=bias_init, rngs=rngs))
            if i < len(hidden_channels) - 1:
                layers.append(activation_layer())
            layers.append(Dropout(dropout, rngs=rngs))
            in_channels = channels
        super().__init__(*layers)


class LayerScale(nnx.Module):
    """Scales every channel by a learned factor that starts small (Touvron et al. 2021). Leaf: gamma (channels,)."""

    def __init__(self, channels: int, init_value: float = 1e-5):
        self.gamma = nnx.Param(jnp.full((channels,), init_value, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * self.gamma[...]
