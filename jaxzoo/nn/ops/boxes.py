"""Areas, overlaps and formats of boxes, as torchvision.ops.boxes has them.

A box is (x1, y1, x2, y2) in pixels, x1 ≤ x2 and y1 ≤ y2, unless a format says otherwise; boxes are (..., N, 4) with any
leading axes. Whole numbers of any width, also uint8, are computed as int32 at least and half precision as float32, so
that nothing overflows. Gradients at equal coordinates and at the edge of an image are torch's.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxzoo.nn.precision import narrow, wide

UPRIGHT = ("xyxy", "xywh", "cxcywh")
ROTATED = ("cxcywhr", "xywhr", "xyxyxyxy")


def upcast(boxes: jax.Array) -> jax.Array:
    """Where areas do not overflow: float32 or int32 at least."""
    boxes = jnp.asarray(boxes)
    if jnp.issubdtype(boxes.dtype, jnp.floating):
        return wide(boxes)
    return boxes.astype(jnp.promote_types(boxes.dtype, jnp.int32))


def as_float(boxes: jax.Array) -> jax.Array:
    """In float32 at least; whole numbers become float32."""
    boxes = jnp.asarray(boxes)
    return wide(boxes) if jnp.issubdtype(boxes.dtype, jnp.floating) else boxes.astype(jnp.float32)


def clamp(x: jax.Array, least: ArrayLike | None = None, most: ArrayLike | None = None) -> jax.Array:
    """`torch.clamp`: its gradient is 0 at both bounds, where that of `jnp.clip` is a half."""
    x = x if least is None else jnp.where(x <= least, jnp.asarray(least, x.dtype), x)
    return x if most is None else jnp.where(x >= most, jnp.asarray(most, x.dtype), x)


def sides(boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Widths and heights, (...,) each."""
    return boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]


def _check_format(fmt: str, formats: tuple[str, ...] = UPRIGHT) -> None:
    if fmt not in formats:
        raise ValueError(f"the format of boxes is {fmt!r}; it must be one of: {', '.join(formats)}")


def box_area(boxes: jax.Array, fmt: str = "xyxy") -> jax.Array:
    """`torchvision.ops.box_area`: boxes (..., 4) to areas (...,), in float32 or int32 at least.

    >>> box_area(jnp.array([[0.0, 0.0, 2.0, 3.0]]))
    Array([6.], dtype=float32)
    """
    _check_format(fmt)
    width, height = sides(upcast(boxes)) if fmt == "xyxy" else (upcast(boxes)[..., 2], upcast(boxes)[..., 3])
    return width * height


def _corners(boxes: jax.Array, fmt: str) -> jax.Array:
    return boxes if fmt == "xyxy" else box_convert(boxes, fmt, "xyxy")


def _pairs(boxes1: jax.Array, boxes2: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Every box of the first with every box of the second: (..., N, 1, 4) and (..., 1, M, 4)."""
    return boxes1[..., :, None, :], boxes2[..., None, :, :]


def _overlap(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Areas of intersection and of union."""
    low, high = jnp.maximum(a[..., :2], b[..., :2]), jnp.minimum(a[..., 2:], b[..., 2:])
    common = clamp(high - low, 0)
    intersection = common[..., 0] * common[..., 1]
    return intersection, box_area(a) + box_area(b) - intersection


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    if jnp.issubdtype(part.dtype, jnp.integer):
        part, whole = part.astype(jnp.float32), whole.astype(jnp.float32)
    return part / whole


def _hull(a: jax.Array, b: jax.Array) -> jax.Array:
    """Sides of the smallest box around both, (..., 2)."""
    return clamp(jnp.maximum(a[..., 2:], b[..., 2:]) - jnp.minimum(a[..., :2], b[..., :2]), 0)


def box_iou(boxes1: jax.Array, boxes2: jax.Array, fmt: str = "xyxy") -> jax.Array:
    """`torchvision.ops.box_iou`: (..., N, 4), (..., M, 4) to intersection over union (..., N, M), in float32 at least.

    Two boxes without area have NaN, as in torchvision.

    >>> box_iou(jnp.array([[0.0, 0.0, 2.0, 2.0]]), jnp.array([[1.0, 0.0, 2.0, 2.0]]))
    Array([[0.5]], dtype=float32)
    """
    _check_format(fmt)
    return _ratio(*_overlap(*_pairs(_corners(upcast(boxes1), fmt), _corners(upcast(boxes2), fmt))))


def generalized_box_iou(boxes1: jax.Array, boxes2: jax.Array) -> jax.Array:
    """`torchvision.ops.generalized_box_iou` (Rezatofighi et al. 2019): (..., N, 4), (..., M, 4) to (..., N, M)."""
    a, b = _pairs(upcast(boxes1), upcast(boxes2))
    intersection, union = _overlap(a, b)
    hull = _hull(a, b)
    area = hull[..., 0] * hull[..., 1]
    return _ratio(intersection, union) - _ratio(area - union, area)


def distance_box_iou(boxes1: jax.Array, boxes2: jax.Array, eps: float = 1e-7) -> jax.Array:
    """`torchvision.ops.distance_box_iou` (Zheng et al. 2020): (..., N, 4), (..., M, 4) to (..., N, M)."""
    a, b = _pairs(as_float(boxes1), as_float(boxes2))
    return _ratio(*_overlap(a, b)) - _distance(a, b, eps)


def complete_box_iou(boxes1: jax.Array, boxes2: jax.Array, eps: float = 1e-7) -> jax.Array:
    """`torchvision.ops.complete_box_iou` (Zheng et al. 2020): (..., N, 4), (..., M, 4) to (..., N, M)."""
    a, b = _pairs(as_float(boxes1), as_float(boxes2))
    iou = _ratio(*_overlap(a, b))
    return iou - _distance(a, b, eps) - aspect_penalty(a, b, iou, eps)


def _distance(a: jax.Array, b: jax.Array, eps: float) -> jax.Array:
    """Squared distance of the centres by the squared diagonal of the smallest box around both."""
    between = (a[..., :2] + a[..., 2:]) / 2 - (b[..., :2] + b[..., 2:]) / 2
    return (between**2).sum(-1) / ((_hull(a, b) ** 2).sum(-1) + eps)


def aspect_penalty(a: jax.Array, b: jax.Array, iou: jax.Array, eps: float) -> jax.Array:
    """The term of the complete IoU for different aspect ratios, whose weight takes no gradient."""
    (w, h), (w_other, h_other) = sides(a), sides(b)
    v = 4 / math.pi**2 * (jnp.arctan(w / h) - jnp.arctan(w_other / h_other)) ** 2
    return lax.stop_gradient(v / (1 - iou + v + eps)) * v


def clip_boxes_to_image(boxes: jax.Array, size: tuple[ArrayLike, ArrayLike]) -> jax.Array:
    """`torchvision.ops.clip_boxes_to_image`: boxes (..., 4) moved into an image of `size` (height, width).

    Height and width may be traced, as the sizes of the images of a padded batch are.

    >>> clip_boxes_to_image(jnp.array([[-3.0, 1.0, 50.0, 9.0]]), (8, 16))
    Array([[ 0.,  1., 16.,  8.]], dtype=float32)
    """
    height, width = size
    x1, y1, x2, y2 = jnp.moveaxis(jnp.asarray(boxes), -1, 0)
    return jnp.stack([clamp(x1, 0, width), clamp(y1, 0, height), clamp(x2, 0, width), clamp(y2, 0, height)], -1)


def remove_small_boxes(boxes: jax.Array, min_size: float) -> jax.Array:
    """`torchvision.ops.remove_small_boxes` as a mask: of boxes (..., 4) those of which both sides are ≥ `min_size`.

    >>> remove_small_boxes(jnp.array([[0, 0, 9, 9], [0, 0, 9, 1]]), 2)
    Array([ True, False], dtype=bool)
    """
    width, height = sides(jnp.asarray(boxes))
    return (width >= min_size) & (height >= min_size)


def box_convert(boxes: jax.Array, in_fmt: str, out_fmt: str) -> jax.Array:
    """`torchvision.ops.box_convert`: boxes (..., K) of one format into another, in the dtype that they have.

    "xyxy" is two opposite corners, "xywh" a corner and the sides, "cxcywh" the centre and the sides; "xywhr" and
    "cxcywhr" are turned counter-clockwise by r degrees, "xyxyxyxy" is four corners. Upright and turned boxes do not
    convert into each other. Whole numbers stay whole where nothing is halved, become float32 where something is, and
    are rounded where boxes are turned.

    >>> box_convert(jnp.array([[1.0, 1.0, 3.0, 5.0]]), "xyxy", "cxcywh")
    Array([[2., 3., 2., 4.]], dtype=float32)
    """
    for fmt in (in_fmt, out_fmt):
        _check_format(fmt, (*UPRIGHT, *ROTATED))
    if (in_fmt in UPRIGHT) != (out_fmt in UPRIGHT):
        raise ValueError(f"boxes cannot be converted from {in_fmt} to {out_fmt}: one of them is upright, one is turned")
    boxes = jnp.asarray(boxes)
    numbers = 8 if in_fmt == "xyxyxyxy" else 4 + (in_fmt in ROTATED)
    if boxes.shape[-1:] != (numbers,):
        raise ValueError(f"boxes in {in_fmt} are of {numbers} numbers, (..., {numbers}); given were {boxes.shape}")
    if in_fmt == out_fmt:
        return boxes
    return (_convert_upright if in_fmt in UPRIGHT else _convert_rotated)(boxes, in_fmt, out_fmt)


def _convert_upright(boxes: jax.Array, in_fmt: str, out_fmt: str) -> jax.Array:
    x = as_float(boxes) if "cxcywh" in (in_fmt, out_fmt) else upcast(boxes)
    a, b = x[..., :2], x[..., 2:]
    low, high = {"xyxy": lambda: (a, b), "xywh": lambda: (a, a + b), "cxcywh": lambda: (a - b / 2, a + b / 2)}[in_fmt]()
    first = (low + high) / 2 if out_fmt == "cxcywh" else low
    return narrow(jnp.concatenate([first, high if out_fmt == "xyxy" else high - low], -1), boxes)


def _convert_rotated(boxes: jax.Array, in_fmt: str, out_fmt: str) -> jax.Array:
    whole = jnp.issubdtype(boxes.dtype, jnp.integer)
    if whole and "xywhr" not in (in_fmt, out_fmt):  # torchvision rounds halfway, too
        return _convert_rotated(_convert_rotated(boxes, in_fmt, "xywhr"), "xywhr", out_fmt)
    y = _from_corner(_to_corner(as_float(boxes), in_fmt), out_fmt)
    return (jnp.round(y) if whole else y).astype(boxes.dtype)


def _turned(w: jax.Array, h: jax.Array, r: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """The steps along both sides of a turned box, as (x, y) each."""
    cos, sin = jnp.cos(r * math.pi / 180), jnp.sin(r * math.pi / 180)
    return w * cos, -w * sin, h * sin, h * cos


def _to_corner(boxes: jax.Array, fmt: str) -> jax.Array:
    if fmt == "xywhr":
        return boxes
    if fmt == "cxcywhr":
        cx, cy, w, h, r = jnp.moveaxis(boxes, -1, 0)
        wx, wy, hx, hy = _turned(w, h, r)
        return jnp.stack([cx - (wx + hx) / 2, cy - (wy + hy) / 2, w, h, r], -1)
    x1, y1, x2, y2, x3, y3 = jnp.moveaxis(boxes[..., :6], -1, 0)
    r = jnp.arctan2(y1 - y2, x2 - x1) * 180 / math.pi
    return jnp.stack(
        [x1, y1, jnp.sqrt((x2 - x1) ** 2 + (y1 - y2) ** 2), jnp.sqrt((x3 - x2) ** 2 + (y3 - y2) ** 2), r], -1
    )


def _from_corner(boxes: jax.Array, fmt: str) -> jax.Array:
    if fmt == "xywhr":
        return boxes
    x, y, w, h, r = jnp.moveaxis(boxes, -1, 0)
    wx, wy, hx, hy = _turned(w, h, r)
    if fmt == "cxcywhr":
        return jnp.stack([x + (wx + hx) / 2, y + (wy + hy) / 2, w, h, r], -1)
    return jnp.stack([x, y, x + wx, y + wy, x + wx + hx, y + wy + hy, x + hx, y + hy], -1)
