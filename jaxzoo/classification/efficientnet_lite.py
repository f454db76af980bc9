"""EfficientNet-Lite.

EfficientNet (Tan and Le 2019, https://arxiv.org/abs/1905.11946) for quantised inference: without
squeeze-and-excitation, with ReLU6, and a stem and head that do not grow; Liu 2020,
https://blog.tensorflow.org/2020/03/higher-accuracy-on-vision-models-with-efficientnet-lite.html.
Reference: timm.models.efficientnet, tf_efficientnet_lite0 to 4, which pad as TensorFlow does.
"""

import math
from functools import partial

import jax
from flax import nnx

from jaxzoo.classification.efficientnet import B0
from jaxzoo.classification.mobilenetv2 import make_divisible
from jaxzoo.nn import (
    AdaptiveAvgPool,
    BatchNorm,
    Conv,
    Dropout,
    Layer,
    Linear,
    Sequential,
    StochasticDepth,
    flatten,
    init,
    relu6,
)
from jaxzoo.preprocess import Preprocess
from jaxzoo.registry import Published, register_model

conv = partial(Conv, padding="SAME", bias=False, kernel_init=init.kaiming_normal("fan_out"))
# The outputs of one weight are counted within its group: of a depthwise kernel as many as its inputs.
depthwise = partial(Conv, padding="SAME", bias=False, kernel_init=init.kaiming_normal("fan_in"))
TensorFlowBatchNorm = partial(BatchNorm, eps=1e-3)


class DepthwiseSeparableConv(nnx.Module):
    """Filter depthwise, project without activation; a shortcut when the shape allows it."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        drop_path_rate: float,
        norm_layer: Layer,
        *,
        rngs: nnx.Rngs,
    ):
        self.has_skip = stride == 1 and in_channels == out_channels
        self.conv_dw = depthwise(in_channels, in_channels, kernel_size, stride, groups=in_channels, rngs=rngs)
        self.bn1 = norm_layer(in_channels, rngs=rngs)
        self.conv_pw = conv(in_channels, out_channels, 1, rngs=rngs)
        self.bn2 = norm_layer(out_channels, rngs=rngs)
        self.drop_path = StochasticDepth(drop_path_rate, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = relu6(self.bn1(self.conv_dw(x)))
        y = self.bn2(self.conv_pw(y))
        return x + self.drop_path(y) if self.has_skip else y


class InvertedResidual(nnx.Module):
    """Expand, filter depthwise, project without activation; a shortcut when the shape allows it."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        drop_path_rate: float,
        norm_layer: Layer,
        expand_ratio: int,
        *,
        rngs: nnx.Rngs,
    ):
        hidden = make_divisible(in_channels * expand_ratio)
        self.has_skip = stride == 1 and in_channels == out_channels
        self.conv_pw = conv(in_channels, hidden, 1, rngs=rngs)
        self.bn1 = norm_layer(hidden, rngs=rngs)
        self.conv_dw = depthwise(hidden, hidden, kernel_size, stride, groups=hidden, rngs=rngs)
        self.bn2 = norm_layer(hidden, rngs=rngs)
        self.conv_pwl = conv(hidden, out_channels, 1, rngs=rngs)
        self.bn3 = norm_layer(out_channels, rngs=rngs)
        self.drop_path = StochasticDepth(drop_path_rate, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = relu6(self.bn1(self.conv_pw(x)))
        y = relu6(self.bn2(self.conv_dw(y)))
        y = self.bn3(self.conv_pwl(y))
        return x + self.drop_path(y) if self.has_skip else y


class EfficientNetLite(nnx.Module):
    """Images (N, H, W, 3) to logits (N, num_classes).

    Args:
      width_mult, depth_mult: scale the channels of every stage, and the blocks of all but the first and the last.
      drop_rate: dropout before the classifier.
      drop_path_rate: what the blocks' rate of stochastic depth grows to, linearly from zero at the first.
    """

    def __init__(
        self,
        width_mult: float,
        depth_mult: float,
        num_classes: int = 1000,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        norm_layer: Layer = TensorFlowBatchNorm,
        *,
        rngs: nnx.Rngs,
    ):
        self.conv_stem = conv(3, 32, 3, 2, rngs=rngs)
        self.bn1 = norm_layer(32, rngs=rngs)
        depths = [depth if i in (0, 6) else math.ceil(depth * depth_mult) for i, (*_, depth) in enumerate(B0)]
        channels, built, stages = 32, 0, []
        for (_, expand_ratio, kernel_size, stride, width, _), depth in zip(B0, depths, strict=True):
            width, stage = make_divisible(width * width_mult), []
            for i in range(depth):
                rate = drop_path_rate * built / sum(depths)
                arguments = channels, width, kernel_size, 1 if i else stride, rate, norm_layer
                if expand_ratio == 1:
                    stage.append(DepthwiseSeparableConv(*arguments, rngs=rngs))
                else:
                    stage.append(InvertedResidual(*arguments, expand_ratio, rngs=rngs))
                channels, built = width, built + 1
            stages.append(Sequential(*stage))
        self.blocks = Sequential(*stages)
        self.conv_head = conv(channels, 1280, 1, rngs=rngs)
        self.bn2 = norm_layer(1280, rngs=rngs)
        self.global_pool = AdaptiveAvgPool(1)
        self.dropout = Dropout(drop_rate, rngs=rngs)
        bound = init.uniform(1 / math.sqrt(num_classes))
        self.classifier = Linear(1280, num_classes, kernel_init=bound, bias_init=init.zeros, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.blocks(relu6(self.bn1(self.conv_stem(x))))
        x = relu6(self.bn2(self.conv_head(x)))
        return self.classifier(self.dropout(flatten(self.global_pool(x))))


def model(number: int, size: int, resize: int, interpolation: str):
    """Registers EfficientNet-Lite0 to 4: size of the images, and to what size evaluation resizes them before."""
    return register_model(
        paper="Tan and Le 2019, https://arxiv.org/abs/1905.11946",
        twin=f"timm:tf_efficientnet_lite{number}",
        input_size=size,
        weights={"in1k": Published(Preprocess(size, resize, interpolation, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))},
    )


@model(0, 224, 256, "bicubic")
def efficientnet_lite0(*, rngs: nnx.Rngs, **kwargs) -> EfficientNetLite:
    return EfficientNetLite(1.0, 1.0, **kwargs, rngs=rngs)


@model(1, 240, 272, "bicubic")
def efficientnet_lite1(*, rngs: nnx.Rngs, **kwargs) -> EfficientNetLite:
    return EfficientNetLite(1.0, 1.1, **kwargs, rngs=rngs)


@model(2, 260, 292, "bicubic")
def efficientnet_lite2(*, rngs: nnx.Rngs, **kwargs) -> EfficientNetLite:
    return EfficientNetLite(1.1, 1.2, **kwargs, rngs=rngs)


@model(3, 300, 331, "bilinear")
def efficientnet_lite3(*, rngs: nnx.Rngs, **kwargs) -> EfficientNetLite:
    return EfficientNetLite(1.2, 1.4, **kwargs, rngs=rngs)


@model(4, 380, 413, "bilinear")
def efficientnet_lite4(*, rngs: nnx.Rngs, **kwargs) -> EfficientNetLite:
    return EfficientNetLite(1.4, 1.8, **kwargs, rngs=rngs)
