"""Lite R-ASPP on MobileNetV3.

Howard et al. 2019, Searching for MobileNetV3, https://arxiv.org/abs/1905.02244, §6.4 and figure 10. Reference:
torchvision.models.segmentation.lraspp.
"""

from collections.abc import Mapping

import jax
from flax import nnx

from jaxzoo.classification.mobilenetv3 import mobilenet_v3_large
from jaxzoo.nn import AdaptiveAvgPool, BatchNorm, Conv, IntermediateLayers, ReLU, Sequential, Sigmoid, resize
from jaxzoo.registry import register_model
from jaxzoo.segmentation.simple import coco_with_voc_labels


class LRASPPHead(nnx.Module):
    """Features at 1/8 and 1/16 of the image's size to logits at 1/8 (figure 10)."""

    def __init__(
        self, low_channels: int, high_channels: int, num_classes: int, inter_channels: int = 128, *, rngs: nnx.Rngs
    ):
        self.cbr = Sequential(
            Conv(high_channels, inter_channels, 1, bias=False, rngs=rngs), BatchNorm(inter_channels, rngs=rngs), ReLU()
        )
        self.scale = Sequential(
            AdaptiveAvgPool(1), Conv(high_channels, inter_channels, 1, bias=False, rngs=rngs), Sigmoid()
        )
        self.low_classifier = Conv(low_channels, num_classes, 1, rngs=rngs)
        self.high_classifier = Conv(inter_channels, num_classes, 1, rngs=rngs)

    def __call__(self, features: Mapping[str, jax.Array]) -> jax.Array:
        low, high = features["low"], features["high"]
        x = self.cbr(high) * self.scale(high)
        x = resize(x, low.shape[1:-1], mode="bilinear")
        return self.low_classifier(low) + self.high_classifier(x)


class LRASPP(nnx.Module):
    """Images (N, H, W, in_channels) to logits (N, H, W, num_classes) under "out".

    Args:
      backbone: maps images to features "low" and "high" of `low_channels` and `high_channels`.
      inter_channels: of the features that "high" is reduced to.
    """

    def __init__(
        self,
        backbone: nnx.Module,
        low_channels: int,
        high_channels: int,
        num_classes: int,
        inter_channels: int = 128,
        *,
        rngs: nnx.Rngs,
    ):
        self.backbone = backbone
        self.classifier = LRASPPHead(low_channels, high_channels, num_classes, inter_channels, rngs=rngs)

    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        return {"out": resize(self.classifier(self.backbone(x)), x.shape[1:-1], mode="bilinear")}


@register_model(
    head=("classifier.low_classifier", "classifier.high_classifier"),
    task="segmentation",
    paper="Howard et al. 2019, https://arxiv.org/abs/1905.02244",
    input_size=520,
    weights=coco_with_voc_labels(57.9, 91.2),
    parts={"mobilenet_v3_large": {"features.": "backbone."}},
)
def lraspp_mobilenet_v3_large(*, num_classes: int = 21, in_channels: int = 3, rngs: nnx.Rngs, **kwargs) -> LRASPP:
    features = mobilenet_v3_large(dilated=True, in_channels=in_channels, rngs=rngs).features
    backbone = IntermediateLayers(features, {"4": "low", "16": "high"})
    return LRASPP(backbone, 40, 960, num_classes, **kwargs, rngs=rngs)
