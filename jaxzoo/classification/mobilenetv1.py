"""MobileNet (V1).

Howard et al. 2017, MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications,
https://arxiv.org/abs/1704.04861. Reference: timm.models.efficientnet, mobilenetv1_100 and mobilenetv1_125.
"""

from functools import partial

import jax
from flax import nnx

from jaxzoo.classification.efficientnet import classifier
from jaxzoo.nn import (
    AdaptiveAvgPool,
    BatchNormAct,
    Conv,
    Dropout,
    Identity,
    NamedSequential,
    ReLU6,
    Sequential,
    flatten,
    init,
    make_divisible,
)
from jaxzoo.preprocess import Preprocess
from jaxzoo.registry import Published, register_model

conv = partial(Conv, bias=False, kernel_init=init.kaiming_normal("fan_out"))
# timm divides a kernel's fan-out by its groups, which makes that of a depthwise one its fan-in.
depthwise = partial(Conv, bias=False, kernel_init=init.kaiming_normal("fan_in"))
norm = partial(BatchNormAct, activation_layer=ReLU6)

# Table 1: channels of the blocks; the first block of every stage but the first has stride 2.
STAGES = ((64,), (128,) * 2, (256,) * 2, (512,) * 6, (1024,) * 2)


def depthwise_separable(in_channels: int, out_channels: int, stride: int, rngs: nnx.Rngs) -> NamedSequential:
    """Depthwise 3×3, then 1×1, both with batch norm and ReLU (figure 3)."""
    return NamedSequential(
        conv_dw=depthwise(in_channels, in_channels, 3, stride, 1, groups=in_channels, rngs=rngs),
        bn1=norm(in_channels, rngs=rngs),
        conv_pw=conv(in_channels, out_channels, 1, rngs=rngs),
        bn2=norm(out_channels, rngs=rngs),
    )


class MobileNetV1(nnx.Module):
    """Images (N, H, W, in_channels) to logits (N, num_classes).

    Args:
      channel_multiplier: scales the channels of every layer, rounded to multiples of 8 (§3.3).
      drop_rate: dropout before the classifier.
    """

    def __init__(
        self,
        channel_multiplier: float = 1.0,
        num_classes: int = 1000,
        drop_rate: float = 0.0,
        *,
        in_channels: int = 3,
        rngs: nnx.Rngs,
    ):
        channels = make_divisible(32 * channel_multiplier)
        self.conv_stem = conv(in_channels, channels, 3, 2, 1, rngs=rngs)
        self.bn1 = norm(channels, rngs=rngs)
        stages = []
        for i, widths in enumerate(STAGES):
            blocks = []
            for j, width in enumerate(widths):
                width = make_divisible(width * channel_multiplier)
                blocks.append(depthwise_separable(channels, width, 2 if i > 0 and j == 0 else 1, rngs))
                channels = width
            stages.append(Sequential(*blocks))
        self.blocks = Sequential(*stages)
        self.avgpool = AdaptiveAvgPool(1)
        self.dropout = Dropout(drop_rate, rngs=rngs)
        self.classifier = classifier(channels, num_classes, rngs=rngs) if num_classes else Identity()

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.blocks(self.bn1(self.conv_stem(x)))
        return self.classifier(self.dropout(flatten(self.avgpool(x))))


def register_mobilenet_v1(width: str, resize: int, acc1: float, acc5: float):
    preprocess = Preprocess(224, resize, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return register_model(
        head=("classifier",),
        paper="Howard et al. 2017, https://arxiv.org/abs/1704.04861",
        twin=f"timm:mobilenetv1_{width}",
        weights={"ra4_e3600_r224_in1k": Published(preprocess, {"acc@1": acc1, "acc@5": acc5})},
    )


@register_mobilenet_v1("100", 256, 75.382, 92.312)
def mobilenetv1_100(*, rngs: nnx.Rngs, **kwargs) -> MobileNetV1:
    return MobileNetV1(**kwargs, rngs=rngs)


@register_mobilenet_v1("125", 248, 76.924, 93.234)
def mobilenetv1_125(*, rngs: nnx.Rngs, **kwargs) -> MobileNetV1:
    return MobileNetV1(**{"channel_multiplier": 1.25, **kwargs}, rngs=rngs)
