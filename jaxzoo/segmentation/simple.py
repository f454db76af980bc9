"""The plan that most networks here share: a backbone, a classifier of its features, logits at the image's size.

Reference: torchvision.models.segmentation._utils.
"""

from collections.abc import Callable, Mapping

import jax
from flax import nnx

from jaxzoo.classification.resnet import ResNet
from jaxzoo.errors import UsageError
from jaxzoo.nn import IntermediateLayers, resize
from jaxzoo.preprocess import Preprocess
from jaxzoo.registry import Published

# By the output stride: which of the last three stages dilate instead of striding.
STRIDES = {8: (False, True, True), 16: (False, False, True), 32: (False, False, False)}


class SimpleSegmentationModel(nnx.Module):
    """Images (N, H, W, in_channels) to `{"out": (N, H, W, num_classes)}`, and `"aux"` alike where there is such a head.

    The loss of the auxiliary head counts `aux_weight` times.
    """

    aux_weight = 0.5

    def __init__(self, backbone: nnx.Module, classifier: nnx.Module, aux_classifier: nnx.Module | None = None):
        self.backbone = backbone
        self.classifier = classifier
        self.aux_classifier = aux_classifier

    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        features = self.backbone(x)
        logits = {"out": self.classifier(features["out"])}
        if self.aux_classifier is not None:
            logits["aux"] = self.aux_classifier(features["aux"])
        return {name: resize(y, x.shape[1:-1], mode="bilinear") for name, y in logits.items()}


def resnet_backbone(
    resnet: Callable[..., ResNet], output_stride: int, aux_loss: bool, *, in_channels: int, rngs: nnx.Rngs, **options
) -> IntermediateLayers:
    """A ResNet's stages, whose last ones dilate instead of striding so that features are `output_stride` times smaller.

    Raises:
      UsageError: `output_stride` is none of 8, 16 and 32.
    """
    if output_stride not in STRIDES:
        raise UsageError(f"output_stride is {output_stride!r}; it must be one of: {', '.join(map(str, STRIDES))}")
    dilate = STRIDES[output_stride]
    network = resnet(replace_stride_with_dilation=dilate, in_channels=in_channels, rngs=rngs, **options)
    return IntermediateLayers(network, {"layer4": "out"} | ({"layer3": "aux"} if aux_loss else {}))


def coco_with_voc_labels(miou: float, pixel_acc: float, **arguments) -> Mapping[str, Published]:
    """torchvision's weights, trained on the images of COCO with the 20 classes of Pascal VOC."""
    return {
        "COCO_WITH_VOC_LABELS_V1": Published(
            Preprocess(520),
            {"miou": miou, "pixel_acc": pixel_acc},
            {"num_classes": 21, **arguments},
            "COCO-val2017-VOC-labels",
        )
    }
