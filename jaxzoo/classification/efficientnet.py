"""EfficientNet and EfficientNetV2.

Tan and Le 2019, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks,
https://arxiv.org/abs/1905.11946; Tan and Le 2021, EfficientNetV2: Smaller Models and Faster Training,
https://arxiv.org/abs/2104.00298. Reference: torchvision.models.efficientnet.
"""

import math
from collections.abc import Sequence
from functools import partial

import jax
from flax import nnx

from jaxzoo.nn import (
    AdaptiveAvgPool,
    BatchNorm,
    Dropout,
    Identity,
    Layer,
    Linear,
    Sequential,
    SiLU,
    SqueezeExcitation,
    StochasticDepth,
    flatten,
    init,
    make_divisible,
)
from jaxzoo.nn import ConvNormActivation as TorchConvNormActivation
from jaxzoo.preprocess import Preprocess
from jaxzoo.registry import Published, imagenet, register_model

start = {"kernel_init": init.kaiming_normal("fan_out"), "bias_init": init.zeros}
ConvNormActivation = partial(TorchConvNormActivation, activation_layer=SiLU, **start)
LargeBatchNorm = partial(BatchNorm, eps=1e-3, momentum=0.01)
V2BatchNorm = partial(BatchNorm, eps=1e-3)


def classifier(in_features: int, num_classes: int, *, rngs: nnx.Rngs) -> Linear:
    """A Linear whose weights start in ±1 / sqrt(num_classes)."""
    bound = init.uniform(1 / math.sqrt(num_classes))
    return Linear(in_features, num_classes, kernel_init=bound, bias_init=init.zeros, rngs=rngs)


class MBConv(nnx.Module):
    """Expand, filter depthwise, squeeze and excite, project; a shortcut when the shape allows it (V1, §4)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int,
        expand_ratio: float,
        stochastic_depth_prob: float,
        norm_layer: Layer,
        *,
        rngs: nnx.Rngs,
    ):
        self.use_res_connect = stride == 1 and in_channels == out_channels
        layer = partial(ConvNormActivation, norm_layer=norm_layer, rngs=rngs)
        expanded = make_divisible(in_channels * expand_ratio)
        expand = [] if expanded == in_channels else [layer(in_channels, expanded, 1)]
        self.block = Sequential(
            *expand,
            layer(expanded, expanded, kernel, stride, groups=expanded),
            SqueezeExcitation(expanded, max(1, in_channels // 4), SiLU, **start, rngs=rngs),
            layer(expanded, out_channels, 1, activation_layer=None),
        )
        self.stochastic_depth = StochasticDepth(stochastic_depth_prob, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.stochastic_depth(self.block(x)) if self.use_res_connect else self.block(x)


class FusedMBConv(nnx.Module):
    """One dense convolution in place of expansion and depthwise filter, without squeeze-and-excitation (V2, §3.2)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int,
        expand_ratio: float,
        stochastic_depth_prob: float,
        norm_layer: Layer,
        *,
        rngs: nnx.Rngs,
    ):
        self.use_res_connect = stride == 1 and in_channels == out_channels
        layer = partial(ConvNormActivation, norm_layer=norm_layer, rngs=rngs)
        expanded = make_divisible(in_channels * expand_ratio)
        if expanded == in_channels:
            self.block = Sequential(layer(in_channels, out_channels, kernel, stride))
        else:
            self.block = Sequential(
                layer(in_channels, expanded, kernel, stride),
                layer(expanded, out_channels, 1, activation_layer=None),
            )
        self.stochastic_depth = StochasticDepth(stochastic_depth_prob, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.stochastic_depth(self.block(x)) if self.use_res_connect else self.block(x)


Setting = Sequence[tuple[type[MBConv | FusedMBConv], float, int, int, int, int]]

# Block, expansion, kernel, stride of the first block, channels, blocks.
B0 = (  # V1, table 1
    (MBConv, 1, 3, 1, 16, 1),
    (MBConv, 6, 3, 2, 24, 2),
    (MBConv, 6, 5, 2, 40, 2),
    (MBConv, 6, 3, 2, 80, 3),
    (MBConv, 6, 5, 1, 112, 3),
    (MBConv, 6, 5, 2, 192, 4),
    (MBConv, 6, 3, 1, 320, 1),
)
V2_S = (  # V2, table 4; the others are scaled from it
    (FusedMBConv, 1, 3, 1, 24, 2),
    (FusedMBConv, 4, 3, 2, 48, 4),
    (FusedMBConv, 4, 3, 2, 64, 4),
    (MBConv, 4, 3, 2, 128, 6),
    (MBConv, 6, 3, 1, 160, 9),
    (MBConv, 6, 3, 2, 256, 15),
)
V2_M = (
    (FusedMBConv, 1, 3, 1, 24, 3),
    (FusedMBConv, 4, 3, 2, 48, 5),
    (FusedMBConv, 4, 3, 2, 80, 5),
    (MBConv, 4, 3, 2, 160, 7),
    (MBConv, 6, 3, 1, 176, 14),
    (MBConv, 6, 3, 2, 304, 18),
    (MBConv, 6, 3, 1, 512, 5),
)
V2_L = (
    (FusedMBConv, 1, 3, 1, 32, 4),
    (FusedMBConv, 4, 3, 2, 64, 7),
    (FusedMBConv, 4, 3, 2, 96, 7),
    (MBConv, 4, 3, 2, 192, 10),
    (MBConv, 6, 3, 1, 224, 19),
    (MBConv, 6, 3, 2, 384, 25),
    (MBConv, 6, 3, 1, 640, 7),
)


class EfficientNet(nnx.Module):
    """Images (N, H, W, in_channels) to logits (N, num_classes).

    Args:
      inverted_residual_setting: block, expansion, kernel, stride, channels and number of blocks of every stage.
      first_channel, last_channel: channels of the first and of the last convolution.
      stochastic_depth_prob: what the rate of the blocks grows to, linearly from zero at the first.
    """

    def __init__(
        self,
        inverted_residual_setting: Setting,
        first_channel: int,
        last_channel: int,
        dropout: float,
        stochastic_depth_prob: float = 0.2,
        num_classes: int = 1000,
        norm_layer: Layer = BatchNorm,
        *,
        in_channels: int = 3,
        rngs: nnx.Rngs,
    ):
        channels, total, built = first_channel, sum(depth for *_, depth in inverted_residual_setting), 0
        features = [ConvNormActivation(in_channels, channels, 3, 2, norm_layer=norm_layer, rngs=rngs)]
        for block, expand_ratio, kernel, stride, width, depth in inverted_residual_setting:
            stage = []
            for i in range(depth):
                rate = stochastic_depth_prob * built / total
                stride = stride if i == 0 else 1
                stage.append(block(channels, width, kernel, stride, expand_ratio, rate, norm_layer, rngs=rngs))
                channels, built = width, built + 1
            features.append(Sequential(*stage))
        features.append(ConvNormActivation(channels, last_channel, 1, norm_layer=norm_layer, rngs=rngs))
        self.features = Sequential(*features)
        self.avgpool = AdaptiveAvgPool(1)
        self.classifier = Sequential(
            Dropout(dropout, rngs=rngs),
            classifier(last_channel, num_classes, rngs=rngs) if num_classes else Identity(),
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.classifier(flatten(self.avgpool(self.features(x))))


def scaled(width_mult: float, depth_mult: float, dropout: float, **kwargs) -> EfficientNet:
    """B0 with more channels in every layer and more blocks in every stage (V1, §3.3)."""
    setting = [(*row, make_divisible(c * width_mult), math.ceil(n * depth_mult)) for *row, c, n in B0]
    first, last = make_divisible(32 * width_mult), 4 * make_divisible(320 * width_mult)
    return EfficientNet(setting, first, last, dropout, **kwargs)


register_efficientnet = partial(
    register_model,
    head=("classifier.1",),
    tables=("timm.EFFICIENTNET",),
    paper="Tan and Le 2019, https://arxiv.org/abs/1905.11946",
)
register_efficientnet_v2 = partial(
    register_model,
    head=("classifier.1",),
    paper="Tan and Le 2021, https://arxiv.org/abs/2104.00298",
)


@register_efficientnet(timm="efficientnet_b0", weights={"IMAGENET1K_V1": imagenet(77.692, 93.532, 224, 256, "bicubic")})
def efficientnet_b0(*, dropout: float = 0.2, rngs: nnx.Rngs, **kwargs) -> EfficientNet:
    return scaled(1.0, 1.0, dropout, **kwargs, rngs=rngs)


@register_efficientnet(
    timm="efficientnet_b1",
    input_size=240,
    weights={
        "IMAGENET1K_V2": imagenet(79.838, 94.934, 240, 255),
        "IMAGENET1K_V1": imagenet(78.642, 94.186, 240, 256, "bicubic"),
    },
)
def efficientnet_b1(*, dropout: float = 0.2, rngs: nnx.Rngs, **kwargs) -> EfficientNet:
    return scaled(1.0, 1.1, dropout, **kwargs, rngs=rngs)


@register_efficientnet(
    timm="efficientnet_b2", input_size=288, weights={"IMAGENET1K_V1": imagenet(80.608, 95.31, 288, 288, "bicubic")}
)
def efficientnet_b2(*, dropout: float = 0.3, rngs: nnx.Rngs, **kwargs) -> EfficientNet:
    return scaled(1.1, 1.2, dropout, **kwargs, rngs=rngs)


@register_efficientnet(
    timm="efficientnet_b3", input_size=300, weights={"IMAGENET1K_V1": imagenet(82.008, 96.054, 300, 320, "bicubic")}
)
def efficientnet_b3(*, dropout: float = 0.3, rngs: nnx.Rngs, **kwargs) -> EfficientNet:
    return scaled(1.2, 1.4, dropout, **kwargs, rngs=rngs)


@register_efficientnet(
    timm="efficientnet_b4", input_size=380, weights={"IMAGENET1K_V1": imagenet(83.384, 96.594, 380, 384, "bicubic")}
)
def efficientnet_b4(*, dropout: float = 0.4, rngs: nnx.Rngs, **kwargs) -> EfficientNet:
    return scaled(1.4, 1.8, dropout, **kwargs, rngs=rngs)


@register_efficientnet(input_size=456, weights={"IMAGENET1K_V1": imagenet(83.444, 96.628, 456, 456, "bicubic")})
def efficientnet_b5(
    *, dropout: float = 0.4, norm_layer: Layer = LargeBatchNorm, rngs: nnx.Rngs, **kwargs
) -> EfficientNet:
    return scaled(1.6, 2.2, dropout, norm_layer=norm_layer, **kwargs, rngs=rngs)


@register_efficientnet(input_size=528, weights={"IMAGENET1K_V1": imagenet(84.008, 96.916, 528, 528, "bicubic")})
def efficientnet_b6(
    *, dropout: float = 0.5, norm_layer: Layer = LargeBatchNorm, rngs: nnx.Rngs, **kwargs
) -> EfficientNet:
    return scaled(1.8, 2.6, dropout, norm_layer=norm_layer, **kwargs, rngs=rngs)


@register_efficientnet(input_size=600, weights={"IMAGENET1K_V1": imagenet(84.122, 96.908, 600, 600, "bicubic")})
def efficientnet_b7(
    *, dropout: float = 0.5, norm_layer: Layer = LargeBatchNorm, rngs: nnx.Rngs, **kwargs
) -> EfficientNet:
    return scaled(2.0, 3.1, dropout, norm_layer=norm_layer, **kwargs, rngs=rngs)


@register_efficientnet_v2(input_size=384, weights={"IMAGENET1K_V1": imagenet(84.228, 96.878, 384, 384)})
def efficientnet_v2_s(
    *, dropout: float = 0.2, norm_layer: Layer = V2BatchNorm, rngs: nnx.Rngs, **kwargs
) -> EfficientNet:
    return EfficientNet(V2_S, 24, 1280, dropout, norm_layer=norm_layer, **kwargs, rngs=rngs)


@register_efficientnet_v2(input_size=480, weights={"IMAGENET1K_V1": imagenet(85.112, 97.156, 480, 480)})
def efficientnet_v2_m(
    *, dropout: float = 0.3, norm_layer: Layer = V2BatchNorm, rngs: nnx.Rngs, **kwargs
) -> EfficientNet:
    return EfficientNet(V2_M, 24, 1280, dropout, norm_layer=norm_layer, **kwargs, rngs=rngs)


@register_efficientnet_v2(
    input_size=480,
    weights={
        "IMAGENET1K_V1": Published(
            Preprocess(480, 480, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), {"acc@1": 85.808, "acc@5": 97.788}
        )
    },
)
def efficientnet_v2_l(
    *, dropout: float = 0.4, norm_layer: Layer = V2BatchNorm, rngs: nnx.Rngs, **kwargs
) -> EfficientNet:
    return EfficientNet(V2_L, 32, 1280, dropout, norm_layer=norm_layer, **kwargs, rngs=rngs)
