"""What detectors share that predict at every place of a pyramid: candidates of each level, and the best of them all."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxzoo.errors import UsageError
from jaxzoo.nn.ops import batched_nms, clip_boxes_to_image, top_k

Detections = dict[str, jax.Array]


def check_classes(num_classes: int) -> None:
    """Raises UsageError unless there are two classes at least, of which class 0 is the background."""
    if num_classes < 2:
        raise UsageError(
            f"num_classes is {num_classes}; class 0 is the background, so one kind of object takes num_classes=2"
        )


def whole_canvas(images: jax.Array, sizes: jax.Array | None) -> jax.Array:
    """Heights and widths (N, 2) of images (N, H, W, C): those given, or that of the canvas."""
    if sizes is None:
        return jnp.broadcast_to(jnp.array(images.shape[1:3], jnp.int32), (images.shape[0], 2))
    return sizes


def with_a_row(targets: Mapping[str, jax.Array]) -> Mapping[str, jax.Array]:
    """Targets (N, M, ...), with a row of padding where M is 0."""
    if targets["valid"].shape[1]:
        return targets
    return {name: jnp.zeros((x.shape[0], 1, *x.shape[2:]), x.dtype) for name, x in targets.items()}


def truths(targets: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """`boxes` (N, M, 4), `labels` (N, M) and `valid` (N, M) among targets, at least one row."""
    return {name: with_a_row(targets)[name] for name in ("boxes", "labels", "valid")}


def by_anchor(x: jax.Array, values: int) -> jax.Array:
    """A head's map (N, h, w, anchors · values) as (N, h · w · anchors, values)."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:]) // values, values)  # of no images, -1 is not known


def smooth_l1(difference: jax.Array, beta: float = 1.0) -> jax.Array:
    """Squares near zero, absolute values less half of `beta` from there on (Fast R-CNN §2.3)."""
    size = jnp.abs(difference)
    return jnp.where(size < beta, 0.5 * size**2 / beta, size - 0.5 * beta)


def predicted(detector: nnx.Module, images: jax.Array) -> tuple[dict[str, Any], tuple[jax.Array, ...]]:
    """A detector's `head` on all levels of its `backbone`, and each level's anchors, in the dtype of the outputs."""
    features = list(detector.backbone(images).values())
    outputs = detector.head(features)
    dtype = jax.tree.leaves(outputs)[0].dtype
    return outputs, detector.anchor_generator(images.shape[1:3], [x.shape[1:3] for x in features], dtype)


class Candidates(NamedTuple):
    """Of one image and one level, by descending score."""

    scores: jax.Array  # (K,)
    labels: jax.Array  # (K,)
    anchors: jax.Array  # (K,) their indices
    valid: jax.Array  # (K,) whether the score is above the threshold


def best_candidates(scores: jax.Array, threshold: float, most: int) -> Candidates:
    """The best pairs of an anchor and a class, of scores (anchors, classes)."""
    count, classes = scores.shape
    scores, places = top_k(scores.ravel(), min(most, count * classes))
    return Candidates(scores, places % classes, places // classes, scores > threshold)


def detections(
    boxes: jax.Array, scores: jax.Array, labels: jax.Array, valid: jax.Array, nms_thresh: float, most: int
) -> Detections:
    """What non-maximum suppression within each class leaves of an image's candidates, the best first, zeros after."""
    keep, mask = batched_nms(boxes, scores, labels, nms_thresh, valid, most)
    return masked(boxes[keep], scores[keep], labels[keep], mask)


def masked(boxes: jax.Array, scores: jax.Array, labels: jax.Array, valid: jax.Array) -> Detections:
    """An image's detections by name, with zeros where they are not valid."""
    found = {"boxes": boxes, "labels": labels.astype(jnp.int32), "scores": scores}
    return {name: jnp.where(valid[:, *[None] * (x.ndim - 1)], x, 0) for name, x in found.items()} | {"valid": valid}


def best_boxes(
    detector: nnx.Module,
    images: jax.Array,
    sizes: jax.Array | None,
    scores: Sequence[jax.Array],
    offsets: Sequence[jax.Array],
    anchors: Sequence[jax.Array],
) -> Detections:
    """The detections of images by every level's scores (N, A, classes) and offsets (N, A, 4) from its anchors (A, 4).

    Args:
      detector: with `box_coder`, `score_thresh`, `topk_candidates`, `nms_thresh` and `detections_per_img`.
    """

    def one(scores: Sequence[jax.Array], offsets: Sequence[jax.Array], size: jax.Array) -> Detections:
        found, boxes = [], []
        for score, offset, anchor in zip(scores, offsets, anchors, strict=True):
            level = best_candidates(score, detector.score_thresh, detector.topk_candidates)
            box = detector.box_coder.decode(offset[level.anchors], anchor[level.anchors])
            boxes.append(clip_boxes_to_image(box, size))
            found.append(level)
        all_levels = Candidates(*(jnp.concatenate(parts) for parts in zip(*found, strict=True)))
        scores, labels, valid = all_levels.scores, all_levels.labels, all_levels.valid
        limits = detector.nms_thresh, detector.detections_per_img
        return detections(jnp.concatenate(boxes), scores, labels, valid, *limits)

    return jax.vmap(one)(scores, offsets, whole_canvas(images, sizes))
