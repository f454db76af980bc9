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
from jaxzoo.nn.ops.focal_loss import sigmoid_focal_loss
from jaxzoo.nn.ops.keypoints import heatmaps_to_keypoints, keypoints_to_heatmap
from jaxzoo.nn.ops.masks import paste_masks_in_image, project_masks_on_boxes
from jaxzoo.nn.ops.matching import BalancedPositiveNegativeSampler, Matcher, SSDMatcher
from jaxzoo.nn.ops.normalisation import FrozenBatchNorm2d, L2Norm, l2_normalize
from jaxzoo.nn.ops.pyramid import FeaturePyramidNetwork, LastLevelMaxPool, LastLevelP6P7
from jaxzoo.nn.ops.ranking import top_k
from jaxzoo.nn.ops.regions import MultiScaleRoIAlign, infer_scales, roi_align, roi_levels, roi_pool
from jaxzoo.nn.ops.suppression import batched_nms, nms

__all__ = [
    "AnchorGenerator",
    "BalancedPositiveNegativeSampler",
    "BoxCoder",
    "BoxLinearCoder",
    "DefaultBoxGenerator",
    "FeaturePyramidNetwork",
    "FrozenBatchNorm2d",
    "L2Norm",
    "LastLevelMaxPool",
    "LastLevelP6P7",
    "Matcher",
    "MultiScaleRoIAlign",
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
    "heatmaps_to_keypoints",
    "infer_scales",
    "keypoints_to_heatmap",
    "l2_normalize",
    "nms",
    "paste_masks_in_image",
    "project_masks_on_boxes",
    "remove_small_boxes",
    "roi_align",
    "roi_levels",
    "roi_pool",
    "sigmoid_focal_loss",
    "top_k",
]
