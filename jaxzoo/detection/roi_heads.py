"""The heads that look at proposed regions (Girshick 2015, §2). Reference: torchvision.models.detection.roi_heads."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from jaxzoo.detection.dense import Detections, masked, smooth_l1
from jaxzoo.detection.rpn import BETA, Losses, Sampler, Targets
from jaxzoo.nn import BatchNorm, Sequential
from jaxzoo.nn.cpu.convolution import in_branch
from jaxzoo.nn.ops import (
    BoxCoder,
    Matcher,
    MultiScaleRoIAlign,
    box_iou,
    clip_boxes_to_image,
    remove_small_boxes,
    top_k,
)
from jaxzoo.nn.ops.matching import BELOW_LOW_THRESHOLD
from jaxzoo.nn.ops.suppression import sorted_nms
from jaxzoo.nn.precision import wide

Features = Mapping[str, jax.Array]

PART = 16  # regions of an image that a head looks at together


class Samples(NamedTuple):
    """The regions of a batch that the heads learn from."""

    boxes: jax.Array  # (N, S, 4)
    labels: jax.Array  # (N, S), 0 for background
    matched: jax.Array  # (N, S), each region's object; any where it is background
    valid: jax.Array  # (N, S)


def pick(rows: jax.Array, places: jax.Array) -> jax.Array:
    """Of rows (N, R, ...) those at `places` (N, S)."""
    return jax.vmap(lambda rows, places: rows[places])(rows, places)


def choose(mask: jax.Array, most: int) -> tuple[jax.Array, jax.Array]:
    """The places (N, most) at which a mask (N, R) is True, by rising index, and whether there are so many."""
    places = jax.vmap(lambda mask: jnp.nonzero(mask, size=most, fill_value=0)[0])(mask)
    return places, jnp.arange(most) < mask.sum(1, keepdims=True)


def run_head(layer: nnx.Module, x: jax.Array, valid: jax.Array) -> jax.Array:
    """A head on regions (R, ...), of which those count for batch norm that `valid` (R,) has as True."""
    if isinstance(layer, BatchNorm):
        return layer(x, valid)
    if not isinstance(layer, Sequential):
        return layer(x)
    for inner in layer:
        x = run_head(inner, x, valid)
    return x


def takes_whole(head: nnx.Module) -> bool:
    """Whether a head has to see all regions at once.

    With batch norm in train mode its outputs depend on all of its inputs; and while `jaxzoo.inspect` watches its calls,
    their results must not be those of a branch.
    """
    watched = hasattr(type(head).__call__, "unwatched")
    return watched or any(isinstance(m, BatchNorm) and not m.use_running_average for _, m in nnx.iter_modules(head))


def on_regions(
    run: Callable[[jax.Array, jax.Array], jax.Array], x: jax.Array, valid: jax.Array, whole: bool
) -> jax.Array:
    """`run` of rows (R, ...) and a mask (R,), on regions (N, D, ...) of which those count that are `valid` (N, D).

    Unless as a `whole`, some at a time: the valid ones first, and zeros without running where none of them is. For a
    head on 100 regions takes longer than the network before it, and most images have few objects.
    """
    images, regions = valid.shape
    x, valid = x.reshape(-1, *x.shape[2:]), valid.ravel()
    if whole:
        y = run(x, valid)
        return y.reshape(images, regions, *y.shape[1:])
    order = jnp.argsort(~valid, stable=True)
    parts = -(-regions // PART)
    size = -(-images * regions // parts)
    missing = parts * size - images * regions

    def in_parts(rows: jax.Array) -> jax.Array:
        rows = jnp.pad(rows[order], [(0, missing)] + [(0, 0)] * (rows.ndim - 1))
        return rows.reshape(parts, size, *rows.shape[1:])

    x, valid = in_parts(x), in_parts(valid)
    with in_branch():
        empty = jax.eval_shape(run, x[0], valid[0])

        def part(given: tuple[jax.Array, jax.Array]) -> jax.Array:
            return lax.cond(given[1].any(), run, lambda *_: jnp.zeros(empty.shape, empty.dtype), *given)

        y = lax.map(part, (x, valid))
    y = y.reshape(-1, *empty.shape[1:])[jnp.argsort(order)]
    return y.reshape(images, regions, *empty.shape[1:])


class RoIHeads(nnx.Module):
    """Classes and exact boxes of proposals.

    Args:
      box_roi_pool, box_head, box_predictor: regions of feature maps to (R, h, w, C), these to vectors, and these to
        logits (R, classes) and offsets (R, classes · 4).
      fg_iou_thresh, bg_iou_thresh: IoU from which a proposal is an object's, and below which it is background.
      batch_size_per_image, positive_fraction: how many regions are learned from, and which share is objects' at most.
      bbox_reg_weights: of the offsets.
      score_thresh: what a detection's score exceeds.
      nms_thresh: IoU above which the better of two boxes of a class removes the other.
      detections_per_img: at most.
    """

    min_size = 1e-2  # pixels

    def __init__(
        self,
        box_roi_pool: MultiScaleRoIAlign,
        box_head: nnx.Module,
        box_predictor: nnx.Module,
        fg_iou_thresh: float,
        bg_iou_thresh: float,
        batch_size_per_image: int,
        positive_fraction: float,
        bbox_reg_weights: tuple[float, float, float, float] | None,
        score_thresh: float,
        nms_thresh: float,
        detections_per_img: int,
        *,
        rngs: nnx.Rngs,
    ):
        self.box_roi_pool, self.box_head, self.box_predictor = box_roi_pool, box_head, box_predictor
        self.proposal_matcher = Matcher(fg_iou_thresh, bg_iou_thresh)
        self.fg_bg_sampler = Sampler(batch_size_per_image, positive_fraction, rngs=rngs)
        self.box_coder = BoxCoder(bbox_reg_weights or (10.0, 10.0, 5.0, 5.0))
        self.score_thresh, self.nms_thresh, self.detections_per_img = score_thresh, nms_thresh, detections_per_img

    def __call__(
        self,
        features: Features,
        proposals: jax.Array,
        valid: jax.Array,
        canvas: tuple[int, int],
        sizes: jax.Array,
    ) -> Detections:
        """Detections of proposals (N, P, 4), of which those count that `valid` (N, P) has as True."""
        logits, offsets = self._classified(features, proposals, valid, canvas)
        return jax.vmap(self._detections)(logits, offsets, proposals, valid, sizes)

    def losses(
        self,
        features: Features,
        proposals: jax.Array,
        valid: jax.Array,
        canvas: tuple[int, int],
        targets: Targets,
    ) -> Losses:
        """`loss_classifier` and `loss_box_reg`, means over all chosen regions."""
        samples = self.select_training_samples(proposals, valid, targets)
        return self._losses(features, samples, canvas, targets)

    def _losses(self, features: Features, samples: Samples, canvas: tuple[int, int], targets: Targets) -> Losses:
        logits, offsets = self._classified(features, samples.boxes, samples.valid, canvas)
        positive = samples.labels > 0
        # Where there is no object, boxes that have offsets and slopes.
        unit = jnp.array([0, 0, 1, 1], samples.boxes.dtype)
        anchors = jnp.where(positive[..., None], samples.boxes, unit)
        goals = jnp.where(positive[..., None], pick(targets["boxes"], samples.matched).astype(unit.dtype), unit)
        offsets = jnp.take_along_axis(offsets, samples.labels[..., None, None], 2)[:, :, 0]
        distance = smooth_l1(offsets - self.box_coder.encode(goals, anchors), BETA)
        likelihood = jnp.take_along_axis(jax.nn.log_softmax(logits), samples.labels[..., None], 2)[..., 0]
        count = jnp.maximum(samples.valid.sum(), 1)
        return {
            "loss_classifier": -jnp.where(samples.valid, likelihood, 0).sum() / count,
            "loss_box_reg": jnp.where(positive[..., None], distance, 0).sum() / count,
        }

    def select_training_samples(self, proposals: jax.Array, valid: jax.Array, targets: Targets) -> Samples:
        """A sample of the proposals and, after them, the objects' own boxes."""
        boxes = jnp.concatenate([proposals, targets["boxes"].astype(proposals.dtype)], 1)
        valid = jnp.concatenate([valid, targets["valid"]], 1)

        def assign(boxes: jax.Array, truths: jax.Array, classes: jax.Array, counts: jax.Array) -> tuple:
            matched = self.proposal_matcher(box_iou(truths, boxes), counts)
            background = jnp.where(matched == BELOW_LOW_THRESHOLD, 0, -1)
            matched_or_first = jnp.maximum(matched, 0)
            return matched_or_first, jnp.where(matched >= 0, classes[matched_or_first], background)

        matched, labels = jax.vmap(assign)(boxes, targets["boxes"], targets["labels"], targets["valid"])
        positive, negative = self.fg_bg_sampler(jnp.where(valid, labels, -1))
        places, valid = choose(positive | negative, min(self.fg_bg_sampler.choose.batch_size_per_image, boxes.shape[1]))
        labels = jnp.where(valid, pick(labels, places), 0)
        return Samples(pick(boxes, places), labels, pick(matched, places), valid)

    def positives(self, samples: Samples) -> Samples:
        """Those of samples that are objects."""
        most = min(self.fg_bg_sampler.most_positive, samples.labels.shape[1])
        places, valid = choose(samples.labels > 0, most)
        return Samples(*(pick(rows, places) for rows in samples[:3]), valid)

    def _classified(
        self, features: Features, boxes: jax.Array, valid: jax.Array, canvas: tuple[int, int]
    ) -> tuple[jax.Array, jax.Array]:
        """Logits (N, R, classes) and offsets (N, R, classes, 4) of regions (N, R, 4)."""
        images, regions, _ = boxes.shape
        pooled = self.box_roi_pool(features, boxes, canvas[0])
        hidden = run_head(self.box_head, pooled.reshape(-1, *pooled.shape[2:]), valid.ravel())
        logits, offsets = map(wide, self.box_predictor(hidden))
        return logits.reshape(images, regions, -1), offsets.reshape(images, regions, -1, 4)

    def _detections(
        self, logits: jax.Array, offsets: jax.Array, proposals: jax.Array, valid: jax.Array, size: jax.Array
    ) -> Detections:
        """Those of one image: the best of what is left of each class."""
        scores, most = jax.nn.softmax(logits)[:, 1:], self.detections_per_img
        regions, classes = scores.shape
        # So many classes of a region can exceed the threshold; their scores sum to 1, but for rounding.
        above = classes if self.score_thresh <= 0 else min(classes, int(1 / self.score_thresh) + 1)
        count = max(regions * above, most)
        scores = jnp.where(valid[:, None] & (scores > self.score_thresh), scores, -1).ravel()
        scores = jnp.pad(scores, (0, max(count - len(scores), 0)), constant_values=-1)
        scores, pairs = top_k(scores, count)  # of a region and a class
        region, label = pairs // classes, pairs % classes + 1
        boxes = self.box_coder.decode(offsets[region, label], proposals[region])
        boxes = clip_boxes_to_image(boxes, size)
        valid = (scores >= 0) & remove_small_boxes(boxes, self.min_size)
        keep, kept = sorted_nms(boxes, label, valid, self.nms_thresh, most)
        return masked(boxes[keep], scores[keep], label[keep], jnp.arange(most) < kept)
