"""RetinaNet.

Lin et al. 2017, Focal Loss for Dense Object Detection, https://arxiv.org/abs/1708.02002; its second version after Zhang
et al. 2019, https://arxiv.org/abs/1912.02424. Reference: torchvision.models.detection.retinanet.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from jaxzoo.detection.backbone import BackboneWithFPN, batch_norm, resnet50_p3_to_p7
from jaxzoo.detection.coco_weights import published
from jaxzoo.detection.dense import Detections, best_boxes, by_anchor, check_classes, predicted, truths
from jaxzoo.detection.transform import DetectionTransform
from jaxzoo.nn import Conv, ConvNormActivation, GroupNorm, Layer, Sequential, init
from jaxzoo.nn.ops import (
    AnchorGenerator,
    BoxCoder,
    Matcher,
    box_iou,
    generalized_box_iou_loss,
    sigmoid_focal_loss,
)
from jaxzoo.nn.ops.matching import BETWEEN_THRESHOLDS
from jaxzoo.nn.precision import wide
from jaxzoo.preprocess import IMAGENET_MEAN, IMAGENET_STD
from jaxzoo.registry import register_model

# Three octaves of each level's size, in three shapes (§4, "Anchors").
SIZES = tuple((x, int(x * 2 ** (1 / 3)), int(x * 2 ** (2 / 3))) for x in (32, 64, 128, 256, 512))
SHAPES = ((0.5, 1.0, 2.0),) * len(SIZES)

conv = partial(Conv, kernel_size=3, padding=1, kernel_init=init.normal(0.01), bias_init=init.zeros)


def tower(channels: int, norm_layer: Layer | None, rngs: nnx.Rngs) -> Sequential:
    """Four convolutions, which all levels share."""
    start = {"kernel_init": init.normal(0.01), "bias_init": init.zeros}
    return Sequential(
        *(ConvNormActivation(channels, channels, norm_layer=norm_layer, **start, rngs=rngs) for _ in range(4))
    )


class RetinaNetClassificationHead(nnx.Module):
    """Maps (N, h, w, in_channels) to logits (N, h · w · num_anchors, num_classes).

    Args:
      prior_probability: of an object, with which all classes start (§3.3).
    """

    _version = 2  # of the layout of torchvision's state_dict

    def __init__(
        self,
        in_channels: int,
        num_anchors: int,
        num_classes: int,
        prior_probability: float = 0.01,
        norm_layer: Layer | None = None,
        *,
        rngs: nnx.Rngs,
    ):
        self.conv = tower(in_channels, norm_layer, rngs)
        rare = init.constant(-math.log((1 - prior_probability) / prior_probability))
        self.cls_logits = conv(in_channels, num_anchors * num_classes, bias_init=rare, rngs=rngs)
        self.num_classes = num_classes

    def __call__(self, x: jax.Array) -> jax.Array:
        return by_anchor(self.cls_logits(self.conv(x)), self.num_classes)

    def compute_loss(self, labels: jax.Array, logits: jax.Array, matched: jax.Array) -> jax.Array:
        """The focal loss of one image: labels (M,), logits (A, classes) and each anchor's object (A,)."""
        found = matched >= 0
        right = found[:, None] & (labels[matched][:, None] == jnp.arange(self.num_classes))
        loss = sigmoid_focal_loss(logits, right.astype(logits.dtype))
        return jnp.where(matched != BETWEEN_THRESHOLDS, loss.sum(-1), 0).sum() / jnp.maximum(found.sum(), 1)


class RetinaNetRegressionHead(nnx.Module):
    """Maps (N, h, w, in_channels) to offsets (N, h · w · num_anchors, 4).

    Args:
      loss_type: "l1" of the offsets, or "giou" of the boxes.
    """

    _version = 2

    def __init__(
        self,
        in_channels: int,
        num_anchors: int,
        norm_layer: Layer | None = None,
        loss_type: str = "l1",
        *,
        rngs: nnx.Rngs,
    ):
        self.conv = tower(in_channels, norm_layer, rngs)
        self.bbox_reg = conv(in_channels, num_anchors * 4, rngs=rngs)
        self.box_coder, self.loss_type = BoxCoder(), loss_type

    def __call__(self, x: jax.Array) -> jax.Array:
        return by_anchor(self.bbox_reg(self.conv(x)), 4)

    def compute_loss(self, boxes: jax.Array, offsets: jax.Array, anchors: jax.Array, matched: jax.Array) -> jax.Array:
        """The loss of one image: boxes (M, 4), offsets and anchors (A, 4) and each anchor's object (A,)."""
        found = matched >= 0
        goal = jnp.where(found[:, None], boxes[matched], anchors)
        if self.loss_type == "l1":
            loss = jnp.abs(offsets - self.box_coder.encode(goal, anchors)).sum(-1)
        else:
            loss = generalized_box_iou_loss(self.box_coder.decode(offsets, anchors), goal)
        return jnp.where(found, loss, 0).sum() / jnp.maximum(found.sum(), 1)


class RetinaNetHead(nnx.Module):
    """Both heads on every level: `cls_logits` and `bbox_regression`, a list of each with an array for every level."""

    def __init__(
        self,
        in_channels: int,
        num_anchors: int,
        num_classes: int,
        norm_layer: Layer | None = None,
        loss_type: str = "l1",
        *,
        rngs: nnx.Rngs,
    ):
        self.classification_head = RetinaNetClassificationHead(
            in_channels, num_anchors, num_classes, norm_layer=norm_layer, rngs=rngs
        )
        self.regression_head = RetinaNetRegressionHead(in_channels, num_anchors, norm_layer, loss_type, rngs=rngs)

    def __call__(self, x: Sequence[jax.Array]) -> dict[str, list[jax.Array]]:
        heads = {"cls_logits": self.classification_head, "bbox_regression": self.regression_head}
        return {name: [wide(head(level)) for level in x] for name, head in heads.items()}


class RetinaNet(nnx.Module):
    """Images (N, H, W, in_channels) on a canvas, and the size of each, to the `detections_per_img` best boxes of each.

    Returns `boxes` (N, D, 4) in pixels of the canvas, `labels` (N, D) and `scores` (N, D), best first, and `valid`
    (N, D), False where there are fewer.

    Args:
      backbone: maps images to a dictionary of levels, each with `out_channels`.
      num_classes: with the background, class 0.
      min_size, max_size, image_mean, image_std: as of `DetectionTransform`.
      anchor_generator, head: the paper's unless given.
      score_thresh: least score of a candidate.
      nms_thresh: IoU above which the better of two boxes of a class removes the other.
      topk_candidates: of each level, before that.
      fg_iou_thresh, bg_iou_thresh: IoU from which an anchor is an object's, and below which it is background.
    """

    def __init__(
        self,
        backbone: BackboneWithFPN,
        num_classes: int = 91,
        min_size: int | Sequence[int] = 800,
        max_size: int = 1333,
        image_mean: Sequence[float] = IMAGENET_MEAN,
        image_std: Sequence[float] = IMAGENET_STD,
        anchor_generator: AnchorGenerator | None = None,
        head: Callable[..., RetinaNetHead] = RetinaNetHead,
        score_thresh: float = 0.05,
        nms_thresh: float = 0.5,
        detections_per_img: int = 300,
        fg_iou_thresh: float = 0.5,
        bg_iou_thresh: float = 0.4,
        topk_candidates: int = 1000,
        *,
        rngs: nnx.Rngs,
    ):
        check_classes(num_classes)
        self.backbone = backbone
        self.anchor_generator = anchor_generator or AnchorGenerator(SIZES, SHAPES)
        anchors = self.anchor_generator.num_anchors_per_location()[0]
        self.head = head(backbone.out_channels, anchors, num_classes, rngs=rngs)
        self.proposal_matcher = Matcher(fg_iou_thresh, bg_iou_thresh, allow_low_quality_matches=True)
        self.box_coder = BoxCoder()
        self.transform = DetectionTransform.of(min_size, max_size, image_mean, image_std)
        self.score_thresh, self.nms_thresh = score_thresh, nms_thresh
        self.detections_per_img, self.topk_candidates = detections_per_img, topk_candidates

    def __call__(self, images: jax.Array, sizes: jax.Array | None = None) -> Detections:
        outputs, anchors = predicted(self, images)
        scores = [jax.nn.sigmoid(logits) for logits in outputs["cls_logits"]]
        return best_boxes(self, images, sizes, scores, outputs["bbox_regression"], anchors)

    def losses(
        self, images: jax.Array, sizes: jax.Array | None, targets: Mapping[str, jax.Array]
    ) -> dict[str, jax.Array]:
        """`classification` and `bbox_regression`, means over the images.

        Args:
          images: (N, H, W, in_channels).
          sizes: heights and widths (N, 2), which do not matter here.
          targets: `boxes` (N, M, 4) in pixels of the canvas, `labels` (N, M), and `valid` (N, M), False where an image
            has fewer than M.
        """
        outputs, anchors = predicted(self, images)
        logits, offsets = (jnp.concatenate(outputs[name], 1) for name in ("cls_logits", "bbox_regression"))
        anchors = jnp.concatenate(anchors)

        def one(
            logits: jax.Array, offsets: jax.Array, boxes: jax.Array, labels: jax.Array, valid: jax.Array
        ) -> dict[str, jax.Array]:
            matched = self.proposal_matcher(box_iou(boxes, anchors), valid)
            return {
                "classification": self.head.classification_head.compute_loss(labels, logits, matched),
                "bbox_regression": self.head.regression_head.compute_loss(boxes, offsets, anchors, matched),
            }

        return {name: loss.mean() for name, loss in jax.vmap(one)(logits, offsets, *truths(targets).values()).items()}


register_retinanet = partial(
    register_model,
    task="detection",
    paper="Lin et al. 2017, https://arxiv.org/abs/1708.02002",
    input_size=800,
    head=("head.classification_head.cls_logits",),
    parts={"resnet50": {"": "backbone.body."}},
    tables=("torchvision.DETECTION",),
)


@register_retinanet(weights=published(box_map=36.4, freeze_batch_norm=True, batch_norm_eps=0.0))
def retinanet_resnet50_fpn(
    *,
    trainable_backbone_layers: int | None = None,
    freeze_batch_norm: bool = False,
    batch_norm_eps: float = 1e-5,
    in_channels: int = 3,
    rngs: nnx.Rngs,
    **kwargs,
) -> RetinaNet:
    norm_layer = batch_norm(freeze_batch_norm, batch_norm_eps)
    backbone = resnet50_p3_to_p7(trainable_backbone_layers, in_channels, norm_layer=norm_layer, rngs=rngs)
    return RetinaNet(backbone, **kwargs, rngs=rngs)


@register_retinanet(weights=published(box_map=41.5))
def retinanet_resnet50_fpn_v2(
    *, trainable_backbone_layers: int | None = None, in_channels: int = 3, rngs: nnx.Rngs, **kwargs
) -> RetinaNet:
    backbone = resnet50_p3_to_p7(trainable_backbone_layers, in_channels, p6_channels=2048, rngs=rngs)
    head = partial(RetinaNetHead, norm_layer=partial(GroupNorm, 32), loss_type="giou")
    return RetinaNet(backbone, head=head, **kwargs, rngs=rngs)
