"""MobileNetV3.

Howard et al. 2019, Searching for MobileNetV3, https://arxiv.org/abs/1905.02244.
Reference: torchvision.models.mobilenetv3.
"""

from collections.abc import Sequence
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

# Tables 1 and 2: kernel, expanded channels, channels, squeeze-and-excitation, activation, stride.
# The last three blocks are the tail, which `reduced_tail` halves and `dilated` dilates.
LARGE = (
    (3, 16, 16, False, ReLU, 1),
    (3, 64, 24, False, ReLU, 2),
    (3, 72, 24, False, ReLU, 1),
    (5, 72, 40, True, ReLU, 2),
    (5, 120, 40, True, ReLU, 1),
    (5, 120, 40, True, ReLU, 1),
    (3, 240, 80, False, Hardswish, 2),
    (3, 200, 80, False, Hardswish, 1),
    (3, 184, 80, False, Hardswish, 1),
    (3, 184, 80, False, Hardswish, 1),
    (3, 480, 112, True, Hardswish, 1),
    (3, 672, 112, True, Hardswish, 1),
    (5, 672, 160, True, Hardswish, 2),
    (5, 960, 160, True, Hardswish, 1),
    (5, 960, 160, True, Hardswish, 1),
)
SMALL = (
    (3, 16, 16, True, ReLU, 2),
    (3, 72, 24, False, ReLU, 2),
    (3, 88, 24, False, ReLU, 1),
    (5, 96, 40, True, Hardswish, 2),
    (5, 240, 40, True, Hardswish, 1),
    (5, 240, 40, True, Hardswish, 1),
    (5, 120, 48, True, Hardswish, 1),
    (5, 144, 48, True, Hardswish, 1),
    (5, 288, 96, True, Hardswish, 2),
    (5, 576, 96, True, Hardswish, 1),
    (5, 576, 96, True, Hardswish, 1),
)


class InvertedResidual(nnx.Module):
    """Expand, filter depthwise, squeeze and excite, project; a shortcut when the shape allows it (§5)."""

    def __init__(
        self,
        in_channels: int,
        kernel: int,
        expanded: int,
        out_channels: int,
        use_se: bool,
        activation_layer: Layer,
        stride: int,
        dilation: int,
        norm_layer: Layer,
        *,
        rngs: nnx.Rngs,
    ):
        self.use_residual = stride == 1 and in_channels == out_channels
        layer = partial(ConvNormActivation, norm_layer=norm_layer, activation_layer=activation_layer, rngs=rngs)
        block = [] if expanded == in_channels else [layer(in_channels, expanded, 1)]
        stride = 1 if dilation > 1 else stride
        block.append(layer(expanded, expanded, kernel, stride, groups=expanded, dilation=dilation))
        if use_se:
            squeezed = make_divisible(expanded // 4)
            block.append(
                SqueezeExcitation(
                    expanded,
                    squeezed,
                    scale_activation=Hardsigmoid,
                    kernel_init=fan_out,
                    bias_init=init.zeros,
                    rngs=rngs,
                )
            )
        block.append(layer(expanded, out_channels, 1, activation_layer=None))
        self.block = Sequential(*block)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.block(x) if self.use_residual else self.block(x)


class MobileNetV3(nnx.Module):
    """Images (N, H, W, in_channels) to logits (N, num_classes).

    Args:
      width_mult: scales the channels of every layer, rounded to multiples of 8.
      reduced_tail: halve the channels of the last blocks (§6.4, for detection and segmentation).
      dilated: dilate the last blocks instead of the last stride.
    """

    def __init__(
        self,
        setting: Sequence[tuple],
        last_channel: int,
        num_classes: int = 1000,
        width_mult: float = 1.0,
        reduced_tail: bool = False,
        dilated: bool = False,
        norm_layer: Layer = PaperBatchNorm,
        dropout: float = 0.2,
        *,
        in_channels: int = 3,
        rngs: nnx.Rngs,
    ):
        def scaled(channels: float) -> int:
            return make_divisible(channels * width_mult)

        divider = 2 if reduced_tail else 1
        channels = scaled(16)
        features = [
            ConvNormActivation(
                in_channels, channels, 3, 2, norm_layer=norm_layer, activation_layer=Hardswish, rngs=rngs
            )
        ]
        tail = len(setting) - 3
        for i, (kernel, expanded, width, use_se, activation, stride) in enumerate(setting):
            if i > tail:  # the first block of the tail expands what comes before it
                expanded //= divider
            if i >= tail:
                width //= divider
            width, dilation = scaled(width), 2 if dilated and i >= tail else 1
            features.append(
                InvertedResidual(
                    channels,
                    kernel,
                    scaled(expanded),
                    width,
                    use_se,
                    activation,
                    stride,
                    dilation,
                    norm_layer,
                    rngs=rngs,
                )
            )
            channels = width
        features.append(
            ConvNormActivation(channels, 6 * channels, 1, norm_layer=norm_layer, activation_layer=Hardswish, rngs=rngs)
        )
        self.features = Sequential(*features)
        self.avgpool = AdaptiveAvgPool(1)
        last = scaled(last_channel // divider)
        self.classifier = Sequential(
            linear(6 * channels, last, rngs=rngs),
            Hardswish(),
            Dropout(dropout, rngs=rngs),
            linear(last, num_classes, rngs=rngs) if num_classes else Identity(),
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.classifier(flatten(self.avgpool(self.features(x))))


register_mobilenet_v3 = partial(
    register_model, head=("classifier.3",), paper="Howard et al. 2019, https://arxiv.org/abs/1905.02244"
)


@register_mobilenet_v3(
    weights={"IMAGENET1K_V2": imagenet(75.274, 92.566, 224, 232), "IMAGENET1K_V1": imagenet(74.042, 91.34)}
)
def mobilenet_v3_large(*, rngs: nnx.Rngs, **kwargs) -> MobileNetV3:
    return MobileNetV3(LARGE, 1280, **kwargs, rngs=rngs)


@register_mobilenet_v3(weights={"IMAGENET1K_V1": imagenet(67.668, 87.402)})
def mobilenet_v3_small(*, rngs: nnx.Rngs, **kwargs) -> MobileNetV3:
    return MobileNetV3(SMALL, 1024, **kwargs, rngs=rngs)
