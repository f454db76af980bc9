"""Outlines of objects as COCO's format has them: polygons, or run lengths, compressed or not."""

from typing import Any

import numpy as np

from jaxzoo.coco_rle import run_lengths

FARTHEST = 1e6  # pixels


def drawn_outline(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """The pixels that an object covers, bool (H, W).

    Raises:
      ValueError: it is no outline, see `polygons_of`; run lengths of another size, or damaged.
    """
    if isinstance(segmentation, dict):
        if tuple(map(int, segmentation["size"])) != size:
            raise ValueError(f"run lengths for {segmentation['size']} pixels")
        return run_lengths(segmentation["counts"], size)
    polygons = polygons_of(segmentation)
    from pycocotools import mask

    return mask.decode(mask.merge(mask.frPyObjects([list(map(float, p)) for p in polygons], *size))).astype(bool)


def polygons_of(segmentation: Any) -> list[list[float]]:
    """The polygons of an outline, each as x, y, x, y, …

    Raises:
      ValueError: there is none; one has fewer than three corners, or one that is no number or farther away than images
        are large, for which pycocotools would take all memory.
    """
    if not segmentation or not any(segmentation):
        raise ValueError("it has no outline")
    polygons = segmentation if isinstance(segmentation[0], list) else [segmentation]  # one without the list around it
    for polygon in polygons:
        try:
            corners = np.asarray(polygon, np.float64).reshape(-1, 2)
        except (TypeError, ValueError, OverflowError):
            corners = np.empty((0, 2))
        if len(corners) < 3 or not (np.abs(corners) < FARTHEST).all():
            raise ValueError("a polygon needs three corners or more, each a place in the image")
    return polygons


def box_around(polygons: list[list[float]]) -> tuple[float, float, float, float]:
    """The box (x1, y1, x2, y2) that polygons touch on all sides."""
    x, y = ([number for polygon in polygons for number in polygon[first::2]] for first in (0, 1))
    return min(x), min(y), max(x), max(y)
