"""RegNetX and RegNetY.

Radosavovic et al. 2020, Designing Network Design Spaces, https://arxiv.org/abs/2003.13678.
Reference: torchvision.models.regnet.
"""

from functools import partial

import jax
import numpy as np
from flax import nnx

from jaxzoo.nn import (
    AdaptiveAvgPool,
    BatchNorm,
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
from jaxzoo.nn import ConvNormActivation as TorchConvNormActivation
from jaxzoo.registry import imagenet, register_model

fan_out = init.kaiming_normal("fan_out")
ConvNormActivation = partial(TorchConvNormActivation, kernel_init=fan_out)
linear = partial(Linear, kernel_init=init.normal(0.01), bias_init=init.zeros)


class ResBottleneckBlock(nnx.Module):
    """1×1, grouped 3×3, for RegNetY squeeze-and-excitation, 1×1; and a shortcut (figure 4)."""

    def __init__(
        self,
        width_in: int,
        width_out: int,
        stride: int,
        group_width: int,
        se_ratio: float,
        norm_layer: Layer,
        activation: Layer,
        *,
        rngs: nnx.Rngs,
    ):
        layer = partial(ConvNormActivation, norm_layer=norm_layer, activation_layer=activation, rngs=rngs)
        reshapes = width_in != width_out or stride != 1
        self.proj = layer(width_in, width_out, 1, stride, activation_layer=None) if reshapes else None
        f = {
            "a": layer(width_in, width_out, 1),
            "b": layer(width_out, width_out, 3, stride, groups=width_out // group_width),
        }
        if se_ratio:  # of the width at the beginning of the block
            f["se"] = SqueezeExcitation(
                width_out, round(se_ratio * width_in), activation, kernel_init=fan_out, rngs=rngs
            )
        f["c"] = layer(width_out, width_out, 1, activation_layer=None)
        self.f = NamedSequential(**f)
        self.activation = activation()

    def __call__(self, x: jax.Array) -> jax.Array:
        shortcut = x if self.proj is None else self.proj(x)
        return self.activation(shortcut + self.f(x))


def stages(depth: int, w_0: int, w_a: float, w_m: float, group_width: int) -> list[tuple[int, int, int]]:
    """Width, depth and group width of every stage: widths on a line, quantised to powers of `w_m` (§3.3)."""
    line = w_0 + w_a * np.arange(depth)
    steps = np.round(np.log(line / w_0) / np.log(w_m))
    widths, depths = np.unique(8 * np.round(w_0 * w_m**steps / 8).astype(int), return_counts=True)
    groups = [min(group_width, width) for width in widths.tolist()]
    widths = [make_divisible(width, group) for width, group in zip(widths.tolist(), groups, strict=True)]
    return list(zip(widths, depths.tolist(), groups, strict=True))


class RegNet(nnx.Module):
    """Images (N, H, W, in_channels) to logits (N, num_classes).

    Args:
      depth: number of blocks.
      w_0, w_a, w_m: width of the first block, slope and step of the widths (equations 2 to 4).
      group_width: channels per group of the 3×3 convolutions.
      se_ratio: squeezed channels over channels of RegNetY; 0 is RegNetX.
    """

    def __init__(
        self,
        depth: int,
        w_0: int,
        w_a: float,
        w_m: float,
        group_width: int,
        se_ratio: float,
        num_classes: int = 1000,
        stem_width: int = 32,
        norm_layer: Layer = BatchNorm,
        activation: Layer = ReLU,
        *,
        in_channels: int = 3,
        rngs: nnx.Rngs,
    ):
        layers = {"norm_layer": norm_layer, "activation": activation, "rngs": rngs}
        self.stem = ConvNormActivation(
            in_channels, stem_width, 3, 2, norm_layer=norm_layer, activation_layer=activation, rngs=rngs
        )
        trunk, channels = {}, stem_width
        for i, (width, blocks, group) in enumerate(stages(depth, w_0, w_a, w_m, group_width), start=1):
            stage = {}
            for j in range(blocks):
                stride = 1 if j else 2
                stage[f"block{i}-{j}"] = ResBottleneckBlock(channels, width, stride, group, se_ratio, **layers)
                channels = width
            trunk[f"block{i}"] = NamedSequential(**stage)
        self.trunk_output = NamedSequential(**trunk)
        self.avgpool = AdaptiveAvgPool(1)
        self.fc = linear(channels, num_classes, rngs=rngs) if num_classes else Identity()

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc(flatten(self.avgpool(self.trunk_output(self.stem(x)))))


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
    return RegNet(22, 24, 24.48, 2.54, 16, 0.0, **kwargs, rngs=rngs)


@register_regnet(
    timm="regnetx_008",
    weights={"IMAGENET1K_V2": imagenet(77.522, 93.826, 224, 232), "IMAGENET1K_V1": imagenet(75.212, 92.348)},
)
def regnet_x_800mf(*, rngs: nnx.Rngs, **kwargs) -> RegNet:
    return RegNet(16, 56, 35.73, 2.28, 16, 0.0, **kwargs, rngs=rngs)


@register_regnet(
    timm="regnetx_016",
    weights={"IMAGENET1K_V2": imagenet(79.668, 94.922, 224, 232), "IMAGENET1K_V1": imagenet(77.04, 93.44)},
)
def regnet_x_1_6gf(*, rngs: nnx.Rngs, **kwargs) -> RegNet:
    return RegNet(18, 80, 34.01, 2.25, 24, 0.0, **kwargs, rngs=rngs)


@register_regnet(
    timm="regnetx_032",
    weights={"IMAGENET1K_V2": imagenet(81.196, 95.43, 224, 232), "IMAGENET1K_V1": imagenet(78.364, 93.992)},
)
def regnet_x_3_2gf(*, rngs: nnx.Rngs, **kwargs) -> RegNet:
    return RegNet(25, 88, 26.31, 2.25, 48, 0.0, **kwargs, rngs=rngs)


@register_regnet(
    timm="regnetx_080",
    weights={"IMAGENET1K_V2": imagenet(81.682, 95.678, 224, 232), "IMAGENET1K_V1": imagenet(79.344, 94.686)},
)
def regnet_x_8gf(*, rngs: nnx.Rngs, **kwargs) -> RegNet:
    return RegNet(23, 80, 49.56, 2.88, 120, 0.0, **kwargs, rngs=rngs)


@register_regnet(
    timm="regnetx_160",
    weights={"IMAGENET1K_V2": imagenet(82.716, 96.196, 224, 232), "IMAGENET1K_V1": imagenet(80.058, 94.944)},
)
def regnet_x_16gf(*, rngs: nnx.Rngs, **kwargs) -> RegNet:
    return RegNet(22, 216, 55.59, 2.1, 128, 0.0, **kwargs, rngs=rngs)


@register_regnet(
    timm="regnetx_320",
    weights={"IMAGENET1K_V2": imagenet(83.014, 96.288, 224, 232), "IMAGENET1K_V1": imagenet(80.622, 95.248)},
)
def regnet_x_32gf(*, rngs: nnx.Rngs, **kwargs) -> RegNet:
    return RegNet(23, 320, 69.86, 2.0, 168, 0.0, **kwargs, rngs=rngs)


@register_regnet(
    timm="regnety_004",
    weights={"IMAGENET1K_V2": imagenet(75.804, 92.742, 224, 232), "IMAGENET1K_V1": imagenet(74.046, 91.716)},
)
def regnet_y_400mf(*, rngs: nnx.Rngs, **kwargs) -> RegNet:
    return RegNet(16, 48, 27.89, 2.09, 8, 0.25, **kwargs, rngs=rngs)


@register_regnet(
    timm="regnety_008_tv",
    weights={"IMAGENET1K_V2": imagenet(78.828, 94.502, 224, 232), "IMAGENET1K_V1": imagenet(76.42, 93.136)},
)
def regnet_y_800mf(*, rngs: nnx.Rngs, **kwargs) -> RegNet:
    return RegNet(14, 56, 38.84, 2.4, 16, 0.25, **kwargs, rngs=rngs)


@register_regnet(
    timm="regnety_016",
    weights={"IMAGENET1K_V2": imagenet(80.876, 95.444, 224, 232), "IMAGENET1K_V1": imagenet(77.95, 93.966)},
)
def regnet_y_1_6gf(*, rngs: nnx.Rngs, **kwargs) -> RegNet:
    return RegNet(27, 48, 20.71, 2.65, 24, 0.25, **kwargs, rngs=rngs)


@register_regnet(
    timm="regnety_032",
    weights={"IMAGENET1K_V2": imagenet(81.982, 95.972, 224, 232), "IMAGENET1K_V1": imagenet(78.948, 94.576)},
)
def regnet_y_3_2gf(*, rngs: nnx.Rngs, **kwargs) -> RegNet:
    return RegNet(21, 80, 42.63, 2.66, 24, 0.25, **kwargs, rngs=rngs)


@register_regnet(
    timm="regnety_080_tv",
    weights={"IMAGENET1K_V2": imagenet(82.828, 96.33, 224, 232), "IMAGENET1K_V1": imagenet(80.032, 95.048)},
)
def regnet_y_8gf(*, rngs: nnx.Rngs, **kwargs) -> RegNet:
    return RegNet(17, 192, 76.82, 2.19, 56, 0.25, **kwargs, rngs=rngs)


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
    return RegNet(18, 200, 106.23, 2.48, 112, 0.25, **kwargs, rngs=rngs)


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
    return RegNet(20, 232, 115.89, 2.53, 232, 0.25, **kwargs, rngs=rngs)


@register_regnet(
    timm="regnety_1280",
    weights={
        "IMAGENET1K_SWAG_E2E_V1": imagenet(88.228, 98.682, 384, 384, "bicubic"),
        "IMAGENET1K_SWAG_LINEAR_V1": imagenet(86.068, 97.844, 224, 224, "bicubic"),
    },
)
def regnet_y_128gf(*, rngs: nnx.Rngs, **kwargs) -> RegNet:
    return RegNet(27, 456, 160.83, 2.52, 264, 0.25, **kwargs, rngs=rngs)
