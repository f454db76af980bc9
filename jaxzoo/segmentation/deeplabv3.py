"""DeepLab V3.

Chen et al. 2017, Rethinking Atrous Convolution for Semantic Image Segmentation, https://arxiv.org/abs/1706.05587.
Reference: torchvision.models.segmentation.deeplabv3.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from jaxzoo.classification.mobilenetv3 import mobilenet_v3_large
from jaxzoo.classification.resnet import ResNet, resnet50, resnet101
from jaxzoo.errors import UsageError
from jaxzoo.nn import AdaptiveAvgPool, BatchNorm, Conv, Dropout, IntermediateLayers, Layer, ReLU, Sequential, resize
from jaxzoo.registry import register_model
from jaxzoo.segmentation.fcn import FCNHead
from jaxzoo.segmentation.simple import SimpleSegmentationModel, coco_with_voc_labels, resnet_backbone

RATES = (12, 24, 36)  # dilations of the pyramid at an output stride of 8 (§4.1)


def conv_bn_relu(in_channels: int, out_channels: int, kernel_size: int, dilation: int, rngs: nnx.Rngs) -> list:
    """A convolution that keeps the size, batch norm and ReLU."""
    padding = dilation * (kernel_size // 2)
    conv = Conv(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, bias=False, rngs=rngs)
    return [conv, BatchNorm(out_channels, rngs=rngs), ReLU()]


class ASPPConv(Sequential):
    """A dilated 3×3 convolution, batch norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int, *, rngs: nnx.Rngs):
        super().__init__(*conv_bn_relu(in_channels, out_channels, 3, dilation, rngs))


class ASPPPooling(Sequential):
    """Features of the whole image, at every position (§3.3)."""

    def __init__(self, in_channels: int, out_channels: int, *, rngs: nnx.Rngs):
        super().__init__(AdaptiveAvgPool(1), *conv_bn_relu(in_channels, out_channels, 1, 1, rngs))

    def __call__(self, x: jax.Array) -> jax.Array:
        return resize(super().__call__(x), x.shape[1:-1], mode="bilinear")


class ASPP(nnx.Module):
    """Atrous spatial pyramid pooling: features seen at several dilations side by side, each by a `conv` (§3.3)."""

    def __init__(
        self,
        in_channels: int,
        atrous_rates: Sequence[int],
        out_channels: int = 256,
        conv: Layer = ASPPConv,
        *,
        rngs: nnx.Rngs,
    ):
        self.convs = nnx.List(
            [
                Sequential(*conv_bn_relu(in_channels, out_channels, 1, 1, rngs)),
                *(conv(in_channels, out_channels, rate, rngs=rngs) for rate in atrous_rates),
                ASPPPooling(in_channels, out_channels, rngs=rngs),
            ]
        )
        together = len(self.convs) * out_channels
        self.project = Sequential(*conv_bn_relu(together, out_channels, 1, 1, rngs), Dropout(0.5, rngs=rngs))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.project(jnp.concatenate([conv(x) for conv in self.convs], -1))


class DeepLabHead(Sequential):
    """Features (N, h, w, in_channels) to logits (N, h, w, num_classes)."""

    def __init__(self, in_channels: int, num_classes: int, atrous_rates: Sequence[int] = RATES, *, rngs: nnx.Rngs):
        super().__init__(
            ASPP(in_channels, atrous_rates, rngs=rngs),
            *conv_bn_relu(256, 256, 3, 1, rngs),
            Conv(256, num_classes, 1, rngs=rngs),
        )


class DeepLabV3(SimpleSegmentationModel):
    """Images (N, H, W, in_channels) to logits (N, H, W, num_classes) under "out", and with an auxiliary head "aux"."""


def deeplabv3_resnet(
    resnet: Callable[..., ResNet],
    num_classes: int = 21,
    aux_loss: bool = False,
    output_stride: int = 8,
    atrous_rates: Sequence[int] = RATES,
    multi_grid: Sequence[int] | None = None,
    in_channels: int = 3,
    *,
    rngs: nnx.Rngs,
) -> DeepLabV3:
    """DeepLab V3 on a ResNet.

    Args:
      aux_loss: a second head on the third stage, whose loss counts half as much.
      output_stride: how many times smaller than the image the features are: 8, 16 or 32. The paper trains with 16 and
        rates of 6, 12, 18, and evaluates with 8 and twice these.
      atrous_rates: dilations of the pyramid.
      multi_grid: factors of the dilation of the last stage's three blocks, such as (1, 2, 4) (§3.2); None as in the
        reference, whose first block dilates like the stage before.
    """
    dilations = {}
    if multi_grid is not None:
        if len(multi_grid) != 3 or min(multi_grid) < 1:
            raise UsageError("multi_grid takes 3 whole numbers from 1 upwards, one for each block of the last stage")
        dilations["layer4"] = [32 // output_stride * factor for factor in multi_grid]
    options = {"dilations": dilations, "in_channels": in_channels, "rngs": rngs}
    backbone = resnet_backbone(resnet, output_stride, aux_loss, **options)
    classifier = DeepLabHead(2048, num_classes, atrous_rates, rngs=rngs)
    return DeepLabV3(backbone, classifier, FCNHead(1024, num_classes, rngs=rngs) if aux_loss else None)


register_deeplabv3 = partial(
    register_model,
    head=("classifier.4", "aux_classifier.4"),
    auxiliary=("aux_classifier",),
    task="segmentation",
    paper="Chen et al. 2017, https://arxiv.org/abs/1706.05587",
)


@register_deeplabv3(
    input_size=520,
    weights=coco_with_voc_labels(66.4, 92.4, aux_loss=True),
    parts={"resnet50": {"": "backbone."}},
)
def deeplabv3_resnet50(
    *,
    num_classes: int = 21,
    aux_loss: bool = False,
    output_stride: int = 8,
    atrous_rates: Sequence[int] = RATES,
    multi_grid: Sequence[int] | None = None,
    in_channels: int = 3,
    rngs: nnx.Rngs,
) -> DeepLabV3:
    dilation = output_stride, atrous_rates, multi_grid
    return deeplabv3_resnet(resnet50, num_classes, aux_loss, *dilation, in_channels, rngs=rngs)


@register_deeplabv3(
    input_size=520,
    weights=coco_with_voc_labels(67.4, 92.4, aux_loss=True),
    parts={"resnet101": {"": "backbone."}},
)
def deeplabv3_resnet101(
    *,
    num_classes: int = 21,
    aux_loss: bool = False,
    output_stride: int = 8,
    atrous_rates: Sequence[int] = RATES,
    multi_grid: Sequence[int] | None = None,
    in_channels: int = 3,
    rngs: nnx.Rngs,
) -> DeepLabV3:
    dilation = output_stride, atrous_rates, multi_grid
    return deeplabv3_resnet(resnet101, num_classes, aux_loss, *dilation, in_channels, rngs=rngs)


@register_deeplabv3(
    input_size=520,
    weights=coco_with_voc_labels(60.3, 91.2, aux_loss=True),
    parts={"mobilenet_v3_large": {"features.": "backbone."}},
)
def deeplabv3_mobilenet_v3_large(
    *, num_classes: int = 21, aux_loss: bool = False, in_channels: int = 3, rngs: nnx.Rngs
) -> DeepLabV3:
    features = mobilenet_v3_large(dilated=True, in_channels=in_channels, rngs=rngs).features
    backbone = IntermediateLayers(features, {"16": "out"} | ({"4": "aux"} if aux_loss else {}))
    classifier = DeepLabHead(960, num_classes, rngs=rngs)
    return DeepLabV3(backbone, classifier, FCNHead(40, num_classes, rngs=rngs) if aux_loss else None)
