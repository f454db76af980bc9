"""MobileNetV2.

Sandler et al. 2018, MobileNetV2: Inverted Residuals and Linear Bottlenecks, https://arxiv.org/abs/1801.04381.
Reference: torchvision.models.mobilenetv2.
"""

from collections.abc import Sequence
from functools import partial

import jax
from flax import nnx

from jaxzoo.nn import (
    BatchNorm,
    Conv,
    Dropout,
    Identity,
    Layer,
    Linear,
    ReLU6,
    Sequential,
    adaptive_avg_pool,
    flatten,
    init,
    make_divisible,
)
from jaxzoo.nn import ConvNormActivation as TorchConvNormActivation
from jaxzoo.registry import imagenet, register_model

fan_out = init.kaiming_normal("fan_out")
ConvNormActivation = partial(TorchConvNormActivation, activation_layer=ReLU6, kernel_init=fan_out)
linear = partial(Linear, kernel_init=init.normal(0.01), bias_init=init.zeros)

# Table 2: expansion, channels, blocks, stride of the first block.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class InvertedResidual(nnx.Module):
    """Expand, filter depthwise, project without activation; a shortcut when the shape allows it (§3)."""

    def __init__(
        self,
        inp: int,
        oup: int,
        stride: int,
        expand_ratio: float,
        norm_layer: Layer = BatchNorm,
        *,
        dilation: int = 1,
        rngs: nnx.Rngs,
    ):
        hidden = round(inp * expand_ratio)
        self.use_residual = stride == 1 and inp == oup
        layer = partial(ConvNormActivation, norm_layer=norm_layer, rngs=rngs)
        expand = [] if expand_ratio == 1 else [layer(inp, hidden, 1)]
        self.conv = Sequential(
            *expand,
            layer(hidden, hidden, 3, stride, groups=hidden, dilation=dilation),
            Conv(hidden, oup, 1, bias=False, kernel_init=fan_out, rngs=rngs),
            norm_layer(oup, rngs=rngs),
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.conv(x) if self.use_residual else self.conv(x)


class MobileNetV2(nnx.Module):
    """Images (N, H, W, in_channels) to logits (N, num_classes).

    Args:
      width_mult: scales the channels of every layer, rounded to multiples of `round_nearest`.
      inverted_residual_setting: expansion, channels, blocks and stride of every stage.
      block: builds a block, with the arguments of `InvertedResidual`.
      output_stride: how many times smaller than the image the features are at least; later strides become dilations.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        width_mult: float = 1.0,
        inverted_residual_setting: Sequence[Sequence[int]] = STAGES,
        round_nearest: int = 8,
        block: Layer = InvertedResidual,
        norm_layer: Layer = BatchNorm,
        dropout: float = 0.2,
        *,
        output_stride: int = 32,
        in_channels: int = 3,
        rngs: nnx.Rngs,
    ):
        channels = make_divisible(32 * width_mult, round_nearest)
        last = make_divisible(1280 * max(1.0, width_mult), round_nearest)
        layer = {"norm_layer": norm_layer, "rngs": rngs}
        features, total_stride, dilation = [ConvNormActivation(in_channels, channels, 3, 2, **layer)], 2, 1
        for expand_ratio, width, depth, stride in inverted_residual_setting:
            if total_stride * stride > output_stride:
                dilation, stride = dilation * stride, 1
            width, total_stride = make_divisible(width * width_mult, round_nearest), total_stride * stride
            for i in range(depth):
                arguments = channels, width, 1 if i else stride, expand_ratio
                features.append(block(*arguments, dilation=dilation, **layer))
                channels = width
        features.append(ConvNormActivation(channels, last, 1, **layer))
        self.features = Sequential(*features)
        self.classifier = Sequential(
            Dropout(dropout, rngs=rngs),
            linear(last, num_classes, rngs=rngs) if num_classes else Identity(),
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.classifier(flatten(adaptive_avg_pool(self.features(x), 1)))


@register_model(
    timm="mobilenetv2_100",
    head=("classifier.1",),
    tables=("timm.MOBILENET_V2",),
    paper="Sandler et al. 2018, https://arxiv.org/abs/1801.04381",
    weights={"IMAGENET1K_V2": imagenet(72.154, 90.822, 224, 232), "IMAGENET1K_V1": imagenet(71.878, 90.286)},
)
def mobilenet_v2(*, rngs: nnx.Rngs, **kwargs) -> MobileNetV2:
    return MobileNetV2(**kwargs, rngs=rngs)
