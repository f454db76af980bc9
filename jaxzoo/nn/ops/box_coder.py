"""Boxes as offsets from others, which is what networks regress: torchvision.models.detection._utils."""

import math

import jax
import jax.numpy as jnp

from jaxzoo.nn.ops.boxes import clamp, sides
from jaxzoo.nn.ops.static import Static

MAX_LOG_SCALE = math.log(1000 / 16)  # a decoded side is at most so many times that of its anchor


def _centre(boxes: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    width, height = sides(boxes)
    return boxes[..., 0] + 0.5 * width, boxes[..., 1] + 0.5 * height, width, height


class BoxCoder(Static):
    """Offsets (dx, dy, dw, dh): centres by the anchor's sides, sides by their logarithm, all times `weights`.

    R-CNN §C; `encode_single` and `decode_single` of torchvision's `BoxCoder`. Boxes are (..., 4) as (x1, y1, x2, y2)
    in any floating dtype, anchors broadcast against them. Anchors without area give infinite or NaN offsets.

    >>> coder, anchors = BoxCoder((10.0, 10.0, 5.0, 5.0)), jnp.array([[0.0, 0.0, 4.0, 4.0]])
    >>> coder.decode(coder.encode(jnp.array([[1.0, 0.0, 5.0, 4.0]]), anchors), anchors)
    Array([[1., 0., 5., 4.]], dtype=float32)

    Args:
      weights: of (dx, dy, dw, dh).
      bbox_xform_clip: the largest dw and dh that are decoded; small ones are not clamped.
    """

    def __init__(
        self,
        weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
        bbox_xform_clip: float = MAX_LOG_SCALE,
    ):
        self.weights, self.bbox_xform_clip = tuple(weights), bbox_xform_clip

    def encode(self, boxes: jax.Array, anchors: jax.Array) -> jax.Array:
        """Boxes (..., 4) as offsets (..., 4) from anchors."""
        x, y, w, h = _centre(boxes)
        ax, ay, aw, ah = _centre(anchors)
        wx, wy, ww, wh = self.weights
        dx, dy = wx * (x - ax) / aw, wy * (y - ay) / ah
        return jnp.stack([dx, dy, ww * jnp.log(w / aw), wh * jnp.log(h / ah)], -1)

    def decode(self, offsets: jax.Array, anchors: jax.Array) -> jax.Array:
        """Offsets (..., 4) from anchors as boxes (..., 4), in the dtype of the offsets."""
        ax, ay, aw, ah = _centre(anchors.astype(offsets.dtype))
        dx, dy, dw, dh = (offsets[..., i] / weight for i, weight in enumerate(self.weights))
        x, y = dx * aw + ax, dy * ah + ay
        w = 0.5 * (jnp.exp(clamp(dw, most=self.bbox_xform_clip)) * aw)
        h = 0.5 * (jnp.exp(clamp(dh, most=self.bbox_xform_clip)) * ah)
        return jnp.stack([x - w, y - h, x + w, y + h], -1)


class BoxLinearCoder(Static):
    """Distances (left, top, right, bottom) from an anchor's centre to a box's edges (FCOS §3.1), as torchvision's.

    >>> BoxLinearCoder().encode(jnp.array([[1.0, 0.0, 5.0, 4.0]]), jnp.array([[0.0, 0.0, 4.0, 4.0]]))
    Array([[0.25, 0.5 , 0.75, 0.5 ]], dtype=float32)

    Args:
      normalize_by_size: distances are in units of the anchor's sides.
    """

    def __init__(self, normalize_by_size: bool = True):
        self.normalize_by_size = normalize_by_size

    def encode(self, boxes: jax.Array, anchors: jax.Array) -> jax.Array:
        """Boxes (..., 4) as distances (..., 4) from the centres of anchors."""
        centre = 0.5 * (anchors[..., :2] + anchors[..., 2:])
        distances = jnp.concatenate([centre - boxes[..., :2], boxes[..., 2:] - centre], -1)
        return distances / self._unit(anchors)

    def decode(self, offsets: jax.Array, anchors: jax.Array) -> jax.Array:
        """Distances (..., 4) from the centres of anchors as boxes (..., 4), in the dtype of the distances."""
        anchors = anchors.astype(offsets.dtype)
        centre = 0.5 * (anchors[..., :2] + anchors[..., 2:])
        distances = offsets * self._unit(anchors)
        return jnp.concatenate([centre - distances[..., :2], centre + distances[..., 2:]], -1)

    def _unit(self, anchors: jax.Array) -> jax.Array | int:
        return jnp.stack(sides(anchors) * 2, -1) if self.normalize_by_size else 1
