"""EfficientNet-Lite.

EfficientNet (Tan and Le 2019, https://arxiv.org/abs/1905.11946) for quantised inference: without
squeeze-and-excitation, with ReLU6, and a stem and head that do not grow; Liu 2020,
https://blog.tensorflow.org/2020/03/higher-accuracy-on-vision-models-with-efficientnet-lite.html.
Reference: timm.models.efficientnet, tf_efficientnet_lite0 to 4, which pad as TensorFlow does.
"""

import math
from functools import partial

import jax
import numpy as np
from flax import nnx

from jaxzoo.classification import mobilenetv1
from jaxzoo.classification.efficientnet import B0, classifier
from jaxzoo.nn import (
    AdaptiveAvgPool,
    BatchNormAct,
    Dropout,
    Flatten,
    Identity,
    NamedSequential,
    ReLU6,
    Sequential,
    StochasticDepth,
    make_divisible,
)
from jaxzoo.preprocess import Preprocess
from jaxzoo.registry import Published, register_model

conv = partial(mobilenetv1.conv, padding="SAME")
depthwise = partial(mobilenetv1.depthwise, padding="SAME")
norm = partial(BatchNormAct, eps=1e-3, activation_layer=ReLU6)

# timm's names of a block's layers, without expansion and with it.
SEPARABLE = ("conv_dw", "bn1", "conv_pw", "bn2")
INVERTED = ("conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3")


class InvertedResidual(NamedSequential):
    """Expand, filter depthwise, project without activation; a shortcut when the shape allows it (MobileNetV2, §3)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        expand_ratio: int,
        drop_path_rate: float,
        *,
        rngs: nnx.Rngs,
    ):
        hidden = make_divisible(in_channels * expand_ratio)
        layers = [] if expand_ratio == 1 else [conv(in_channels, hidden, 1, rngs=rngs), norm(hidden, rngs=rngs)]
        layers += [
            depthwise(hidden, hidden, kernel_size, stride, groups=hidden, rngs=rngs),
            norm(hidden, rngs=rngs),
            conv(hidden, out_channels, 1, rngs=rngs),
            norm(out_channels, activation_layer=None, rngs=rngs),
        ]
        names = SEPARABLE if expand_ratio == 1 else INVERTED
        super().__init__(**dict(zip(names, layers, strict=True)))
        self.has_skip = stride == 1 and in_channels == out_channels
        self.drop_path = StochasticDepth(drop_path_rate, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = super().__call__(x)
        return x + self.drop_path(y) if self.has_skip else y


class EfficientNetLite(nnx.Module):
    """Images (N, H, W, in_channels) to logits (N, num_classes).

    Args:
      width_mult, depth_mult: scale the channels of every stage, and the blocks of all but the first and the last.
      drop_rate: dropout before the classifier.
      drop_path_rate: rate of stochastic depth after the last block; it grows linearly from zero at the first.
    """

    def __init__(
        self,
        width_mult: float,
        depth_mult: float,
        num_classes: int = 1000,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        *,
        in_channels: int = 3,
        rngs: nnx.Rngs,
    ):
        self.conv_stem = conv(in_channels, 32, 3, 2, rngs=rngs)
        self.bn1 = norm(32, rngs=rngs)
        depths = [depth if i in (0, 6) else math.ceil(depth * depth_mult) for i, (*_, depth) in enumerate(B0)]
        rates = iter(np.arange(sum(depths)) * drop_path_rate / sum(depths))
        channels, stages = 32, []
        for (expand_ratio, kernel_size, stride, _, width, _), depth in zip(B0, depths, strict=True):
            width, blocks = make_divisible(width * width_mult), []
            for i in range(depth):
                arguments = channels, width, kernel_size, 1 if i else stride, expand_ratio, float(next(rates))
                blocks.append(InvertedResidual(*arguments, rngs=rngs))
                channels = width
            stages.append(Sequential(*blocks))
        self.blocks = Sequential(*stages)
        self.conv_head = conv(channels, 1280, 1, rngs=rngs)
        self.bn2 = norm(1280, rngs=rngs)
        self.global_pool = NamedSequential(pool=AdaptiveAvgPool(1), flatten=Flatten())
        self.dropout = Dropout(drop_rate, rngs=rngs)
        self.classifier = classifier(1280, num_classes, rngs=rngs) if num_classes else Identity()

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.bn2(self.conv_head(self.blocks(self.bn1(self.conv_stem(x)))))
        return self.classifier(self.dropout(self.global_pool(x)))


def register_efficientnet_lite(number: int, size: int, resize: int, interpolation: str, acc1: float, acc5: float):
    """Registers a network of timm's: evaluation's crop, the size before it, and the accuracy that timm measured."""
    preprocess = Preprocess(size, resize, interpolation, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return register_model(
        head=("classifier",),
        paper="Tan and Le 2019, https://arxiv.org/abs/1905.11946",
        twin=f"timm:tf_efficientnet_lite{number}",
        input_size=size,
        weights={"in1k": Published(preprocess, {"acc@1": acc1, "acc@5": acc5})},
    )


@register_efficientnet_lite(0, 224, 256, "bicubic", 74.83, 92.172)
def efficientnet_lite0(*, rngs: nnx.Rngs, **kwargs) -> EfficientNetLite:
    return EfficientNetLite(1.0, 1.0, **kwargs, rngs=rngs)


@register_efficientnet_lite(1, 240, 272, "bicubic", 76.644, 93.23)
def efficientnet_lite1(*, rngs: nnx.Rngs, **kwargs) -> EfficientNetLite:
    return EfficientNetLite(1.0, 1.1, **kwargs, rngs=rngs)


@register_efficientnet_lite(2, 260, 292, "bicubic", 77.464, 93.75)
def efficientnet_lite2(*, rngs: nnx.Rngs, **kwargs) -> EfficientNetLite:
    return EfficientNetLite(1.1, 1.2, **kwargs, rngs=rngs)


@register_efficientnet_lite(3, 300, 331, "bilinear", 79.808, 94.912)
def efficientnet_lite3(*, rngs: nnx.Rngs, **kwargs) -> EfficientNetLite:
    return EfficientNetLite(1.2, 1.4, **kwargs, rngs=rngs)


@register_efficientnet_lite(4, 380, 413, "bilinear", 81.532, 95.664)
def efficientnet_lite4(*, rngs: nnx.Rngs, **kwargs) -> EfficientNetLite:
    return EfficientNetLite(1.4, 1.8, **kwargs, rngs=rngs)
