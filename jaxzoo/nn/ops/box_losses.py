"""Losses of boxes against boxes, row by row, as torchvision.ops has them."""

import jax
import jax.numpy as jnp

from jaxzoo.nn.ops.boxes import as_float, aspect_penalty, box_area
from jaxzoo.nn.ops.reduction import reduce

_DISTANCE_EPS = 1e-7  # of the distance within the complete loss, whatever eps that is given


def generalized_box_iou_loss(
    boxes1: jax.Array, boxes2: jax.Array, reduction: str = "none", eps: float = 1e-7
) -> jax.Array:
    """`torchvision.ops.generalized_box_iou_loss` (Rezatofighi et al. 2019, https://arxiv.org/abs/1902.09630).

    Args:
      boxes1, boxes2: (..., 4) as (x1, y1, x2, y2); computed in float32 at least.
      reduction: "none" gives (...,), "mean" and "sum" a number; the mean of no boxes is 0.
      eps: keeps boxes without area from dividing by zero.

    >>> box = jnp.array([0.0, 0.0, 2.0, 2.0])
    >>> print(f"{generalized_box_iou_loss(box, box + 2):.3f}")
    1.500
    """
    a, b = as_float(boxes1), as_float(boxes2)
    intersection, union = _overlap(a, b)
    hull = _hull(a, b)
    area = hull[..., 0] * hull[..., 1]
    return reduce(1 - (intersection / (union + eps) - (area - union) / (area + eps)), reduction)


def distance_box_iou_loss(
    boxes1: jax.Array, boxes2: jax.Array, reduction: str = "none", eps: float = 1e-7
) -> jax.Array:
    """`torchvision.ops.distance_box_iou_loss` (Zheng et al. 2020, https://arxiv.org/abs/1911.08287).

    Arguments and result as of `generalized_box_iou_loss`.
    """
    return reduce(_distance_loss(as_float(boxes1), as_float(boxes2), eps)[0], reduction)


def complete_box_iou_loss(
    boxes1: jax.Array, boxes2: jax.Array, reduction: str = "none", eps: float = 1e-7
) -> jax.Array:
    """`torchvision.ops.complete_box_iou_loss` (Zheng et al. 2020, https://arxiv.org/abs/1911.08287).

    Arguments and result as of `generalized_box_iou_loss`; the weight of the aspect ratio takes no gradient.
    """
    a, b = as_float(boxes1), as_float(boxes2)
    loss, iou = _distance_loss(a, b, _DISTANCE_EPS)
    return reduce(loss + aspect_penalty(a, b, iou, eps), reduction)


def _overlap(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Areas of intersection and of union; boxes that only touch take no gradient here."""
    low, high = jnp.maximum(a[..., :2], b[..., :2]), jnp.minimum(a[..., 2:], b[..., 2:])
    intersection = jnp.where((high > low).all(-1), (high - low).prod(-1), 0)
    return intersection, box_area(a) + box_area(b) - intersection


def _hull(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.maximum(a[..., 2:], b[..., 2:]) - jnp.minimum(a[..., :2], b[..., :2])


def _distance_loss(a: jax.Array, b: jax.Array, eps: float) -> tuple[jax.Array, jax.Array]:
    intersection, union = _overlap(a, b)
    iou = intersection / (union + eps)
    between = (a[..., :2] + a[..., 2:]) / 2 - (b[..., :2] + b[..., 2:]) / 2
    return 1 - iou + (between**2).sum(-1) / ((_hull(a, b) ** 2).sum(-1) + eps), iou
