"""Masks of instances between an image and the small square that Mask R-CNN predicts: torchvision's roi_heads."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxzoo.nn.ops.regions import roi_align
from jaxzoo.nn.resize import linear_weights
from jaxzoo.nn.size import Size


def project_masks_on_boxes(masks: jax.Array, boxes: jax.Array, matches: jax.Array, size: Size) -> jax.Array:
    """What a mask looks like inside a box, which is what is learned: torchvision's function of this name.

    >>> mask = jnp.zeros((1, 8, 8)).at[0, :4].set(1)
    >>> project_masks_on_boxes(mask, jnp.array([[0.0, 0.0, 8.0, 8.0]]), jnp.array([0]), 2)[0]
    Array([[0.875, 0.875],
           [0.   , 0.   ]], dtype=float32)

    Args:
      masks: (M, H, W) of an image's ground truths, from 0 to 1.
      boxes: (L, 4) in pixels, not larger than the image.
      matches: (L,) the ground truth of every box.
      size: of the square, 28 in Mask R-CNN.

    Returns:
      (L, size, size), the means of as many points as a cell has pixels, by the weights of rows and columns.
    """
    rois = jnp.concatenate([jnp.asarray(matches)[:, None].astype(boxes.dtype), boxes], 1)
    return roi_align(jnp.asarray(masks)[..., None].astype(boxes.dtype), rois, size)[..., 0]


def paste_masks_in_image(masks: np.ndarray, boxes: np.ndarray, size: tuple[int, int], padding: int = 1) -> np.ndarray:
    """Predicted masks put into an image, on the host: torchvision's `paste_masks_in_image`.

    Masks and boxes are widened by `padding` cells, corners cut off toward zero, and masks resized to their box, which
    includes its last pixel.

    >>> paste_masks_in_image(np.ones((1, 4, 4)), np.array([[1.0, 1.0, 3.0, 3.0]]), (4, 5)).round(1)[0]
    array([[0.1, 0.2, 0.2, 0.1, 0. ],
           [0.2, 1. , 1. , 0.2, 0. ],
           [0.2, 1. , 1. , 0.2, 0. ],
           [0.1, 0.2, 0.2, 0.1, 0. ]])

    Args:
      masks: (N, M, M) from 0 to 1, floating.
      boxes: (N, 4) as (x1, y1, x2, y2) in pixels.
      size: height and width of the image.

    Returns:
      (N, height, width) in the dtype of the masks.
    """
    masks, boxes = np.asarray(masks), np.asarray(boxes)
    length = masks.shape[-1]
    masks = np.pad(masks, [(0, 0), (padding, padding), (padding, padding)])
    half = (boxes[:, 2:] - boxes[:, :2]) * boxes.dtype.type(0.5) * boxes.dtype.type((length + 2 * padding) / length)
    centre = (boxes[:, 2:] + boxes[:, :2]) * boxes.dtype.type(0.5)
    corners = np.concatenate([centre - half, centre + half], 1).astype(np.int64)  # toward zero
    images = np.zeros((len(masks), *size), masks.dtype)
    for image, mask, (x1, y1, x2, y2) in zip(images, masks, corners, strict=True):
        (top, down), (left, across) = (
            _rows(low, high, bound, mask.shape[0]) for low, high, bound in ((y1, y2, size[0]), (x1, x2, size[1]))
        )
        image[top : top + len(down), left : left + len(across)] = down @ mask @ across.T
    return images


def _rows(low: int, high: int, bound: int, length: int) -> tuple[int, np.ndarray]:
    """Along one axis the first pixel inside the image, and the weights of a mask's cells in it and those after it."""
    first, end = max(low, 0), min(high + 1, bound)
    if end <= first:
        return 0, np.zeros((0, length))
    return first, linear_weights(length, max(high - low + 1, 1), None, False)[first - low : end - low]
