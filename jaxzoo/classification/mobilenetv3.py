"""MobileNetV3.

Howard et al. 2019, Searching for MobileNetV3, https://arxiv.org/abs/1905.02244.
Reference: torchvision.models.mobilenetv3.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

import jax
from flax import nnx

from jaxzoo.nn import (
    AdaptiveAvgPool,
    BatchNorm,
    Dropout,
    Hardsigmoid,
    Hardswish,
    Identity,
    Layer,
    Linear,
    ReLU,
    Sequential,
    SqueezeExcitation,
    flatten,
    init,
    make_divisible,
)
from jaxzoo.nn import ConvNormActivation as TorchConvNormActivation
from jaxzoo.registry import imagenet, register_model

fan_out = init.kaiming_normal("fan_out")
ConvNormActivation = partial(TorchConvNormActivation, kernel_init=fan_out)
linear = partial(Linear, kernel_init=init.normal(0.01), bias_init=init.zeros)
PaperBatchNorm = partial(BatchNorm, eps=1e-3, momentum=0.01)
HardSqueezeExcitation = partial(SqueezeExcitation, scale_activation=Hardsigmoid)

ACTIVATIONS = {"RE": ReLU, "HS": Hardswish}


@dataclasses.dataclass
class InvertedResidualConfig:
    """A block; channels are those at a `width_mult` of 1, scaled and rounded to multiples of 8.

    Args:
      use_se: whether it squeezes and excites.
      activation: "RE" for ReLU, "HS" for h-swish.
      dilation: if over 1, in place of the stride.
    """

    input_channels: int
    kernel: int
    expanded_channels: int
    out_channels: int
    use_se: bool
    activation: str
    stride: int
    dilation: int
    width_mult: dataclasses.InitVar[float]

    def __post_init__(self, width_mult: float):
        for name in ("input_channels", "expanded_channels", "out_channels"):
            setattr(self, name, make_divisible(getattr(self, name) * width_mult))


class InvertedResidual(nnx.Module):
    """Expand, filter depthwise, squeeze and excite, project; a shortcut when the shape allows it (§5)."""

    def __init__(
        self,
        cnf: InvertedResidualConfig,
        norm_layer: Layer,
        se_layer: Layer = HardSqueezeExcitation,
        *,
        rngs: nnx.Rngs,
    ):
        channels, expanded = cnf.input_channels, cnf.expanded_channels
        self.use_residual = cnf.stride == 1 and channels == cnf.out_channels
        layer = partial(
            ConvNormActivation, norm_layer=norm_layer, activation_layer=ACTIVATIONS[cnf.activation], rngs=rngs
        )
        block = [] if expanded == channels else [layer(channels, expanded, 1)]
        stride = 1 if cnf.dilation > 1 else cnf.stride
        block.append(layer(expanded, expanded, cnf.kernel, stride, groups=expanded, dilation=cnf.dilation))
        if cnf.use_se:
            squeezed = make_divisible(expanded // 4)
            block.append(se_layer(expanded, squeezed, kernel_init=fan_out, bias_init=init.zeros, rngs=rngs))
        block.append(layer(expanded, cnf.out_channels, 1, activation_layer=None))
        self.block = Sequential(*block)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.block(x) if self.use_residual else self.block(x)


class MobileNetV3(nnx.Module):
    """Images (N, H, W, in_channels) to logits (N, num_classes).

    Args:
      inverted_residual_setting: the blocks.
      last_channel: width of the classifier's hidden layer.
      block: builds a block, with the arguments of `InvertedResidual`.
    """

    def __init__(
        self,
        inverted_residual_setting: Sequence[InvertedResidualConfig],
        last_channel: int,
        num_classes: int = 1000,
        block: Layer = InvertedResidual,
        norm_layer: Layer = PaperBatchNorm,
        dropout: float = 0.2,
        *,
        in_channels: int = 3,
        rngs: nnx.Rngs,
    ):
        layer = partial(ConvNormActivation, norm_layer=norm_layer, activation_layer=Hardswish, rngs=rngs)
        first, last = inverted_residual_setting[0].input_channels, inverted_residual_setting[-1].out_channels
        self.features = Sequential(
            layer(in_channels, first, 3, 2),
            *(block(cnf, norm_layer, rngs=rngs) for cnf in inverted_residual_setting),
            layer(last, 6 * last, 1),
        )
        self.avgpool = AdaptiveAvgPool(1)
        self.classifier = Sequential(
            linear(6 * last, last_channel, rngs=rngs),
            Hardswish(),
            Dropout(dropout, rngs=rngs),
            linear(last_channel, num_classes, rngs=rngs) if num_classes else Identity(),
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.classifier(flatten(self.avgpool(self.features(x))))


# Tables 1 and 2. Detection and segmentation halve the channels of the last blocks, or dilate these (§6.3, §6.4).
def large(width_mult: float, narrower: int, dilation: int) -> list[InvertedResidualConfig]:
    block, tail = partial(InvertedResidualConfig, width_mult=width_mult), 160 // narrower
    return [
        block(16, 3, 16, 16, False, "RE", 1, 1),
        block(16, 3, 64, 24, False, "RE", 2, 1),
        block(24, 3, 72, 24, False, "RE", 1, 1),
        block(24, 5, 72, 40, True, "RE", 2, 1),
        block(40, 5, 120, 40, True, "RE", 1, 1),
        block(40, 5, 120, 40, True, "RE", 1, 1),
        block(40, 3, 240, 80, False, "HS", 2, 1),
        block(80, 3, 200, 80, False, "HS", 1, 1),
        block(80, 3, 184, 80, False, "HS", 1, 1),
        block(80, 3, 184, 80, False, "HS", 1, 1),
        block(80, 3, 480, 112, True, "HS", 1, 1),
        block(112, 3, 672, 112, True, "HS", 1, 1),
        block(112, 5, 672, tail, True, "HS", 2, dilation),
        block(tail, 5, 6 * tail, tail, True, "HS", 1, dilation),
        block(tail, 5, 6 * tail, tail, True, "HS", 1, dilation),
    ]


def small(width_mult: float, narrower: int, dilation: int) -> list[InvertedResidualConfig]:
    block, tail = partial(InvertedResidualConfig, width_mult=width_mult), 96 // narrower
    return [
        block(16, 3, 16, 16, True, "RE", 2, 1),
        block(16, 3, 72, 24, False, "RE", 2, 1),
        block(24, 3, 88, 24, False, "RE", 1, 1),
        block(24, 5, 96, 40, True, "HS", 2, 1),
        block(40, 5, 240, 40, True, "HS", 1, 1),
        block(40, 5, 240, 40, True, "HS", 1, 1),
        block(40, 5, 120, 48, True, "HS", 1, 1),
        block(48, 5, 144, 48, True, "HS", 1, 1),
        block(48, 5, 288, tail, True, "HS", 2, dilation),
        block(tail, 5, 6 * tail, tail, True, "HS", 1, dilation),
        block(tail, 5, 6 * tail, tail, True, "HS", 1, dilation),
    ]


def mobilenet_v3(
    setting: Callable[..., list[InvertedResidualConfig]],
    last_channel: int,
    width_mult: float = 1.0,
    reduced_tail: bool = False,
    dilated: bool = False,
    **kwargs,
) -> MobileNetV3:
    """A MobileNetV3 by its table.

    Args:
      width_mult: scales the channels of every layer, rounded to multiples of 8.
      reduced_tail: halve the channels of the last blocks.
      dilated: dilate the last blocks instead of the last stride.
    """
    narrower = 2 if reduced_tail else 1
    blocks = setting(width_mult, narrower, 2 if dilated else 1)
    return MobileNetV3(blocks, make_divisible(last_channel // narrower * width_mult), **kwargs)


register_mobilenet_v3 = partial(
    register_model, head=("classifier.3",), paper="Howard et al. 2019, https://arxiv.org/abs/1905.02244"
)


@register_mobilenet_v3(
    weights={"IMAGENET1K_V2": imagenet(75.274, 92.566, 224, 232), "IMAGENET1K_V1": imagenet(74.042, 91.34)}
)
def mobilenet_v3_large(
    *, width_mult: float = 1.0, reduced_tail: bool = False, dilated: bool = False, rngs: nnx.Rngs, **kwargs
) -> MobileNetV3:
    return mobilenet_v3(large, 1280, width_mult, reduced_tail, dilated, **kwargs, rngs=rngs)


@register_mobilenet_v3(weights={"IMAGENET1K_V1": imagenet(67.668, 87.402)})
def mobilenet_v3_small(
    *, width_mult: float = 1.0, reduced_tail: bool = False, dilated: bool = False, rngs: nnx.Rngs, **kwargs
) -> MobileNetV3:
    return mobilenet_v3(small, 1024, width_mult, reduced_tail, dilated, **kwargs, rngs=rngs)
