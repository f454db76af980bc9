"""SSD.

Liu et al. 2016, SSD: Single Shot MultiBox Detector, https://arxiv.org/abs/1512.02325. Reference:
torchvision.models.detection.ssd.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from jaxzoo.classification.vgg import D, make_layers
from jaxzoo.detection.backbone import freeze_first
from jaxzoo.detection.coco_weights import published
from jaxzoo.detection.dense import (
    Detections,
    by_anchor,
    check_classes,
    masked,
    predicted,
    smooth_l1,
    truths,
    whole_canvas,
)
from jaxzoo.detection.transform import DetectionTransform
from jaxzoo.errors import UsageError
from jaxzoo.nn import Conv, Layer, MaxPool, ReLU, Sequential, init
from jaxzoo.nn.ops import (
    BoxCoder,
    DefaultBoxGenerator,
    SSDMatcher,
    box_iou,
    clip_boxes_to_image,
    l2_normalize,
    nms,
    top_k,
)
from jaxzoo.nn.precision import wide
from jaxzoo.preprocess import IMAGENET_MEAN, IMAGENET_STD
from jaxzoo.registry import register_model

conv = partial(Conv, kernel_init=init.xavier_uniform, bias_init=init.zeros)
three_by_three = partial(conv, kernel_size=3, padding=1)


class SSDScoringHead(nnx.Module):
    """Maps (N, h, w, channels) of several levels, each through its own module, to (N, boxes, num_columns)."""

    def __init__(self, module_list: Sequence[nnx.Module], num_columns: int):
        self.module_list, self.num_columns = nnx.List(module_list), num_columns

    def __call__(self, x: Sequence[jax.Array]) -> jax.Array:
        levels = zip(self.module_list, x, strict=True)
        return wide(jnp.concatenate([by_anchor(module(level), self.num_columns) for module, level in levels], 1))


class SSDHead(nnx.Module):
    """`cls_logits` (N, boxes, num_classes) and `bbox_regression` (N, boxes, 4) of the default boxes of all levels.

    Args:
      in_channels, num_anchors: of each level.
      block: `block(in_channels, out_channels, rngs=rngs)`, of which every level has two; a 3×3 convolution (§2.1).
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_anchors: Sequence[int],
        num_classes: int,
        block: Layer = three_by_three,
        *,
        rngs: nnx.Rngs,
    ):
        def scoring_head(columns: int) -> SSDScoringHead:
            levels = zip(in_channels, num_anchors, strict=True)
            return SSDScoringHead([block(channels, columns * n, rngs=rngs) for channels, n in levels], columns)

        self.classification_head, self.regression_head = scoring_head(num_classes), scoring_head(4)

    def __call__(self, x: Sequence[jax.Array]) -> dict[str, jax.Array]:
        return {"cls_logits": self.classification_head(x), "bbox_regression": self.regression_head(x)}


class SSD(nnx.Module):
    """Images (N, H, W, in_channels) of one size to the `detections_per_img` best boxes of each.

    Returns `boxes` (N, D, 4) in pixels, `labels` (N, D) and `scores` (N, D), best first, and `valid` (N, D), False
    where there are fewer.

    Args:
      backbone: maps images to a dictionary of levels, finest first, of `out_channels`, a number for each.
      anchor_generator: of the default boxes of as many levels.
      size: width and height to which images are resized, in pixels.
      num_classes: with the background, class 0.
      image_mean, image_std: as of `DetectionTransform`.
      head: `head(out_channels, num_anchors, num_classes, rngs=rngs)`.
      score_thresh: least score of a candidate.
      nms_thresh: IoU above which the better of two boxes of a class removes the other.
      iou_thresh: IoU from which a default box is an object's; each object also has the box that it overlaps most.
      topk_candidates: of each class, before that.
      positive_fraction: share of objects' boxes in the loss of the classes; the rest is background.
    """

    def __init__(
        self,
        backbone: nnx.Module,
        anchor_generator: DefaultBoxGenerator,
        size: tuple[int, int],
        num_classes: int,
        image_mean: Sequence[float] = IMAGENET_MEAN,
        image_std: Sequence[float] = IMAGENET_STD,
        head: Callable[..., SSDHead] = SSDHead,
        score_thresh: float = 0.01,
        nms_thresh: float = 0.45,
        detections_per_img: int = 200,
        iou_thresh: float = 0.5,
        topk_candidates: int = 400,
        positive_fraction: float = 0.25,
        *,
        rngs: nnx.Rngs,
    ):
        check_classes(num_classes)
        if not 0 < positive_fraction <= 1:
            raise UsageError(f"positive_fraction is {positive_fraction}; it must be above 0 and at most 1")
        num_anchors = anchor_generator.num_anchors_per_location()
        if len(backbone.out_channels) != len(num_anchors):
            raise UsageError(
                f"the backbone has {len(backbone.out_channels)} levels and the anchor generator {len(num_anchors)}"
            )
        self.backbone, self.anchor_generator = backbone, anchor_generator
        self.head = head(backbone.out_channels, num_anchors, num_classes, rngs=rngs)
        self.proposal_matcher, self.box_coder = SSDMatcher(iou_thresh), BoxCoder((10.0, 10.0, 5.0, 5.0))
        self.transform = transform_of(size, image_mean, image_std)
        self.score_thresh, self.nms_thresh = score_thresh, nms_thresh
        self.detections_per_img, self.topk_candidates = detections_per_img, topk_candidates
        self.neg_to_pos_ratio = (1.0 - positive_fraction) / positive_fraction

    def __call__(self, images: jax.Array, sizes: jax.Array | None = None) -> Detections:
        outputs, levels = predicted(self, images)
        anchors = jnp.concatenate(levels)

        def one(logits: jax.Array, offsets: jax.Array, size: jax.Array) -> Detections:
            boxes = clip_boxes_to_image(self.box_coder.decode(offsets, anchors), size)
            return self._best(boxes, jax.nn.softmax(logits)[:, 1:].T)

        return jax.vmap(one)(outputs["cls_logits"], outputs["bbox_regression"], whole_canvas(images, sizes))

    def _best(self, boxes: jax.Array, scores: jax.Array) -> Detections:
        """Those of an image's boxes (A, 4) by their scores (classes, A), which leave other classes alone."""
        scores, places = top_k(scores, min(self.topk_candidates, len(boxes)))
        most = min(self.detections_per_img, scores.shape[1])
        one_class = partial(nms, iou_threshold=self.nms_thresh, max_output=most)
        keep, valid = jax.vmap(one_class)(boxes[places], scores, valid=scores > self.score_thresh)

        def of_all(x: jax.Array) -> jax.Array:
            x = jnp.take_along_axis(x, keep, 1).ravel()
            return jnp.pad(x, (0, max(self.detections_per_img - len(x), 0)))

        valid = jnp.pad(valid.ravel(), (0, max(self.detections_per_img - valid.size, 0)))
        scores, best = lax.top_k(jnp.where(valid, of_all(scores), -jnp.inf), self.detections_per_img)
        return masked(boxes[of_all(places)[best]], scores, best // most + 1, valid[best])

    def losses(
        self, images: jax.Array, sizes: jax.Array | None, targets: Mapping[str, jax.Array]
    ) -> dict[str, jax.Array]:
        """`classification` and `bbox_regression`, by the number of boxes in the batch that have an object (§2.2).

        Args:
          images: (N, H, W, in_channels).
          sizes: heights and widths (N, 2), which do not matter here.
          targets: `boxes` (N, M, 4) in pixels of the canvas, `labels` (N, M), and `valid` (N, M), False where an image
            has fewer than M.
        """
        outputs, levels = predicted(self, images)
        anchors = jnp.concatenate(levels)

        def one(
            logits: jax.Array, offsets: jax.Array, boxes: jax.Array, labels: jax.Array, valid: jax.Array
        ) -> tuple[dict[str, jax.Array], jax.Array]:
            matched = self.proposal_matcher(box_iou(boxes, anchors), valid)
            found = matched >= 0
            goal = self.box_coder.encode(jnp.where(found[:, None], boxes[matched], anchors), anchors)
            label = jnp.where(found, labels[matched], 0)
            entropy = -jnp.take_along_axis(jax.nn.log_softmax(logits), label[:, None], 1)[:, 0]
            positive = label > 0
            times = positive.astype(int) + self._hard_negatives(lax.stop_gradient(entropy), positive)
            distance = jnp.where(found[:, None], smooth_l1(offsets - goal), 0)
            return {"classification": (times * entropy).sum(), "bbox_regression": distance.sum()}, found.sum()

        losses, found = jax.vmap(one)(outputs["cls_logits"], outputs["bbox_regression"], *truths(targets).values())
        return {name: loss.sum() / jnp.maximum(found.sum(), 1) for name, loss in losses.items()}

    def _hard_negatives(self, loss: jax.Array, positive: jax.Array) -> jax.Array:
        """Which of an image's boxes (A,) are background that it learns: those of the highest loss (§2.2).

        As many by positive ones as the ratio says; where there are not as many, positive ones count again, as in
        torchvision.
        """
        order = jnp.argsort(jnp.where(positive, -jnp.inf, loss), descending=True)
        chosen = lax.iota(jnp.int32, len(loss)) < self.neg_to_pos_ratio * positive.sum()
        return jnp.zeros_like(positive).at[order].set(chosen)


def transform_of(size: tuple[int, int], image_mean: Sequence[float], image_std: Sequence[float]) -> DetectionTransform:
    """That of a detector whose images have one size, (width, height)."""
    values = {"image_mean": tuple(image_mean), "image_std": tuple(image_std)}
    return DetectionTransform(**values, size_divisible=1, fixed_size=tuple(size))


class SSDFeatureExtractorVGG(nnx.Module):
    """Images to maps "0", at 1/8 of their size, to "5" (figure 2).

    Args:
      backbone: the layers of a VGG, which move here: up to the fourth pool to `features`, up to the fifth to `extra`.
    """

    out_channels = (512, 1024, 512, 256, 256, 256)

    def __init__(self, backbone: Sequential, *, rngs: nnx.Rngs):
        layers = list(backbone)
        _, _, third, fourth, fifth = (i for i, layer in enumerate(layers) if isinstance(layer, MaxPool))
        layers[third].ceil_mode = True  # for the paper's 38 × 38 pixels

        def extra(in_channels: int, out_channels: int, stride: int, padding: int) -> Sequential:
            hidden = out_channels // 2
            return Sequential(
                conv(in_channels, hidden, 1, rngs=rngs),
                ReLU(),
                conv(hidden, out_channels, 3, stride, padding, rngs=rngs),
                ReLU(),
            )

        self.scale_weight = nnx.Param(jnp.full(512, 20.0, jnp.float32))
        self.features = Sequential(*layers[:fourth])
        fc = Sequential(
            MaxPool(3, 1, 1),
            conv(512, 1024, 3, padding=6, dilation=6, rngs=rngs),
            ReLU(),
            conv(1024, 1024, 1, rngs=rngs),
            ReLU(),
        )
        self.extra = nnx.List(
            [
                Sequential(*layers[fourth:fifth], fc),
                extra(1024, 512, 2, 1),
                extra(512, 256, 2, 1),
                extra(256, 256, 1, 0),
                extra(256, 256, 1, 0),
            ]
        )

    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        x = self.features(x)
        maps = [l2_normalize(x) * self.scale_weight[...]]
        for block in self.extra:
            x = block(x)
            maps.append(x)
        return {str(i): level for i, level in enumerate(maps)}


def stages(layers: Sequence[nnx.Module], starts: Sequence[int]) -> list[list[nnx.Module]]:
    """Layers in groups, each from one start to the next."""
    return [list(layers)[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]


PIXELS = {"image_mean": (0.48235, 0.45882, 0.40784), "image_std": (1 / 255,) * 3}  # 0 to 255 less the mean, as Caffe's
WHERE = {24: 1, 26: 3, 28: 5}  # VGG's last three convolutions, in the first of the extra blocks


@register_model(
    task="detection",
    cam_layer="backbone.features",  # all levels come of it; a box is of one of them
    paper="Liu et al. 2016, https://arxiv.org/abs/1512.02325",
    input_size=300,
    head=("head.classification_head.module_list",),
    weights=published(transform_of((300, 300), **PIXELS), box_map=25.1),
    parts={
        "vgg16": {"features.": "backbone.features."}
        | {f"features.{i}.": f"backbone.extra.0.{j}." for i, j in WHERE.items()}
    },
)
def ssd300_vgg16(
    *,
    num_classes: int = 91,
    trainable_backbone_layers: int | None = None,
    size: tuple[int, int] = (300, 300),
    in_channels: int = 3,
    rngs: nnx.Rngs,
    **kwargs,
) -> SSD:
    layers = make_layers(D, in_channels=in_channels, rngs=rngs)
    pools = [i for i, layer in enumerate(layers) if isinstance(layer, MaxPool)]
    freeze_first(stages(layers, [0, *pools[:-1]]), trainable_backbone_layers)
    anchor_generator = DefaultBoxGenerator(
        [[2], [2, 3], [2, 3], [2, 3], [2], [2]],
        scales=[0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05],
        steps=[8, 16, 32, 64, 100, 300],
    )
    backbone = SSDFeatureExtractorVGG(layers, rngs=rngs)
    return SSD(backbone, anchor_generator, size, num_classes, **PIXELS | kwargs, rngs=rngs)
