"""GoogLeNet, the first Inception network, with batch norms.

Szegedy et al. 2014, Going Deeper with Convolutions, https://arxiv.org/abs/1409.4842.
Reference: torchvision.models.googlenet.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.nn.initializers import Initializer

from jaxzoo.errors import UsageError
from jaxzoo.nn import (
    AdaptiveAvgPool,
    BatchNorm,
    Conv,
    Dropout,
    Identity,
    Layer,
    Linear,
    MaxPool,
    Sequential,
    adaptive_avg_pool,
    flatten,
    init,
    relu,
)
from jaxzoo.preprocess import IMAGENET_MEAN, IMAGENET_STD
from jaxzoo.registry import imagenet, register_model


def from_imagenet_range(x: jax.Array) -> jax.Array:
    """Images normalised by ImageNet's mean and deviation to a range of -1 to 1, which TensorFlow trained these on."""
    mean, std = np.asarray(IMAGENET_MEAN), np.asarray(IMAGENET_STD)
    return x * jnp.asarray(std / 0.5, x.dtype) + jnp.asarray((mean - 0.5) / 0.5, x.dtype)


def check_channels(transform_input: bool, in_channels: int) -> None:
    """Raises `UsageError` where images cannot come from ImageNet's range, which is of three channels."""
    if transform_input and in_channels != 3:
        raise UsageError(
            f"transform_input=True is for RGB images, not for {in_channels} channels; give transform_input=False"
        )


class BasicConv2d(nnx.Module):
    """Convolution, norm and ReLU. Further arguments are those of `Conv`."""

    def __init__(self, in_channels: int, out_channels: int, *, rngs: nnx.Rngs, **kwargs):
        self.conv = Conv(in_channels, out_channels, bias=False, **kwargs, rngs=rngs)
        self.bn = BatchNorm(out_channels, eps=1e-3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return relu(self.bn(self.conv(x)))


class Inception(nnx.Module):
    """Four filters of the same map side by side (figure 2b); the 5×5 filters are 3×3, like the reference's."""

    def __init__(
        self,
        in_channels: int,
        ch1x1: int,
        ch3x3red: int,
        ch3x3: int,
        ch5x5red: int,
        ch5x5: int,
        pool_proj: int,
        conv_block: Layer = BasicConv2d,
        *,
        rngs: nnx.Rngs,
    ):
        conv = partial(conv_block, rngs=rngs)
        self.branch1 = conv(in_channels, ch1x1, kernel_size=1)
        self.branch2 = Sequential(
            conv(in_channels, ch3x3red, kernel_size=1), conv(ch3x3red, ch3x3, kernel_size=3, padding=1)
        )
        self.branch3 = Sequential(
            conv(in_channels, ch5x5red, kernel_size=1), conv(ch5x5red, ch5x5, kernel_size=3, padding=1)
        )
        self.branch4 = Sequential(MaxPool(3, 1, 1, ceil_mode=True), conv(in_channels, pool_proj, kernel_size=1))

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.concatenate([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], -1)


class InceptionAux(nnx.Module):
    """An auxiliary classifier, which shortens the gradient's way to the lower layers (§5)."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        conv_block: Layer = BasicConv2d,
        dropout: float = 0.7,
        *,
        kernel_init: Initializer = init.torch_default,
        rngs: nnx.Rngs,
    ):
        self.conv = conv_block(in_channels, 128, kernel_size=1, rngs=rngs)
        self.fc1 = Linear(2048, 1024, kernel_init=kernel_init, rngs=rngs)
        self.fc2 = Linear(1024, num_classes, kernel_init=kernel_init, rngs=rngs)
        self.dropout = Dropout(dropout, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = flatten(self.conv(adaptive_avg_pool(x, 4)))
        return self.fc2(self.dropout(relu(self.fc1(x))))


class GoogLeNetOutputs(NamedTuple):
    """The outputs in train mode, each (N, num_classes)."""

    logits: jax.Array
    aux_logits2: jax.Array
    aux_logits1: jax.Array


class GoogLeNet(nnx.Module):
    """Images (N, H, W, in_channels) to logits (N, num_classes), in train mode to `GoogLeNetOutputs`.

    Images have 15 pixels at least.

    Args:
      aux_logits: have the auxiliary classifiers, which work in train mode only.
      transform_input: take images normalised for ImageNet, for weights that were trained on a range of -1 to 1.
      init_weights: start kernels from a normal distribution, as published; otherwise from torch's default.
      blocks: build convolutions, Inception blocks and auxiliary classifiers, with the arguments of these three.
    """

    aux_weight = 0.3  # Szegedy et al. 2014, §5

    def __init__(
        self,
        num_classes: int = 1000,
        aux_logits: bool = True,
        transform_input: bool = False,
        init_weights: bool = True,
        blocks: Sequence[Layer] = (BasicConv2d, Inception, InceptionAux),
        dropout: float = 0.2,
        dropout_aux: float = 0.7,
        *,
        in_channels: int = 3,
        rngs: nnx.Rngs,
    ):
        check_channels(transform_input, in_channels)
        kernel_init = init.normal(0.01) if init_weights else init.torch_default
        conv_block, inception_block, aux_block = blocks
        conv_block = partial(conv_block, kernel_init=kernel_init)
        conv = partial(conv_block, rngs=rngs)
        inception = partial(inception_block, conv_block=conv_block, rngs=rngs)
        aux = partial(aux_block, conv_block=conv_block, dropout=dropout_aux, kernel_init=kernel_init, rngs=rngs)
        self.transform_input = transform_input
        self.deterministic = False  # `train()` and `eval()` set it
        self.conv1 = conv(in_channels, 64, kernel_size=7, stride=2, padding=3)
        self.maxpool1 = MaxPool(3, 2, ceil_mode=True)
        self.conv2 = conv(64, 64, kernel_size=1)
        self.conv3 = conv(64, 192, kernel_size=3, padding=1)
        self.maxpool2 = MaxPool(3, 2, ceil_mode=True)
        self.inception3a = inception(192, 64, 96, 128, 16, 32, 32)  # table 1
        self.inception3b = inception(256, 128, 128, 192, 32, 96, 64)
        self.maxpool3 = MaxPool(3, 2, ceil_mode=True)
        self.inception4a = inception(480, 192, 96, 208, 16, 48, 64)
        self.inception4b = inception(512, 160, 112, 224, 24, 64, 64)
        self.inception4c = inception(512, 128, 128, 256, 24, 64, 64)
        self.inception4d = inception(512, 112, 144, 288, 32, 64, 64)
        self.inception4e = inception(528, 256, 160, 320, 32, 128, 128)
        self.maxpool4 = MaxPool(2, 2, ceil_mode=True)
        self.inception5a = inception(832, 256, 160, 320, 32, 128, 128)
        self.inception5b = inception(832, 384, 192, 384, 48, 128, 128)
        self.aux1 = aux(512, num_classes) if aux_logits and num_classes else None
        self.aux2 = aux(528, num_classes) if aux_logits and num_classes else None
        self.avgpool = AdaptiveAvgPool(1)
        self.dropout = Dropout(dropout, rngs=rngs)
        self.fc = Linear(1024, num_classes, kernel_init=kernel_init, rngs=rngs) if num_classes else Identity()

    def __call__(self, x: jax.Array) -> jax.Array | GoogLeNetOutputs:
        x = from_imagenet_range(x) if self.transform_input else x
        x = self.maxpool2(self.conv3(self.conv2(self.maxpool1(self.conv1(x)))))
        x = self.maxpool3(self.inception3b(self.inception3a(x)))
        low = self.inception4a(x)
        middle = self.inception4d(self.inception4c(self.inception4b(low)))
        x = self.maxpool4(self.inception4e(middle))
        x = self.inception5b(self.inception5a(x))
        logits = self.fc(self.dropout(flatten(self.avgpool(x))))
        if self.deterministic or self.aux1 is None:
            return logits
        return GoogLeNetOutputs(logits, self.aux2(middle), self.aux1(low))


@register_model(
    head=("fc", "aux1.fc2", "aux2.fc2"),
    auxiliary=("aux1", "aux2"),
    paper="Szegedy et al. 2014, https://arxiv.org/abs/1409.4842",
    weights={"IMAGENET1K_V1": imagenet(69.778, 89.53, transform_input=True)},
)
def googlenet(*, rngs: nnx.Rngs, **kwargs) -> GoogLeNet:
    return GoogLeNet(**kwargs, rngs=rngs)
