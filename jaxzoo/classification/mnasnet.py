"""MNASNet, variant B1 (without squeeze-and-excitation).

Tan et al. 2018, MnasNet: Platform-Aware Neural Architecture Search for Mobile, https://arxiv.org/abs/1807.11626.
Reference: torchvision.models.mnasnet.
"""

import math
from functools import partial

import jax
from flax import nnx

from jaxzoo.nn import (
    BatchNorm,
    Conv,
    Dropout,
    Identity,
    Linear,
    ReLU,
    Sequential,
    adaptive_avg_pool,
    flatten,
    init,
    make_divisible,
)
from jaxzoo.registry import imagenet, register_model

PaperBatchNorm = partial(BatchNorm, momentum=1 - 0.9997)
conv = partial(Conv, bias=False, kernel_init=init.kaiming_normal("fan_out"))

# Figure 7: kernel, stride of the first block, expansion, channels, blocks.
STAGES = (
    (3, 2, 3, 24, 3),
    (5, 2, 3, 40, 3),
    (5, 2, 6, 80, 3),
    (3, 1, 6, 96, 2),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


def conv_bn(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1, *, rngs: nnx.Rngs
) -> list[nnx.Module]:
    """A convolution that keeps the size at stride 1, and batch norm."""
    layer = conv(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, rngs=rngs)
    return [layer, PaperBatchNorm(out_channels, rngs=rngs)]


class InvertedResidual(nnx.Module):
    """Expand, filter depthwise, project without activation; a shortcut when the shape allows it."""

    def __init__(
        self, in_ch: int, out_ch: int, kernel_size: int, stride: int, expansion_factor: int, *, rngs: nnx.Rngs
    ):
        hidden = in_ch * expansion_factor
        self.apply_residual = in_ch == out_ch and stride == 1
        self.layers = Sequential(
            *conv_bn(in_ch, hidden, 1, rngs=rngs),
            ReLU(),
            *conv_bn(hidden, hidden, kernel_size, stride, groups=hidden, rngs=rngs),
            ReLU(),
            *conv_bn(hidden, out_ch, 1, rngs=rngs),
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.layers(x) + x if self.apply_residual else self.layers(x)


def classifier(in_features: int, num_classes: int, *, rngs: nnx.Rngs) -> Linear:
    """A Linear whose weights start as torch's `kaiming_uniform_` by fan_out, for a sigmoid."""
    bound = init.uniform(math.sqrt(3 / num_classes))
    return Linear(in_features, num_classes, kernel_init=bound, bias_init=init.zeros, rngs=rngs)


class MNASNet(nnx.Module):
    """Images (N, H, W, in_channels) to logits (N, num_classes).

    Args:
      alpha: scales the channels of every layer but the last, rounded to multiples of 8.
    """

    _version = 2  # of the state_dict, which the reference refuses without: 1 did not scale the first layers

    def __init__(
        self, alpha: float, num_classes: int = 1000, dropout: float = 0.2, *, in_channels: int = 3, rngs: nnx.Rngs
    ):
        first, channels = make_divisible(32 * alpha), make_divisible(16 * alpha)
        layers = [
            *conv_bn(in_channels, first, 3, 2, rngs=rngs),
            ReLU(),
            *conv_bn(first, first, 3, groups=first, rngs=rngs),
            ReLU(),
            *conv_bn(first, channels, 1, rngs=rngs),
        ]
        for kernel_size, stride, expansion, width, repeats in STAGES:
            width = make_divisible(width * alpha)
            stage = [InvertedResidual(channels, width, kernel_size, stride, expansion, rngs=rngs)]
            stage += [InvertedResidual(width, width, kernel_size, 1, expansion, rngs=rngs) for _ in range(repeats - 1)]
            layers.append(Sequential(*stage))
            channels = width
        self.layers = Sequential(*layers, *conv_bn(channels, 1280, 1, rngs=rngs), ReLU())
        self.classifier = Sequential(
            Dropout(dropout, rngs=rngs), classifier(1280, num_classes, rngs=rngs) if num_classes else Identity()
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.classifier(flatten(adaptive_avg_pool(self.layers(x), 1)))


register_mnasnet = partial(
    register_model,
    head=("classifier.1",),
    tables=("timm.MNASNET",),
    paper="Tan et al. 2018, https://arxiv.org/abs/1807.11626",
)


@register_mnasnet(timm="mnasnet_050", weights={"IMAGENET1K_V1": imagenet(67.734, 87.49)})
def mnasnet0_5(*, rngs: nnx.Rngs, **kwargs) -> MNASNet:
    return MNASNet(0.5, **kwargs, rngs=rngs)


@register_mnasnet(timm="mnasnet_075", weights={"IMAGENET1K_V1": imagenet(71.18, 90.496, 224, 232)})
def mnasnet0_75(*, rngs: nnx.Rngs, **kwargs) -> MNASNet:
    return MNASNet(0.75, **kwargs, rngs=rngs)


@register_mnasnet(timm="mnasnet_100", weights={"IMAGENET1K_V1": imagenet(73.456, 91.51)})
def mnasnet1_0(*, rngs: nnx.Rngs, **kwargs) -> MNASNet:
    return MNASNet(1.0, **kwargs, rngs=rngs)


@register_mnasnet(weights={"IMAGENET1K_V1": imagenet(76.506, 93.522, 224, 232)})
def mnasnet1_3(*, rngs: nnx.Rngs, **kwargs) -> MNASNet:
    return MNASNet(1.3, **kwargs, rngs=rngs)
