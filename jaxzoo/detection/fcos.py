"""FCOS.

Tian et al. 2019, FCOS: Fully Convolutional One-Stage Object Detection, https://arxiv.org/abs/1904.01355, as improved in
2020, FCOS: A simple and strong anchor-free object detector, https://arxiv.org/abs/2006.09214. Reference:
torchvision.models.detection.fcos.
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
from jaxzoo.errors import UsageError
from jaxzoo.nn import Conv, GroupNorm, Layer, ReLU, Sequential, init, relu
from jaxzoo.nn.ops import (
    AnchorGenerator,
    BoxLinearCoder,
    box_area,
    generalized_box_iou_loss,
    sigmoid_focal_loss,
)
from jaxzoo.nn.precision import wide
from jaxzoo.preprocess import IMAGENET_MEAN, IMAGENET_STD
from jaxzoo.registry import register_model

STRIDES = (8, 16, 32, 64, 128)  # of the levels, whose points stand for squares as large
RANGE = (4, 8)  # of the longest distance to a box's edge that a level learns, in strides (§3.2: 64 to 128 and so on)

conv = partial(Conv, kernel_size=3, padding=1, kernel_init=init.normal(0.01), bias_init=init.zeros)
group_norm = partial(GroupNorm, 32)


def tower(channels: int, num_convs: int, norm_layer: Layer, rngs: nnx.Rngs) -> Sequential:
    """Convolutions that all levels share."""
    blocks = ((conv(channels, channels, rngs=rngs), norm_layer(channels, rngs=rngs), ReLU()) for _ in range(num_convs))
    return Sequential(*(layer for block in blocks for layer in block))


class FCOSClassificationHead(nnx.Module):
    """Maps (N, h, w, in_channels) to logits (N, h · w · num_anchors, num_classes).

    Args:
      prior_probability: of an object, with which all classes start.
    """

    def __init__(
        self,
        in_channels: int,
        num_anchors: int,
        num_classes: int,
        num_convs: int = 4,
        prior_probability: float = 0.01,
        norm_layer: Layer = group_norm,
        *,
        rngs: nnx.Rngs,
    ):
        self.conv = tower(in_channels, num_convs, norm_layer, rngs)
        rare = init.constant(-math.log((1 - prior_probability) / prior_probability))
        self.cls_logits = conv(in_channels, num_anchors * num_classes, bias_init=rare, rngs=rngs)
        self.num_classes = num_classes

    def __call__(self, x: jax.Array) -> jax.Array:
        return by_anchor(self.cls_logits(self.conv(x)), self.num_classes)


class FCOSRegressionHead(nnx.Module):
    """Maps (N, h, w, in_channels) to distances (N, h · w · num_anchors, 4) and the logits of centerness, (..., 1)."""

    def __init__(
        self,
        in_channels: int,
        num_anchors: int,
        num_convs: int = 4,
        norm_layer: Layer = group_norm,
        *,
        rngs: nnx.Rngs,
    ):
        self.conv = tower(in_channels, num_convs, norm_layer, rngs)
        self.bbox_reg = conv(in_channels, num_anchors * 4, rngs=rngs)
        self.bbox_ctrness = conv(in_channels, num_anchors, rngs=rngs)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = self.conv(x)
        return by_anchor(relu(self.bbox_reg(x)), 4), by_anchor(self.bbox_ctrness(x), 1)


class FCOSHead(nnx.Module):
    """Both heads on every level: `cls_logits`, `bbox_regression` and `bbox_ctrness`, each with an array per level."""

    def __init__(self, in_channels: int, num_anchors: int, num_classes: int, num_convs: int = 4, *, rngs: nnx.Rngs):
        self.classification_head = FCOSClassificationHead(in_channels, num_anchors, num_classes, num_convs, rngs=rngs)
        self.regression_head = FCOSRegressionHead(in_channels, num_anchors, num_convs, rngs=rngs)
        self.box_coder = BoxLinearCoder()

    def __call__(self, x: Sequence[jax.Array]) -> dict[str, list[jax.Array]]:
        logits = [wide(self.classification_head(level)) for level in x]
        distances, centerness = zip(*(map(wide, self.regression_head(level)) for level in x), strict=True)
        return {"cls_logits": logits, "bbox_regression": list(distances), "bbox_ctrness": list(centerness)}

    def compute_loss(
        self,
        truth: Mapping[str, jax.Array],
        outputs: Mapping[str, jax.Array],
        anchors: jax.Array,
        matched: jax.Array,
    ) -> dict[str, jax.Array]:
        """The losses of one image, summed over its points: boxes (M, 4) and labels (M,), the outputs of all levels,
        points as squares (A, 4) and the object of each (A,)."""
        logits, distances, centerness = (outputs[name] for name in ("cls_logits", "bbox_regression", "bbox_ctrness"))
        found = matched >= 0
        right = found[:, None] & (truth["labels"][matched][:, None] == jnp.arange(logits.shape[-1]))
        goal = jnp.where(found[:, None], truth["boxes"][matched], anchors)
        overlap = generalized_box_iou_loss(self.box_coder.decode(distances, anchors), goal)
        left, top, right_edge, bottom = jnp.moveaxis(self.box_coder.encode(goal, anchors), -1, 0)
        centred = jnp.sqrt(_ratio(left, right_edge) * _ratio(top, bottom))
        entropy = -jax.nn.log_sigmoid(centerness[:, 0]) * centred - jax.nn.log_sigmoid(-centerness[:, 0]) * (
            1 - centred
        )
        return {
            "classification": sigmoid_focal_loss(logits, right.astype(logits.dtype), reduction="sum"),
            "bbox_regression": jnp.where(found, overlap, 0).sum(),
            "bbox_ctrness": jnp.where(found, entropy, 0).sum(),
        }


def _ratio(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.minimum(a, b) / jnp.maximum(a, b)


class FCOS(nnx.Module):
    """Images (N, H, W, in_channels) on a canvas, and the size of each, to the `detections_per_img` best boxes of each.

    Returns `boxes` (N, D, 4) in pixels of the canvas, `labels` (N, D) and `scores` (N, D), best first, and `valid`
    (N, D), False where there are fewer.

    Args:
      backbone: maps images to a dictionary of levels, each with `out_channels`.
      num_classes: with the background, class 0.
      min_size, max_size, image_mean, image_std: as of `DetectionTransform`.
      anchor_generator: one square for each place of a level, as large as its stride; `STRIDES` unless given.
      head: `head(out_channels, num_anchors, num_classes, rngs=rngs)`.
      center_sampling_radius: of a box's centre, within which points learn it, in strides.
      score_thresh: least score of a candidate, √(class · centerness).
      nms_thresh: IoU above which the better of two boxes of a class removes the other.
      topk_candidates: of each level, before that.
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
        head: Callable[..., FCOSHead] = FCOSHead,
        center_sampling_radius: float = 1.5,
        score_thresh: float = 0.2,
        nms_thresh: float = 0.6,
        detections_per_img: int = 100,
        topk_candidates: int = 1000,
        *,
        rngs: nnx.Rngs,
    ):
        check_classes(num_classes)
        self.backbone = backbone
        self.anchor_generator = anchor_generator or AnchorGenerator(STRIDES, (1.0,))
        anchors = self.anchor_generator.num_anchors_per_location()
        if set(anchors) != {1}:
            raise UsageError(f"FCOS has one anchor for each place of a level, and the generator makes {anchors}")
        self.head = head(backbone.out_channels, 1, num_classes, rngs=rngs)
        self.box_coder = BoxLinearCoder()
        self.transform = DetectionTransform.of(min_size, max_size, image_mean, image_std)
        self.center_sampling_radius = center_sampling_radius
        self.score_thresh, self.nms_thresh = score_thresh, nms_thresh
        self.detections_per_img, self.topk_candidates = detections_per_img, topk_candidates

    def __call__(self, images: jax.Array, sizes: jax.Array | None = None) -> Detections:
        outputs, anchors = predicted(self, images)
        chances = ([jax.nn.sigmoid(x) for x in outputs[name]] for name in ("cls_logits", "bbox_ctrness"))
        scores = [jnp.sqrt(classes * centred) for classes, centred in zip(*chances, strict=True)]
        return best_boxes(self, images, sizes, scores, outputs["bbox_regression"], anchors)

    def losses(
        self, images: jax.Array, sizes: jax.Array | None, targets: Mapping[str, jax.Array]
    ) -> dict[str, jax.Array]:
        """`classification`, `bbox_regression` and `bbox_ctrness`, by the number of points in the batch with an object.

        Args:
          images: (N, H, W, in_channels).
          sizes: heights and widths (N, 2), which do not matter here.
          targets: `boxes` (N, M, 4) in pixels of the canvas, `labels` (N, M), and `valid` (N, M), False where an image
            has fewer than M.
        """
        outputs, levels = predicted(self, images)
        outputs, anchors = {name: jnp.concatenate(x, 1) for name, x in outputs.items()}, jnp.concatenate(levels)

        def one(outputs: dict[str, jax.Array], truth: dict[str, jax.Array]) -> tuple[dict[str, jax.Array], jax.Array]:
            matched = self._match(truth["boxes"], truth["valid"], levels)
            return self.head.compute_loss(truth, outputs, anchors, matched), (matched >= 0).sum()

        losses, found = jax.vmap(one)(outputs, truths(targets))
        return {name: loss.sum() / jnp.maximum(found.sum(), 1) for name, loss in losses.items()}

    def _match(self, boxes: jax.Array, valid: jax.Array, levels: Sequence[jax.Array]) -> jax.Array:
        """The object (A,) that each point learns, or -1: of those around it that suit its level the smallest (§3.2)."""
        anchors = jnp.concatenate(levels)[:, None]  # (A, 1, 4), against (M, 4)
        point, side = (anchors[..., :2] + anchors[..., 2:]) / 2, anchors[..., 2] - anchors[..., 0]
        offset = jnp.abs(point - (boxes[:, :2] + boxes[:, 2:]) / 2).max(-1)
        distances = jnp.concatenate([point - boxes[:, :2], boxes[:, 2:] - point], -1)
        place = jnp.arange(len(anchors))[:, None]
        least = jnp.where(place < len(levels[0]), 0, side * RANGE[0])
        most = jnp.where(place < len(anchors) - len(levels[-1]), side * RANGE[1], jnp.inf)
        longest = distances.max(-1)
        suits = (offset < self.center_sampling_radius * side) & (distances.min(-1) > 0)
        suits &= (longest > least) & (longest < most) & valid
        smallness = jnp.where(
            suits, 1e8 - box_area(boxes), 0
        )  # in which torchvision compares areas, rounded in float32
        return jnp.where(smallness.max(1) < 1e-5, -1, smallness.argmax(1))


@register_model(
    task="detection",
    paper="Tian et al. 2019, https://arxiv.org/abs/1904.01355",
    input_size=800,
    head=("head.classification_head.cls_logits",),
    parts={"resnet50": {"": "backbone.body."}},
    weights=published(box_map=39.2, freeze_batch_norm=True),
)
def fcos_resnet50_fpn(
    *,
    trainable_backbone_layers: int | None = None,
    freeze_batch_norm: bool = False,
    batch_norm_eps: float = 1e-5,
    in_channels: int = 3,
    rngs: nnx.Rngs,
    **kwargs,
) -> FCOS:
    norm_layer = batch_norm(freeze_batch_norm, batch_norm_eps)
    backbone = resnet50_p3_to_p7(trainable_backbone_layers, in_channels, norm_layer=norm_layer, rngs=rngs)
    return FCOS(backbone, **kwargs, rngs=rngs)
