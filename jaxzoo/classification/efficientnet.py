"""EfficientNet and EfficientNetV2.

Tan and Le 2019, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks,
https://arxiv.org/abs/1905.11946; Tan and Le 2021, EfficientNetV2: Smaller Models and Faster Training,
https://arxiv.org/abs/2104.00298. Reference: torchvision.models.efficientnet.
"""

import dataclasses
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

initialisers = {"kernel_init": init.kaiming_normal("fan_out"), "bias_init": init.zeros}
ConvNormActivation = partial(TorchConvNormActivation, activation_layer=SiLU, **initialisers)
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
        cnf: "MBConvConfig",
        stochastic_depth_prob: float,
        norm_layer: Layer,
        se_layer: Layer = SqueezeExcitation,
        *,
        rngs: nnx.Rngs,
    ):
        channels, expanded = cnf.input_channels, make_divisible(cnf.input_channels * cnf.expand_ratio)
        self.use_res_connect = cnf.stride == 1 and channels == cnf.out_channels
        layer = partial(ConvNormActivation, norm_layer=norm_layer, rngs=rngs)
        expand = [] if expanded == channels else [layer(channels, expanded, 1)]
        self.block = Sequential(
            *expand,
            layer(expanded, expanded, cnf.kernel, cnf.stride, groups=expanded),
            se_layer(expanded, max(1, channels // 4), SiLU, **initialisers, rngs=rngs),
            layer(expanded, cnf.out_channels, 1, activation_layer=None),
        )
        self.stochastic_depth = StochasticDepth(stochastic_depth_prob, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.stochastic_depth(self.block(x)) if self.use_res_connect else self.block(x)


class FusedMBConv(nnx.Module):
    """One dense convolution in place of expansion and depthwise filter, without squeeze-and-excitation (V2, §3.2)."""

    def __init__(self, cnf: "FusedMBConvConfig", stochastic_depth_prob: float, norm_layer: Layer, *, rngs: nnx.Rngs):
        channels, expanded = cnf.input_channels, make_divisible(cnf.input_channels * cnf.expand_ratio)
        self.use_res_connect = cnf.stride == 1 and channels == cnf.out_channels
        layer = partial(ConvNormActivation, norm_layer=norm_layer, rngs=rngs)
        if expanded == channels:
            self.block = Sequential(layer(channels, cnf.out_channels, cnf.kernel, cnf.stride))
        else:
            self.block = Sequential(
                layer(channels, expanded, cnf.kernel, cnf.stride),
                layer(expanded, cnf.out_channels, 1, activation_layer=None),
            )
        self.stochastic_depth = StochasticDepth(stochastic_depth_prob, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.stochastic_depth(self.block(x)) if self.use_res_connect else self.block(x)


@dataclasses.dataclass
class MBConvConfig:
    """A stage of MBConv blocks. Channels are rounded to multiples of 8.

    Args:
      stride: of the first block.
      input_channels, out_channels: before and after the stage, at a `width_mult` of 1.
      num_layers: blocks, at a `depth_mult` of 1; rounded up.
      block: builds a block, with the arguments of `MBConv`.
    """

    expand_ratio: float
    kernel: int
    stride: int
    input_channels: int
    out_channels: int
    num_layers: int
    width_mult: dataclasses.InitVar[float] = 1.0
    depth_mult: dataclasses.InitVar[float] = 1.0
    block: Layer = MBConv

    def __post_init__(self, width_mult: float, depth_mult: float):
        self.input_channels = make_divisible(self.input_channels * width_mult)
        self.out_channels = make_divisible(self.out_channels * width_mult)
        self.num_layers = math.ceil(self.num_layers * depth_mult)


@dataclasses.dataclass
class FusedMBConvConfig:
    """A stage of FusedMBConv blocks; see `MBConvConfig`."""

    expand_ratio: float
    kernel: int
    stride: int
    input_channels: int
    out_channels: int
    num_layers: int
    block: Layer = FusedMBConv


# Expansion, kernel, stride of the first block, channels before and after, blocks.
B0 = (  # V1, table 1
    (1, 3, 1, 32, 16, 1),
    (6, 3, 2, 16, 24, 2),
    (6, 5, 2, 24, 40, 2),
    (6, 3, 2, 40, 80, 3),
    (6, 5, 1, 80, 112, 3),
    (6, 5, 2, 112, 192, 4),
    (6, 3, 1, 192, 320, 1),
)
V2_S = (  # V2, table 4; the others are scaled from it
    FusedMBConvConfig(1, 3, 1, 24, 24, 2),
    FusedMBConvConfig(4, 3, 2, 24, 48, 4),
    FusedMBConvConfig(4, 3, 2, 48, 64, 4),
    MBConvConfig(4, 3, 2, 64, 128, 6),
    MBConvConfig(6, 3, 1, 128, 160, 9),
    MBConvConfig(6, 3, 2, 160, 256, 15),
)
V2_M = (
    FusedMBConvConfig(1, 3, 1, 24, 24, 3),
    FusedMBConvConfig(4, 3, 2, 24, 48, 5),
    FusedMBConvConfig(4, 3, 2, 48, 80, 5),
    MBConvConfig(4, 3, 2, 80, 160, 7),
    MBConvConfig(6, 3, 1, 160, 176, 14),
    MBConvConfig(6, 3, 2, 176, 304, 18),
    MBConvConfig(6, 3, 1, 304, 512, 5),
)
V2_L = (
    FusedMBConvConfig(1, 3, 1, 32, 32, 4),
    FusedMBConvConfig(4, 3, 2, 32, 64, 7),
    FusedMBConvConfig(4, 3, 2, 64, 96, 7),
    MBConvConfig(4, 3, 2, 96, 192, 10),
    MBConvConfig(6, 3, 1, 192, 224, 19),
    MBConvConfig(6, 3, 2, 224, 384, 25),
    MBConvConfig(6, 3, 1, 384, 640, 7),
)


class EfficientNet(nnx.Module):
    """Images (N, H, W, in_channels) to logits (N, num_classes).

    Args:
      inverted_residual_setting: the stages.
      stochastic_depth_prob: the rate after the last block; it grows linearly from zero at the first.
      last_channel: channels of the last convolution; four times those before it unless given.
    """

    def __init__(
        self,
        inverted_residual_setting: Sequence[MBConvConfig | FusedMBConvConfig],
        dropout: float,
        stochastic_depth_prob: float = 0.2,
        num_classes: int = 1000,
        norm_layer: Layer = BatchNorm,
        last_channel: int | None = None,
        *,
        in_channels: int = 3,
        rngs: nnx.Rngs,
    ):
        layer = partial(ConvNormActivation, norm_layer=norm_layer, rngs=rngs)
        features = [layer(in_channels, inverted_residual_setting[0].input_channels, 3, 2)]
        built, total = 0, sum(stage.num_layers for stage in inverted_residual_setting)
        for cnf in inverted_residual_setting:
            stage, further = [], {"input_channels": cnf.out_channels, "stride": 1}
            for i in range(cnf.num_layers):
                block = dataclasses.replace(cnf, **further) if i else cnf
                stage.append(cnf.block(block, stochastic_depth_prob * built / total, norm_layer, rngs=rngs))
                built += 1
            features.append(Sequential(*stage))
        last_channel = last_channel or 4 * cnf.out_channels
        features.append(layer(cnf.out_channels, last_channel, 1))
        self.features = Sequential(*features)
        self.avgpool = AdaptiveAvgPool(1)
        self.classifier = Sequential(
            Dropout(dropout, rngs=rngs),
            classifier(last_channel, num_classes, rngs=rngs) if num_classes else Identity(),
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.classifier(flatten(self.avgpool(self.features(x))))


def scaled(width_mult: float, depth_mult: float) -> list[MBConvConfig]:
    """B0 with more channels in every layer and more blocks in every stage (V1, §3.3)."""
    return [MBConvConfig(*stage, width_mult, depth_mult) for stage in B0]


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
    return EfficientNet(scaled(1.0, 1.0), dropout, **kwargs, rngs=rngs)


@register_efficientnet(
    timm="efficientnet_b1",
    input_size=240,
    weights={
        "IMAGENET1K_V2": imagenet(79.838, 94.934, 240, 255),
        "IMAGENET1K_V1": imagenet(78.642, 94.186, 240, 256, "bicubic"),
    },
)
def efficientnet_b1(*, dropout: float = 0.2, rngs: nnx.Rngs, **kwargs) -> EfficientNet:
    return EfficientNet(scaled(1.0, 1.1), dropout, **kwargs, rngs=rngs)


@register_efficientnet(
    timm="efficientnet_b2", input_size=288, weights={"IMAGENET1K_V1": imagenet(80.608, 95.31, 288, 288, "bicubic")}
)
def efficientnet_b2(*, dropout: float = 0.3, rngs: nnx.Rngs, **kwargs) -> EfficientNet:
    return EfficientNet(scaled(1.1, 1.2), dropout, **kwargs, rngs=rngs)


@register_efficientnet(
    timm="efficientnet_b3", input_size=300, weights={"IMAGENET1K_V1": imagenet(82.008, 96.054, 300, 320, "bicubic")}
)
def efficientnet_b3(*, dropout: float = 0.3, rngs: nnx.Rngs, **kwargs) -> EfficientNet:
    return EfficientNet(scaled(1.2, 1.4), dropout, **kwargs, rngs=rngs)


@register_efficientnet(
    timm="efficientnet_b4", input_size=380, weights={"IMAGENET1K_V1": imagenet(83.384, 96.594, 380, 384, "bicubic")}
)
def efficientnet_b4(*, dropout: float = 0.4, rngs: nnx.Rngs, **kwargs) -> EfficientNet:
    return EfficientNet(scaled(1.4, 1.8), dropout, **kwargs, rngs=rngs)


@register_efficientnet(input_size=456, weights={"IMAGENET1K_V1": imagenet(83.444, 96.628, 456, 456, "bicubic")})
def efficientnet_b5(
    *, dropout: float = 0.4, norm_layer: Layer = LargeBatchNorm, rngs: nnx.Rngs, **kwargs
) -> EfficientNet:
    return EfficientNet(scaled(1.6, 2.2), dropout, norm_layer=norm_layer, **kwargs, rngs=rngs)


@register_efficientnet(input_size=528, weights={"IMAGENET1K_V1": imagenet(84.008, 96.916, 528, 528, "bicubic")})
def efficientnet_b6(
    *, dropout: float = 0.5, norm_layer: Layer = LargeBatchNorm, rngs: nnx.Rngs, **kwargs
) -> EfficientNet:
    return EfficientNet(scaled(1.8, 2.6), dropout, norm_layer=norm_layer, **kwargs, rngs=rngs)


@register_efficientnet(input_size=600, weights={"IMAGENET1K_V1": imagenet(84.122, 96.908, 600, 600, "bicubic")})
def efficientnet_b7(
    *, dropout: float = 0.5, norm_layer: Layer = LargeBatchNorm, rngs: nnx.Rngs, **kwargs
) -> EfficientNet:
    return EfficientNet(scaled(2.0, 3.1), dropout, norm_layer=norm_layer, **kwargs, rngs=rngs)


@register_efficientnet_v2(input_size=384, weights={"IMAGENET1K_V1": imagenet(84.228, 96.878, 384, 384)})
def efficientnet_v2_s(
    *, dropout: float = 0.2, norm_layer: Layer = V2BatchNorm, last_channel: int = 1280, rngs: nnx.Rngs, **kwargs
) -> EfficientNet:
    return EfficientNet(V2_S, dropout, norm_layer=norm_layer, last_channel=last_channel, **kwargs, rngs=rngs)


@register_efficientnet_v2(input_size=480, weights={"IMAGENET1K_V1": imagenet(85.112, 97.156, 480, 480)})
def efficientnet_v2_m(
    *, dropout: float = 0.3, norm_layer: Layer = V2BatchNorm, last_channel: int = 1280, rngs: nnx.Rngs, **kwargs
) -> EfficientNet:
    return EfficientNet(V2_M, dropout, norm_layer=norm_layer, last_channel=last_channel, **kwargs, rngs=rngs)


@register_efficientnet_v2(
    input_size=480,
    weights={
        "IMAGENET1K_V1": Published(
            Preprocess(480, 480, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), {"acc@1": 85.808, "acc@5": 97.788}
        )
    },
)
def efficientnet_v2_l(
    *, dropout: float = 0.4, norm_layer: Layer = V2BatchNorm, last_channel: int = 1280, rngs: nnx.Rngs, **kwargs
) -> EfficientNet:
    return EfficientNet(V2_L, dropout, norm_layer=norm_layer, last_channel=last_channel, **kwargs, rngs=rngs)
