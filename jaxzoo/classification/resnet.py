"""ResNet, ResNeXt and Wide ResNet.

He et al. 2015, Deep Residual Learning for Image Recognition, https://arxiv.org/abs/1512.03385; Xie et al. 2016,
Aggregated Residual Transformations for Deep Neural Networks, https://arxiv.org/abs/1611.05431; Zagoruyko and Komodakis
2016, Wide Residual Networks, https://arxiv.org/abs/1605.07146. Reference: torchvision.models.resnet.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType

import jax
import jax.numpy as jnp
from flax import nnx

from jaxzoo.nn import (
    AdaptiveAvgPool,
    BatchNorm,
    Conv,
    Identity,
    Layer,
    Linear,
    MaxPool,
    ReLU,
    Sequential,
    flatten,
    init,
)
from jaxzoo.registry import imagenet, register_model

conv = partial(Conv, bias=False, kernel_init=init.kaiming_normal("fan_out"))


class BasicBlock(nnx.Module):
    """Two 3×3 convolutions and a shortcut (He et al., figure 5 left)."""

    expansion = 1

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        downsample: nnx.Module | None = None,
        groups: int = 1,
        base_width: int = 64,
        dilation: int = 1,
        norm_layer: Layer = BatchNorm,
        *,
        rngs: nnx.Rngs,
    ):
        if groups != 1 or base_width != 64 or dilation != 1:
            raise ValueError("BasicBlock has neither groups nor another width nor dilation; Bottleneck has")
        self.conv1 = conv(inplanes, planes, 3, stride, 1, rngs=rngs)
        self.bn1 = norm_layer(planes, rngs=rngs)
        self.relu = ReLU()
        self.conv2 = conv(planes, planes, 3, 1, 1, rngs=rngs)
        self.bn2 = norm_layer(planes, rngs=rngs)
        self.downsample = downsample

    def __call__(self, x: jax.Array) -> jax.Array:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + shortcut)


class Bottleneck(nnx.Module):
    """1×1, 3×3, 1×1 and a shortcut; the stride is in the 3×3 (He et al., figure 5 right; known as v1.5)."""

    expansion = 4

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        downsample: nnx.Module | None = None,
        groups: int = 1,
        base_width: int = 64,
        dilation: int = 1,
        norm_layer: Layer = BatchNorm,
        *,
        rngs: nnx.Rngs,
    ):
        width = int(planes * (base_width / 64)) * groups
        self.conv1 = conv(inplanes, width, 1, rngs=rngs)
        self.bn1 = norm_layer(width, rngs=rngs)
        self.conv2 = conv(width, width, 3, stride, dilation, dilation, groups, rngs=rngs)
        self.bn2 = norm_layer(width, rngs=rngs)
        self.conv3 = conv(width, planes * self.expansion, 1, rngs=rngs)
        self.bn3 = norm_layer(planes * self.expansion, rngs=rngs)
        self.relu = ReLU()
        self.downsample = downsample

    def __call__(self, x: jax.Array) -> jax.Array:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + shortcut)


def make_layer(
    block: type[BasicBlock | Bottleneck],
    inplanes: int,
    planes: int,
    stride: int,
    dilations: Sequence[int],
    *,
    norm_layer: Layer,
    rngs: nnx.Rngs,
    **options,
) -> Sequential:
    """A stage: a block for every dilation, of which the first strides and projects its shortcut where shapes change."""
    outplanes, downsample = planes * block.expansion, None
    if stride != 1 or inplanes != outplanes:
        downsample = Sequential(conv(inplanes, outplanes, 1, stride, rngs=rngs), norm_layer(outplanes, rngs=rngs))
    build = partial(block, planes=planes, norm_layer=norm_layer, rngs=rngs, **options)
    first = build(inplanes, stride=stride, downsample=downsample, dilation=dilations[0])
    return Sequential(first, *(build(outplanes, dilation=dilation) for dilation in dilations[1:]))


class ResNet(nnx.Module):
    """Images (N, H, W, in_channels) to logits (N, num_classes).

    Args:
      block, layers: the kind of block, and how many of them each of the four stages has.
      zero_init_residual: start every residual branch at zero (Goyal et al. 2017, arXiv 1706.02677, §5.1).
      groups, width_per_group: cardinality and width of the 3×3 convolutions (ResNeXt, Wide ResNet).
      replace_stride_with_dilation: whether each of the last three stages keeps the size and dilates instead.
      dilations: by the name of a stage, such as "layer4", the dilation of all of its blocks, or one for each of them,
        in place of the usual ones.
    """

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        layers: Sequence[int],
        num_classes: int = 1000,
        zero_init_residual: bool = False,
        groups: int = 1,
        width_per_group: int = 64,
        replace_stride_with_dilation: Sequence[bool] | None = None,
        norm_layer: Layer = BatchNorm,
        *,
        dilations: Mapping[str, int | Sequence[int]] = MappingProxyType({}),
        in_channels: int = 3,
        rngs: nnx.Rngs,
    ):
        replace = replace_stride_with_dilation or (False, False, False)
        if len(replace) != 3:
            raise ValueError(f"replace_stride_with_dilation takes three values, not {replace!r}")
        if unknown := dilations.keys() - {"layer1", "layer2", "layer3", "layer4"}:
            raise ValueError(f"dilations are those of layer1 to layer4, not of {', '.join(sorted(unknown))}")
        self.conv1 = conv(in_channels, 64, 7, 2, 3, rngs=rngs)
        self.bn1 = norm_layer(64, rngs=rngs)
        self.relu = ReLU()
        self.maxpool = MaxPool(3, 2, 1)
        options = {"groups": groups, "base_width": width_per_group, "norm_layer": norm_layer, "rngs": rngs}
        inplanes, dilation = 64, 1
        for i, (depth, dilate) in enumerate(zip(layers, (False, *replace), strict=True)):
            planes, stride, before = 64 * 2**i, 2 if i and not dilate else 1, dilation
            dilation *= 2 if dilate else 1
            rates = dilations.get(f"layer{i + 1}")
            if rates is None:  # the first block dilates as the stage before
                rates = [before] + [dilation] * (depth - 1)
            rates = [rates] * depth if isinstance(rates, int) else rates
            if len(rates) != depth:
                raise ValueError(f"layer{i + 1} has {depth} blocks, not {len(rates)} as the dilations {rates}")
            setattr(self, f"layer{i + 1}", make_layer(block, inplanes, planes, stride, rates, **options))
            inplanes = planes * block.expansion
        self.avgpool = AdaptiveAvgPool(1)
        self.fc = Linear(inplanes, num_classes, rngs=rngs) if num_classes else Identity()
        if zero_init_residual:
            for _, module in nnx.iter_modules(self):
                if isinstance(module, BasicBlock | Bottleneck):
                    scale = (module.bn3 if isinstance(module, Bottleneck) else module.bn2).scale
                    scale.set_value(jnp.zeros_like(scale.get_value()))

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(flatten(self.avgpool(x)))


register_resnet = partial(
    register_model, head=("fc",), tables=("timm.RESNET",), paper="He et al. 2015, https://arxiv.org/abs/1512.03385"
)
register_resnext = partial(
    register_model, head=("fc",), tables=("timm.RESNET",), paper="Xie et al. 2016, https://arxiv.org/abs/1611.05431"
)
register_wide_resnet = partial(
    register_model,
    head=("fc",),
    tables=("timm.RESNET",),
    paper="Zagoruyko and Komodakis 2016, https://arxiv.org/abs/1605.07146",
)


@register_resnet(timm="resnet18", weights={"IMAGENET1K_V1": imagenet(69.758, 89.078)})
def resnet18(*, rngs: nnx.Rngs, **kwargs) -> ResNet:
    return ResNet(BasicBlock, [2, 2, 2, 2], **kwargs, rngs=rngs)


@register_resnet(timm="resnet34", weights={"IMAGENET1K_V1": imagenet(73.314, 91.42)})
def resnet34(*, rngs: nnx.Rngs, **kwargs) -> ResNet:
    return ResNet(BasicBlock, [3, 4, 6, 3], **kwargs, rngs=rngs)


@register_resnet(
    timm="resnet50",
    weights={"IMAGENET1K_V2": imagenet(80.858, 95.434, 224, 232), "IMAGENET1K_V1": imagenet(76.13, 92.862)},
)
def resnet50(*, rngs: nnx.Rngs, **kwargs) -> ResNet:
    return ResNet(Bottleneck, [3, 4, 6, 3], **kwargs, rngs=rngs)


@register_resnet(
    timm="resnet101",
    weights={"IMAGENET1K_V2": imagenet(81.886, 95.78, 224, 232), "IMAGENET1K_V1": imagenet(77.374, 93.546)},
)
def resnet101(*, rngs: nnx.Rngs, **kwargs) -> ResNet:
    return ResNet(Bottleneck, [3, 4, 23, 3], **kwargs, rngs=rngs)


@register_resnet(
    timm="resnet152",
    weights={"IMAGENET1K_V2": imagenet(82.284, 96.002, 224, 232), "IMAGENET1K_V1": imagenet(78.312, 94.046)},
)
def resnet152(*, rngs: nnx.Rngs, **kwargs) -> ResNet:
    return ResNet(Bottleneck, [3, 8, 36, 3], **kwargs, rngs=rngs)


@register_resnext(
    timm="resnext50_32x4d",
    weights={"IMAGENET1K_V2": imagenet(81.198, 95.34, 224, 232), "IMAGENET1K_V1": imagenet(77.618, 93.698)},
)
def resnext50_32x4d(*, rngs: nnx.Rngs, **kwargs) -> ResNet:
    return ResNet(Bottleneck, [3, 4, 6, 3], **{"groups": 32, "width_per_group": 4, **kwargs}, rngs=rngs)


@register_resnext(
    timm="resnext101_32x8d",
    weights={"IMAGENET1K_V2": imagenet(82.834, 96.228, 224, 232), "IMAGENET1K_V1": imagenet(79.312, 94.526)},
)
def resnext101_32x8d(*, rngs: nnx.Rngs, **kwargs) -> ResNet:
    return ResNet(Bottleneck, [3, 4, 23, 3], **{"groups": 32, "width_per_group": 8, **kwargs}, rngs=rngs)


@register_resnext(timm="resnext101_64x4d", weights={"IMAGENET1K_V1": imagenet(83.246, 96.454, 224, 232)})
def resnext101_64x4d(*, rngs: nnx.Rngs, **kwargs) -> ResNet:
    return ResNet(Bottleneck, [3, 4, 23, 3], **{"groups": 64, "width_per_group": 4, **kwargs}, rngs=rngs)


@register_wide_resnet(
    timm="wide_resnet50_2",
    weights={"IMAGENET1K_V2": imagenet(81.602, 95.758, 224, 232), "IMAGENET1K_V1": imagenet(78.468, 94.086)},
)
def wide_resnet50_2(*, rngs: nnx.Rngs, **kwargs) -> ResNet:
    return ResNet(Bottleneck, [3, 4, 6, 3], **{"width_per_group": 128, **kwargs}, rngs=rngs)


@register_wide_resnet(
    timm="wide_resnet101_2",
    weights={"IMAGENET1K_V2": imagenet(82.51, 96.02, 224, 232), "IMAGENET1K_V1": imagenet(78.848, 94.284)},
)
def wide_resnet101_2(*, rngs: nnx.Rngs, **kwargs) -> ResNet:
    return ResNet(Bottleneck, [3, 4, 23, 3], **{"width_per_group": 128, **kwargs}, rngs=rngs)
