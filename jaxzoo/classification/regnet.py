"""RegNetX and RegNetY.

Radosavovic et al. 2020, Designing Network Design Spaces, https://arxiv.org/abs/2003.13678.
Reference: torchvision.models.regnet.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx

from jaxzoo.nn import (
    AdaptiveAvgPool,
    BatchNorm,
    ConvNormActivation,
    Identity,
    Layer,
    Linear,
    NamedSequential,
    ReLU,
    SqueezeExcitation,
    flatten,
    init,
    make_divisible,
)
from jaxzoo.registry import imagenet, register_model

fan_out = init.kaiming_normal("fan_out")
conv = partial(ConvNormActivation, kernel_init=fan_out)
linear = partial(Linear, kernel_init=init.normal(0.01), bias_init=init.zeros)


class BlockParams(NamedTuple):
    """Of every stage: number of blocks, width, channels in a group of the 3×3 convolutions, bottleneck, stride.

    `se_ratio` is that of squeezed channels to channels in RegNetY; None is RegNetX.
    """

    depths: Sequence[int]
    widths: Sequence[int]
    group_widths: Sequence[int]
    bottleneck_multipliers: Sequence[float]
    strides: Sequence[int]
    se_ratio: float | None = None

    @classmethod
    def from_init_params(
        cls,
        depth: int,
        w_0: int,
        w_a: float,
        w_m: float,
        group_width: int,
        bottleneck_multiplier: float = 1.0,
        se_ratio: float | None = None,
    ) -> "BlockParams":
        """Widths of `depth` blocks on the line w_0 + w_a · i, quantised to powers of `w_m` (§3.3, equations 2 to 4)."""
        line = w_0 + w_a * np.arange(depth)
        steps = np.round(np.log(line / w_0) / np.log(w_m))
        widths, depths = np.unique(8 * np.round(w_0 * w_m**steps / 8).astype(int), return_counts=True)
        groups, rounded = [], []
        for width in widths.tolist():  # groups divide a bottleneck, and it is a multiple of its group
            bottleneck = int(width * bottleneck_multiplier)
            groups.append(min(group_width, bottleneck))
            rounded.append(int(make_divisible(bottleneck, groups[-1]) / bottleneck_multiplier))
        count = len(rounded)
        return cls(depths.tolist(), rounded, groups, [bottleneck_multiplier] * count, [2] * count, se_ratio)


class SimpleStemIN(ConvNormActivation):
    """A 3×3 convolution that halves the size, norm and activation."""

    def __init__(self, width_in: int, width_out: int, norm_layer: Layer, activation_layer: Layer, *, rngs: nnx.Rngs):
        layers = {"norm_layer": norm_layer, "activation_layer": activation_layer}
        super().__init__(width_in, width_out, 3, 2, **layers, kernel_init=fan_out, rngs=rngs)


class BottleneckTransform(NamedSequential):
    """1×1, grouped 3×3, for RegNetY squeeze-and-excitation, 1×1 (figure 4)."""

    def __init__(
        self,
        width_in: int,
        width_out: int,
        stride: int,
        norm_layer: Layer,
        activation_layer: Layer,
        group_width: int,
        bottleneck_multiplier: float,
        se_ratio: float | None,
        *,
        rngs: nnx.Rngs,
    ):
        width = round(width_out * bottleneck_multiplier)
        layer = partial(conv, norm_layer=norm_layer, activation_layer=activation_layer, rngs=rngs)
        layers = {"a": layer(width_in, width, 1), "b": layer(width, width, 3, stride, groups=width // group_width)}
        if se_ratio:  # of the width at the beginning of the block
            squeezed = round(se_ratio * width_in)
            layers["se"] = SqueezeExcitation(width, squeezed, activation_layer, kernel_init=fan_out, rngs=rngs)
        super().__init__(**layers, c=layer(width, width_out, 1, activation_layer=None))


class ResBottleneckBlock(nnx.Module):
    """A bottleneck and a shortcut."""

    def __init__(
        self,
        width_in: int,
        width_out: int,
        stride: int,
        norm_layer: Layer,
        activation_layer: Layer,
        group_width: int = 1,
        bottleneck_multiplier: float = 1.0,
        se_ratio: float | None = None,
        *,
        rngs: nnx.Rngs,
    ):
        projection = partial(conv, norm_layer=norm_layer, activation_layer=None, rngs=rngs)
        reshapes = width_in != width_out or stride != 1
        self.proj = projection(width_in, width_out, 1, stride) if reshapes else None
        self.f = BottleneckTransform(
            width_in,
            width_out,
            stride,
            norm_layer,
            activation_layer,
            group_width,
            bottleneck_multiplier,
            se_ratio,
            rngs=rngs,
        )
        self.activation = activation_layer()

    def __call__(self, x: jax.Array) -> jax.Array:
        shortcut = x if self.proj is None else self.proj(x)
        return self.activation(shortcut + self.f(x))


class RegNet(nnx.Module):
    """Images (N, H, W, in_channels) to logits (N, num_classes).

    Args:
      block_params: the stages.
      stem_type, block_type: build stem and blocks, with the arguments of `SimpleStemIN` and `ResBottleneckBlock`.
    """

    def __init__(
        self,
        block_params: BlockParams,
        num_classes: int = 1000,
        stem_width: int = 32,
        stem_type: Layer = SimpleStemIN,
        block_type: Layer = ResBottleneckBlock,
        norm_layer: Layer = BatchNorm,
        activation: Layer = ReLU,
        *,
        in_channels: int = 3,
        rngs: nnx.Rngs,
    ):
        self.stem = stem_type(in_channels, stem_width, norm_layer, activation, rngs=rngs)
        *stages, se_ratio = block_params
        trunk, channels = {}, stem_width
        for i, (depth, width, group_width, multiplier, stride) in enumerate(zip(*stages, strict=True), start=1):
            blocks, options = {}, (norm_layer, activation, group_width, multiplier, se_ratio)
            for j in range(depth):
                blocks[f"block{i}-{j}"] = block_type(channels, width, 1 if j else stride, *options, rngs=rngs)
                channels = width
            trunk[f"block{i}"] = NamedSequential(**blocks)
        self.trunk_output = NamedSequential(**trunk)
        self.avgpool = AdaptiveAvgPool(1)
        self.fc = linear(channels, num_classes, rngs=rngs) if num_classes else Identity()

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc(flatten(self.avgpool(self.trunk_output(self.stem(x)))))


params = BlockParams.from_init_params
register_regnet = partial(
    register_model,
    head=("fc",),
    tables=("timm.REGNET",),
    paper="Radosavovic et al. 2020, https://arxiv.org/abs/2003.13678",
)


@register_regnet(
    timm="regnetx_004_tv",
    weights={"IMAGENET1K_V2": imagenet(74.864, 92.322, 224, 232), "IMAGENET1K_V1": imagenet(72.834, 90.95)},
)
def regnet_x_400mf(*, rngs: nnx.Rngs, **kwargs) -> RegNet:
    return RegNet(params(22, 24, 24.48, 2.54, 16), **kwargs, rngs=rngs)


@register_regnet(
    timm="regnetx_008",
    weights={"IMAGENET1K_V2": imagenet(77.522, 93.826, 224, 232), "IMAGENET1K_V1": imagenet(75.212, 92.348)},
)
def regnet_x_800mf(*, rngs: nnx.Rngs, **kwargs) -> RegNet:
    return RegNet(params(16, 56, 35.73, 2.28, 16), **kwargs, rngs=rngs)


@register_regnet(
    timm="regnetx_016",
    weights={"IMAGENET1K_V2": imagenet(79.668, 94.922, 224, 232), "IMAGENET1K_V1": imagenet(77.04, 93.44)},
)
def regnet_x_1_6gf(*, rngs: nnx.Rngs, **kwargs) -> RegNet:
    return RegNet(params(18, 80, 34.01, 2.25, 24), **kwargs, rngs=rngs)


@register_regnet(
    timm="regnetx_032",
    weights={"IMAGENET1K_V2": imagenet(81.196, 95.43, 224, 232), "IMAGENET1K_V1": imagenet(78.364, 93.992)},
)
def regnet_x_3_2gf(*, rngs: nnx.Rngs, **kwargs) -> RegNet:
    return RegNet(params(25, 88, 26.31, 2.25, 48), **kwargs, rngs=rngs)


@register_regnet(
    timm="regnetx_080",
    weights={"IMAGENET1K_V2": imagenet(81.682, 95.678, 224, 232), "IMAGENET1K_V1": imagenet(79.344, 94.686)},
)
def regnet_x_8gf(*, rngs: nnx.Rngs, **kwargs) -> RegNet:
    return RegNet(params(23, 80, 49.56, 2.88, 120), **kwargs, rngs=rngs)


@register_regnet(
    timm="regnetx_160",
    weights={"IMAGENET1K_V2": imagenet(82.716, 96.196, 224, 232), "IMAGENET1K_V1": imagenet(80.058, 94.944)},
)
def regnet_x_16gf(*, rngs: nnx.Rngs, **kwargs) -> RegNet:
    return RegNet(params(22, 216, 55.59, 2.1, 128), **kwargs, rngs=rngs)


@register_regnet(
    timm="regnetx_320",
    weights={"IMAGENET1K_V2": imagenet(83.014, 96.288, 224, 232), "IMAGENET1K_V1": imagenet(80.622, 95.248)},
)
def regnet_x_32gf(*, rngs: nnx.Rngs, **kwargs) -> RegNet:
    return RegNet(params(23, 320, 69.86, 2.0, 168), **kwargs, rngs=rngs)


@register_regnet(
    timm="regnety_004",
    weights={"IMAGENET1K_V2": imagenet(75.804, 92.742, 224, 232), "IMAGENET1K_V1": imagenet(74.046, 91.716)},
)
def regnet_y_400mf(*, rngs: nnx.Rngs, **kwargs) -> RegNet:
    return RegNet(params(16, 48, 27.89, 2.09, 8, se_ratio=0.25), **kwargs, rngs=rngs)


@register_regnet(
    timm="regnety_008_tv",
    weights={"IMAGENET1K_V2": imagenet(78.828, 94.502, 224, 232), "IMAGENET1K_V1": imagenet(76.42, 93.136)},
)
def regnet_y_800mf(*, rngs: nnx.Rngs, **kwargs) -> RegNet:
    return RegNet(params(14, 56, 38.84, 2.4, 16, se_ratio=0.25), **kwargs, rngs=rngs)


@register_regnet(
    timm="regnety_016",
    weights={"IMAGENET1K_V2": imagenet(80.876, 95.444, 224, 232), "IMAGENET1K_V1": imagenet(77.95, 93.966)},
)
def regnet_y_1_6gf(*, rngs: nnx.Rngs, **kwargs) -> RegNet:
    return RegNet(params(27, 48, 20.71, 2.65, 24, se_ratio=0.25), **kwargs, rngs=rngs)


@register_regnet(
    timm="regnety_032",
    weights={"IMAGENET1K_V2": imagenet(81.982, 95.972, 224, 232), "IMAGENET1K_V1": imagenet(78.948, 94.576)},
)
def regnet_y_3_2gf(*, rngs: nnx.Rngs, **kwargs) -> RegNet:
    return RegNet(params(21, 80, 42.63, 2.66, 24, se_ratio=0.25), **kwargs, rngs=rngs)


@register_regnet(
    timm="regnety_080_tv",
    weights={"IMAGENET1K_V2": imagenet(82.828, 96.33, 224, 232), "IMAGENET1K_V1": imagenet(80.032, 95.048)},
)
def regnet_y_8gf(*, rngs: nnx.Rngs, **kwargs) -> RegNet:
    return RegNet(params(17, 192, 76.82, 2.19, 56, se_ratio=0.25), **kwargs, rngs=rngs)


@register_regnet(
    timm="regnety_160",
    weights={
        "IMAGENET1K_V2": imagenet(82.886, 96.328, 224, 232),
        "IMAGENET1K_V1": imagenet(80.424, 95.24),
        "IMAGENET1K_SWAG_E2E_V1": imagenet(86.012, 98.054, 384, 384, "bicubic"),
        "IMAGENET1K_SWAG_LINEAR_V1": imagenet(83.976, 97.244, 224, 224, "bicubic"),
    },
)
def regnet_y_16gf(*, rngs: nnx.Rngs, **kwargs) -> RegNet:
    return RegNet(params(18, 200, 106.23, 2.48, 112, se_ratio=0.25), **kwargs, rngs=rngs)


@register_regnet(
    timm="regnety_320",
    weights={
        "IMAGENET1K_V2": imagenet(83.368, 96.498, 224, 232),
        "IMAGENET1K_V1": imagenet(80.878, 95.34),
        "IMAGENET1K_SWAG_E2E_V1": imagenet(86.838, 98.362, 384, 384, "bicubic"),
        "IMAGENET1K_SWAG_LINEAR_V1": imagenet(84.622, 97.48, 224, 224, "bicubic"),
    },
)
def regnet_y_32gf(*, rngs: nnx.Rngs, **kwargs) -> RegNet:
    return RegNet(params(20, 232, 115.89, 2.53, 232, se_ratio=0.25), **kwargs, rngs=rngs)


@register_regnet(
    timm="regnety_1280",
    weights={
        "IMAGENET1K_SWAG_E2E_V1": imagenet(88.228, 98.682, 384, 384, "bicubic"),
        "IMAGENET1K_SWAG_LINEAR_V1": imagenet(86.068, 97.844, 224, 224, "bicubic"),
    },
)
def regnet_y_128gf(*, rngs: nnx.Rngs, **kwargs) -> RegNet:
    return RegNet(params(27, 456, 160.83, 2.52, 264, se_ratio=0.25), **kwargs, rngs=rngs)
