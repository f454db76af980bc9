"""FCN on ResNets that dilate.

Long et al. 2015, Fully Convolutional Networks for Semantic Segmentation, https://arxiv.org/abs/1411.4038. Reference:
torchvision.models.segmentation.fcn. The networks of the paper itself are in `fcn_vgg`.
"""

from collections.abc import Callable
from functools import partial

from flax import nnx

from jaxzoo.classification.resnet import ResNet, resnet50, resnet101
from jaxzoo.nn import BatchNorm, Conv, Dropout, ReLU, Sequential
from jaxzoo.registry import register_model
from jaxzoo.segmentation.simple import SimpleSegmentationModel, coco_with_voc_labels, resnet_backbone


class FCNHead(Sequential):
    """Features (N, h, w, in_channels) to logits (N, h, w, channels)."""

    def __init__(self, in_channels: int, channels: int, *, rngs: nnx.Rngs):
        inter_channels = in_channels // 4
        super().__init__(
            Conv(in_channels, inter_channels, 3, padding=1, bias=False, rngs=rngs),
            BatchNorm(inter_channels, rngs=rngs),
            ReLU(),
            Dropout(0.1, rngs=rngs),
            Conv(inter_channels, channels, 1, rngs=rngs),
        )


class FCN(SimpleSegmentationModel):
    """Images (N, H, W, in_channels) to logits (N, H, W, num_classes) under "out", and with an auxiliary head "aux"."""


def fcn_resnet(
    resnet: Callable[..., ResNet],
    num_classes: int = 21,
    aux_loss: bool = False,
    output_stride: int = 8,
    in_channels: int = 3,
    *,
    rngs: nnx.Rngs,
) -> FCN:
    """FCN on a ResNet.

    Args:
      aux_loss: a second head on the third stage, whose loss counts half as much.
      output_stride: how many times smaller than the image the features are: 8, 16 or 32.
    """
    backbone = resnet_backbone(resnet, output_stride, aux_loss, in_channels=in_channels, rngs=rngs)
    classifier = FCNHead(2048, num_classes, rngs=rngs)
    return FCN(backbone, classifier, FCNHead(1024, num_classes, rngs=rngs) if aux_loss else None)


register_fcn = partial(
    register_model,
    head=("classifier.4", "aux_classifier.4"),
    auxiliary=("aux_classifier",),
    task="segmentation",
    paper="Long et al. 2015, https://arxiv.org/abs/1411.4038",
)


@register_fcn(
    input_size=520,
    weights=coco_with_voc_labels(60.5, 91.4, aux_loss=True),
    parts={"resnet50": {"": "backbone."}},
)
def fcn_resnet50(
    *, num_classes: int = 21, aux_loss: bool = False, output_stride: int = 8, in_channels: int = 3, rngs: nnx.Rngs
) -> FCN:
    return fcn_resnet(resnet50, num_classes, aux_loss, output_stride, in_channels, rngs=rngs)


@register_fcn(
    input_size=520,
    weights=coco_with_voc_labels(63.7, 91.9, aux_loss=True),
    parts={"resnet101": {"": "backbone."}},
)
def fcn_resnet101(
    *, num_classes: int = 21, aux_loss: bool = False, output_stride: int = 8, in_channels: int = 3, rngs: nnx.Rngs
) -> FCN:
    return fcn_resnet(resnet101, num_classes, aux_loss, output_stride, in_channels, rngs=rngs)
