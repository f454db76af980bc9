"""Operations of detection with torchvision's results, gradients and names, of fixed size and so usable under `jax.jit`.

Where torchvision returns as many rows as it finds, these return a fixed number and a mask of those that count. Images
and feature maps are channels last. See docs/ops.md.
"""

from jaxzoo.nn.ops.anchors import AnchorGenerator, DefaultBoxGenerator
from jaxzoo.nn.ops.box_coder import BoxCoder, BoxLinearCoder
from jaxzoo.nn.ops.box_losses import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss
from jaxzoo.nn.ops.boxes import (
    box_area,
    box_convert,
    box_iou,
    clip_boxes_to_image,
    complete_box_iou,
    distance_box_iou,
    generalized_box_iou,
    remove_small_boxes,
)
from jaxzoo.nn.ops.matching import BalancedPositiveNegativeSampler, Matcher, SSDMatcher
from jaxzoo.nn.ops.suppression import batched_nms, nms

__all__ = [
    "AnchorGenerator",
    "BalancedPositiveNegativeSampler",
    "BoxCoder",
    "BoxLinearCoder",
    "DefaultBoxGenerator",
    "Matcher",
    "SSDMatcher",
    "batched_nms",
    "box_area",
    "box_convert",
    "box_iou",
    "clip_boxes_to_image",
    "complete_box_iou",
    "complete_box_iou_loss",
    "distance_box_iou",
    "distance_box_iou_loss",
    "generalized_box_iou",
    "generalized_box_iou_loss",
    "nms",
    "remove_small_boxes",
]
