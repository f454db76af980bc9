"""ShuffleNet (V1).

Zhang et al. 2017, ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices,
https://arxiv.org/abs/1707.01083. Reference: pytorchcv.models.shufflenet.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from jaxzoo.nn import (
    AdaptiveAvgPool,
    AvgPool,
    BatchNorm,
    Conv,
    Identity,
    Linear,
    MaxPool,
    NamedSequential,
    ReLU,
    channel_shuffle,
    flatten,
    init,
)
from jaxzoo.registry import imagenet, register_model

conv = partial(Conv, bias=False, kernel_init=init.kaiming_uniform)


class ShuffleUnit(nnx.Module):
    """Grouped 1×1, shuffle, depthwise 3×3, grouped 1×1; added to the input or, at stride 2, put beside it (figure 2).

    Args:
      first_groups: groups of the first convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        groups: int,
        first_groups: int,
        downsample: bool,
        *,
        rngs: nnx.Rngs,
    ):
        middle = out_channels // 4
        added = out_channels - in_channels if downsample else out_channels
        self.groups = groups
        self.compress_conv1 = conv(in_channels, middle, 1, groups=first_groups, rngs=rngs)
        self.compress_bn1 = BatchNorm(middle, rngs=rngs)
        self.dw_conv2 = conv(middle, middle, 3, 2 if downsample else 1, 1, groups=middle, rngs=rngs)
        self.dw_bn2 = BatchNorm(middle, rngs=rngs)
        self.expand_conv3 = conv(middle, added, 1, groups=groups, rngs=rngs)
        self.expand_bn3 = BatchNorm(added, rngs=rngs)
        self.avgpool = AvgPool(3, 2, 1) if downsample else None
        self.activ = ReLU()

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.activ(self.compress_bn1(self.compress_conv1(x)))
        y = self.dw_bn2(self.dw_conv2(channel_shuffle(y, self.groups)))
        y = self.expand_bn3(self.expand_conv3(y))
        y = x + y if self.avgpool is None else jnp.concatenate([y, self.avgpool(x)], -1)
        return self.activ(y)


class ShuffleNet(nnx.Module):
    """Images (N, H, W, in_channels) to logits (N, num_classes); the reference takes 224×224 pixels only.

    Args:
      groups: of the 1×1 convolutions, but the very first, which has few inputs.
      channels: of the three stages (table 1).
    """

    def __init__(
        self, groups: int, channels: Sequence[int], num_classes: int = 1000, *, in_channels: int = 3, rngs: nnx.Rngs
    ):
        width = 24
        features = {
            "init_block": NamedSequential(
                conv=conv(in_channels, width, 3, 2, 1, rngs=rngs),
                bn=BatchNorm(width, rngs=rngs),
                activ=ReLU(),
                pool=MaxPool(3, 2, 1),
            )
        }
        for stage, (out_channels, depth) in enumerate(zip(channels, (4, 8, 4), strict=True), start=1):
            units = {}
            for i in range(depth):
                first_groups = 1 if stage == 1 and i == 0 else groups
                units[f"unit{i + 1}"] = ShuffleUnit(width, out_channels, groups, first_groups, i == 0, rngs=rngs)
                width = out_channels
            features[f"stage{stage}"] = NamedSequential(**units)
        self.features = NamedSequential(**features, final_pool=AdaptiveAvgPool(1))
        self.output = Linear(width, num_classes, rngs=rngs) if num_classes else Identity()

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.output(flatten(self.features(x)))


def register_shufflenet_v1(groups: int, acc1: float, acc5: float):
    """Registers the ShuffleNet with this number of groups, and the accuracy of its published weights."""
    return register_model(
        head=("output",),
        paper="Zhang et al. 2017, https://arxiv.org/abs/1707.01083",
        twin=f"pytorchcv:shufflenet_g{groups}_w1",
        weights={"in1k": imagenet(acc1, acc5)},
    )


@register_shufflenet_v1(1, 65.07, 86.11)
def shufflenet_v1_g1(*, rngs: nnx.Rngs, **kwargs) -> ShuffleNet:
    return ShuffleNet(1, (144, 288, 576), **kwargs, rngs=rngs)


@register_shufflenet_v1(2, 65.75, 86.37)
def shufflenet_v1_g2(*, rngs: nnx.Rngs, **kwargs) -> ShuffleNet:
    return ShuffleNet(2, (200, 400, 800), **kwargs, rngs=rngs)


@register_shufflenet_v1(3, 65.61, 86.52)
def shufflenet_v1_g3(*, rngs: nnx.Rngs, **kwargs) -> ShuffleNet:
    return ShuffleNet(3, (240, 480, 960), **kwargs, rngs=rngs)


@register_shufflenet_v1(4, 65.81, 86.65)
def shufflenet_v1_g4(*, rngs: nnx.Rngs, **kwargs) -> ShuffleNet:
    return ShuffleNet(4, (272, 544, 1088), **kwargs, rngs=rngs)


@register_shufflenet_v1(8, 65.94, 86.58)
def shufflenet_v1_g8(*, rngs: nnx.Rngs, **kwargs) -> ShuffleNet:
    return ShuffleNet(8, (384, 768, 1536), **kwargs, rngs=rngs)
