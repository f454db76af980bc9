"""Inception V3.

Szegedy et al. 2015, Rethinking the Inception Architecture for Computer Vision, https://arxiv.org/abs/1512.00567.
Reference: torchvision.models.inception.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer

from jaxzoo.classification.googlenet import BasicConv2d, check_channels, from_imagenet_range
from jaxzoo.errors import UsageError
from jaxzoo.nn import (
    AdaptiveAvgPool,
    Dropout,
    Identity,
    Layer,
    Linear,
    MaxPool,
    adaptive_avg_pool,
    avg_pool,
    flatten,
    init,
    max_pool,
)
from jaxzoo.registry import imagenet, register_model


class InceptionA(nnx.Module):
    """For maps of 35 × 35: 1×1, 5×5, two 3×3 in a row, and pooling, side by side (figure 5)."""

    def __init__(self, in_channels: int, pool_features: int, conv_block: Layer = BasicConv2d, *, rngs: nnx.Rngs):
        conv = partial(conv_block, rngs=rngs)
        self.branch1x1 = conv(in_channels, 64, kernel_size=1)
        self.branch5x5_1 = conv(in_channels, 48, kernel_size=1)
        self.branch5x5_2 = conv(48, 64, kernel_size=5, padding=2)
        self.branch3x3dbl_1 = conv(in_channels, 64, kernel_size=1)
        self.branch3x3dbl_2 = conv(64, 96, kernel_size=3, padding=1)
        self.branch3x3dbl_3 = conv(96, 96, kernel_size=3, padding=1)
        self.branch_pool = conv(in_channels, pool_features, kernel_size=1)

    def __call__(self, x: jax.Array) -> jax.Array:
        branches = [
            self.branch1x1(x),
            self.branch5x5_2(self.branch5x5_1(x)),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
            self.branch_pool(avg_pool(x, 3, 1, 1)),
        ]
        return jnp.concatenate(branches, -1)


class InceptionB(nnx.Module):
    """From 35 × 35 to 17 × 17 (figure 10)."""

    def __init__(self, in_channels: int, conv_block: Layer = BasicConv2d, *, rngs: nnx.Rngs):
        conv = partial(conv_block, rngs=rngs)
        self.branch3x3 = conv(in_channels, 384, kernel_size=3, stride=2)
        self.branch3x3dbl_1 = conv(in_channels, 64, kernel_size=1)
        self.branch3x3dbl_2 = conv(64, 96, kernel_size=3, padding=1)
        self.branch3x3dbl_3 = conv(96, 96, kernel_size=3, stride=2)

    def __call__(self, x: jax.Array) -> jax.Array:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return jnp.concatenate([self.branch3x3(x), double, max_pool(x, 3, 2)], -1)


class InceptionC(nnx.Module):
    """For maps of 17 × 17: filters of 7×7 as 1×7 and 7×1 in a row, once and twice (figure 6)."""

    def __init__(self, in_channels: int, channels_7x7: int, conv_block: Layer = BasicConv2d, *, rngs: nnx.Rngs):
        conv = partial(conv_block, rngs=rngs)
        c7 = channels_7x7
        self.branch1x1 = conv(in_channels, 192, kernel_size=1)
        self.branch7x7_1 = conv(in_channels, c7, kernel_size=1)
        self.branch7x7_2 = conv(c7, c7, kernel_size=(1, 7), padding=(0, 3))
        self.branch7x7_3 = conv(c7, 192, kernel_size=(7, 1), padding=(3, 0))
        self.branch7x7dbl_1 = conv(in_channels, c7, kernel_size=1)
        self.branch7x7dbl_2 = conv(c7, c7, kernel_size=(7, 1), padding=(3, 0))
        self.branch7x7dbl_3 = conv(c7, c7, kernel_size=(1, 7), padding=(0, 3))
        self.branch7x7dbl_4 = conv(c7, c7, kernel_size=(7, 1), padding=(3, 0))
        self.branch7x7dbl_5 = conv(c7, 192, kernel_size=(1, 7), padding=(0, 3))
        self.branch_pool = conv(in_channels, 192, kernel_size=1)

    def __call__(self, x: jax.Array) -> jax.Array:
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        branches = [
            self.branch1x1(x),
            self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x))),
            self.branch7x7dbl_5(self.branch7x7dbl_4(double)),
            self.branch_pool(avg_pool(x, 3, 1, 1)),
        ]
        return jnp.concatenate(branches, -1)


class InceptionD(nnx.Module):
    """From 17 × 17 to 8 × 8 (figure 10, with a 7×7 before the second 3×3)."""

    def __init__(self, in_channels: int, conv_block: Layer = BasicConv2d, *, rngs: nnx.Rngs):
        conv = partial(conv_block, rngs=rngs)
        self.branch3x3_1 = conv(in_channels, 192, kernel_size=1)
        self.branch3x3_2 = conv(192, 320, kernel_size=3, stride=2)
        self.branch7x7x3_1 = conv(in_channels, 192, kernel_size=1)
        self.branch7x7x3_2 = conv(192, 192, kernel_size=(1, 7), padding=(0, 3))
        self.branch7x7x3_3 = conv(192, 192, kernel_size=(7, 1), padding=(3, 0))
        self.branch7x7x3_4 = conv(192, 192, kernel_size=3, stride=2)

    def __call__(self, x: jax.Array) -> jax.Array:
        long = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        branches = [self.branch3x3_2(self.branch3x3_1(x)), self.branch7x7x3_4(long), max_pool(x, 3, 2)]
        return jnp.concatenate(branches, -1)


class InceptionE(nnx.Module):
    """For maps of 8 × 8: 1×3 and 3×1 side by side, for many channels (figure 7)."""

    def __init__(self, in_channels: int, conv_block: Layer = BasicConv2d, *, rngs: nnx.Rngs):
        conv = partial(conv_block, rngs=rngs)
        self.branch1x1 = conv(in_channels, 320, kernel_size=1)
        self.branch3x3_1 = conv(in_channels, 384, kernel_size=1)
        self.branch3x3_2a = conv(384, 384, kernel_size=(1, 3), padding=(0, 1))
        self.branch3x3_2b = conv(384, 384, kernel_size=(3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = conv(in_channels, 448, kernel_size=1)
        self.branch3x3dbl_2 = conv(448, 384, kernel_size=3, padding=1)
        self.branch3x3dbl_3a = conv(384, 384, kernel_size=(1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = conv(384, 384, kernel_size=(3, 1), padding=(1, 0))
        self.branch_pool = conv(in_channels, 192, kernel_size=1)

    def __call__(self, x: jax.Array) -> jax.Array:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        branches = [
            self.branch1x1(x),
            self.branch3x3_2a(single),
            self.branch3x3_2b(single),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(avg_pool(x, 3, 1, 1)),
        ]
        return jnp.concatenate(branches, -1)


class InceptionAux(nnx.Module):
    """The auxiliary classifier (§4, figure 8)."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        conv_block: Layer = BasicConv2d,
        *,
        kernel_init: Initializer = init.torch_default,
        rngs: nnx.Rngs,
    ):
        self.conv0 = conv_block(in_channels, 128, kernel_size=1, rngs=rngs)
        self.conv1 = conv_block(128, 768, kernel_size=5, rngs=rngs)
        self.fc = Linear(768, num_classes, kernel_init=kernel_init, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        if min(x.shape[1:3]) < 17:
            raise UsageError(
                f"a map of {x.shape[1]} x {x.shape[2]} is too small for the auxiliary classifier: "
                "give images of 299 pixels at least, or aux_logits=False"
            )
        x = self.conv1(self.conv0(avg_pool(x, 5, 3)))
        return self.fc(flatten(adaptive_avg_pool(x, 1)))


class InceptionOutputs(NamedTuple):
    """The outputs in train mode, each (N, num_classes)."""

    logits: jax.Array
    aux_logits: jax.Array


BLOCKS = (BasicConv2d, InceptionA, InceptionB, InceptionC, InceptionD, InceptionE, InceptionAux)


class Inception3(nnx.Module):
    """Images (N, H, W, in_channels) to logits (N, num_classes), in train mode to `InceptionOutputs`.

    Images have 75 pixels at least, and 299 to train the auxiliary classifier (UsageError).

    Args:
      aux_logits: have the auxiliary classifier, which works in train mode only.
      transform_input: take images normalised for ImageNet, for weights that were trained on a range of -1 to 1.
      inception_blocks: build convolutions, the blocks A to E and the auxiliary classifier, with the arguments of these.
      init_weights: start kernels from a normal distribution, as published; otherwise from torch's default.
    """

    aux_weight = 0.4  # as in TensorFlow's inception_model.py, which trained the published weights

    def __init__(
        self,
        num_classes: int = 1000,
        aux_logits: bool = True,
        transform_input: bool = False,
        inception_blocks: Sequence[Layer] = BLOCKS,
        init_weights: bool = True,
        dropout: float = 0.5,
        *,
        in_channels: int = 3,
        rngs: nnx.Rngs,
    ):
        check_channels(transform_input, in_channels)

        def kernel_init(std: float) -> Initializer:
            return init.normal(std) if init_weights else init.torch_default

        conv_block = partial(inception_blocks[0], kernel_init=kernel_init(0.1))
        conv = partial(conv_block, rngs=rngs)
        a, b, c, d, e, aux = (partial(block, conv_block=conv_block, rngs=rngs) for block in inception_blocks[1:])
        self.transform_input = transform_input
        self.deterministic = False  # `train()` and `eval()` set it
        self.Conv2d_1a_3x3 = conv(in_channels, 32, kernel_size=3, stride=2)
        self.Conv2d_2a_3x3 = conv(32, 32, kernel_size=3)
        self.Conv2d_2b_3x3 = conv(32, 64, kernel_size=3, padding=1)
        self.maxpool1 = MaxPool(3, 2)
        self.Conv2d_3b_1x1 = conv(64, 80, kernel_size=1)
        self.Conv2d_4a_3x3 = conv(80, 192, kernel_size=3)
        self.maxpool2 = MaxPool(3, 2)
        self.Mixed_5b = a(192, 32)
        self.Mixed_5c = a(256, 64)
        self.Mixed_5d = a(288, 64)
        self.Mixed_6a = b(288)
        self.Mixed_6b = c(768, 128)
        self.Mixed_6c = c(768, 160)
        self.Mixed_6d = c(768, 160)
        self.Mixed_6e = c(768, 192)
        aux = partial(aux, kernel_init=kernel_init(0.001))
        self.AuxLogits = aux(768, num_classes) if aux_logits and num_classes else None
        self.Mixed_7a = d(768)
        self.Mixed_7b = e(1280)
        self.Mixed_7c = e(2048)
        self.avgpool = AdaptiveAvgPool(1)
        self.dropout = Dropout(dropout, rngs=rngs)
        self.fc = Linear(2048, num_classes, kernel_init=kernel_init(0.1), rngs=rngs) if num_classes else Identity()

    def __call__(self, x: jax.Array) -> jax.Array | InceptionOutputs:
        x = from_imagenet_range(x) if self.transform_input else x
        x = self.maxpool1(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = self.maxpool2(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        middle = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(middle)))
        logits = self.fc(flatten(self.dropout(self.avgpool(x))))
        if self.deterministic or self.AuxLogits is None:
            return logits
        return InceptionOutputs(logits, self.AuxLogits(middle))


@register_model(
    timm="inception_v3",
    head=("fc", "AuxLogits.fc"),
    auxiliary=("AuxLogits",),
    tables=("timm.INCEPTION",),
    paper="Szegedy et al. 2015, https://arxiv.org/abs/1512.00567",
    input_size=299,
    weights={"IMAGENET1K_V1": imagenet(77.294, 93.45, 299, 342, transform_input=True)},
)
def inception_v3(*, rngs: nnx.Rngs, **kwargs) -> Inception3:
    return Inception3(**kwargs, rngs=rngs)
