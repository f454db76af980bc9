"""GoogLeNet, the first Inception network, with batch norms.

Szegedy et al. 2014, Going Deeper with Convolutions, https://arxiv.org/abs/1409.4842.
Reference: torchvision.models.googlenet.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxzoo.errors import UsageError
from jaxzoo.nn import (
    AdaptiveAvgPool,
    BatchNorm,
    Conv,
    Dropout,
    Identity,
    Linear,
    MaxPool,
    Sequential,
    adaptive_avg_pool,
    flatten,
    init,
    relu,
)
from jaxzoo.nn.size import Size
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
    """Convolution, norm and ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: int = 1,
        padding: Size = 0,
        std: float = 0.01,
        *,
        rngs: nnx.Rngs,
    ):
        self.conv = Conv(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            bias=False,
            kernel_init=init.normal(std),
            rngs=rngs,
        )
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
        *,
        rngs: nnx.Rngs,
    ):
        self.branch1 = BasicConv2d(in_channels, ch1x1, 1, rngs=rngs)
        self.branch2 = Sequential(
            BasicConv2d(in_channels, ch3x3red, 1, rngs=rngs),
            BasicConv2d(ch3x3red, ch3x3, 3, padding=1, rngs=rngs),
        )
        self.branch3 = Sequential(
            BasicConv2d(in_channels, ch5x5red, 1, rngs=rngs),
            BasicConv2d(ch5x5red, ch5x5, 3, padding=1, rngs=rngs),
        )
        self.branch4 = Sequential(MaxPool(3, 1, 1, ceil_mode=True), BasicConv2d(in_channels, pool_proj, 1, rngs=rngs))

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.concatenate([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], -1)


class InceptionAux(nnx.Module):
    """An auxiliary classifier, which shortens the gradient's way to the lower layers (§5)."""

    def __init__(self, in_channels: int, num_classes: int, dropout: float, *, rngs: nnx.Rngs):
        self.conv = BasicConv2d(in_channels, 128, 1, rngs=rngs)
        self.fc1 = Linear(2048, 1024, kernel_init=init.normal(0.01), rngs=rngs)
        self.fc2 = Linear(1024, num_classes, kernel_init=init.normal(0.01), rngs=rngs)
        self.dropout = Dropout(dropout, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = flatten(self.conv(adaptive_avg_pool(x, 4)))
        return self.fc2(self.dropout(relu(self.fc1(x))))


class GoogLeNetOutputs(NamedTuple):
    """What the network returns in train mode, each (N, num_classes)."""

    logits: jax.Array
    aux_logits2: jax.Array
    aux_logits1: jax.Array


class GoogLeNet(nnx.Module):
    """Images (N, H, W, in_channels) to logits (N, num_classes), in train mode to `GoogLeNetOutputs`.

    Images have 15 pixels at least.

    Args:
      aux_logits: have the auxiliary classifiers, which work in train mode only.
      transform_input: take images normalised for ImageNet, for weights that are used to a range of -1 to 1.
    """

    aux_weight = 0.3  # Szegedy et al. 2014, §5

    def __init__(
        self,
        num_classes: int = 1000,
        aux_logits: bool = True,
        transform_input: bool = False,
        dropout: float = 0.2,
        dropout_aux: float = 0.7,
        *,
        in_channels: int = 3,
        rngs: nnx.Rngs,
    ):
        check_channels(transform_input, in_channels)
        self.transform_input = transform_input
        self.deterministic = False  # what `train()` and `eval()` set
        self.conv1 = BasicConv2d(in_channels, 64, 7, 2, 3, rngs=rngs)
        self.maxpool1 = MaxPool(3, 2, ceil_mode=True)
        self.conv2 = BasicConv2d(64, 64, 1, rngs=rngs)
        self.conv3 = BasicConv2d(64, 192, 3, padding=1, rngs=rngs)
        self.maxpool2 = MaxPool(3, 2, ceil_mode=True)
        self.inception3a = Inception(192, 64, 96, 128, 16, 32, 32, rngs=rngs)  # table 1
        self.inception3b = Inception(256, 128, 128, 192, 32, 96, 64, rngs=rngs)
        self.maxpool3 = MaxPool(3, 2, ceil_mode=True)
        self.inception4a = Inception(480, 192, 96, 208, 16, 48, 64, rngs=rngs)
        self.inception4b = Inception(512, 160, 112, 224, 24, 64, 64, rngs=rngs)
        self.inception4c = Inception(512, 128, 128, 256, 24, 64, 64, rngs=rngs)
        self.inception4d = Inception(512, 112, 144, 288, 32, 64, 64, rngs=rngs)
        self.inception4e = Inception(528, 256, 160, 320, 32, 128, 128, rngs=rngs)
        self.maxpool4 = MaxPool(2, 2, ceil_mode=True)
        self.inception5a = Inception(832, 256, 160, 320, 32, 128, 128, rngs=rngs)
        self.inception5b = Inception(832, 384, 192, 384, 48, 128, 128, rngs=rngs)
        self.aux1 = InceptionAux(512, num_classes, dropout_aux, rngs=rngs) if aux_logits and num_classes else None
        self.aux2 = InceptionAux(528, num_classes, dropout_aux, rngs=rngs) if aux_logits and num_classes else None
        self.avgpool = AdaptiveAvgPool(1)
        self.dropout = Dropout(dropout, rngs=rngs)
        self.fc = Linear(1024, num_classes, kernel_init=init.normal(0.01), rngs=rngs) if num_classes else Identity()

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
