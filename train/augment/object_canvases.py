"""Canvases for the training of detectors: images of like shape share one, as in torchvision's aspect-ratio groups."""

from collections.abc import Sequence

import numpy as np

from jaxzoo.detection.transform import DetectionTransform, Size
from train.augment.objects import CROP_SHAPES, MULTISCALE_LONGEST, MULTISCALE_SIDES
from train.data.masks import Canvas, grouped

MOST = 7  # as many as torchvision's 2k + 1 bounds of aspect ratios, k being 3
LEAST_GAIN = 1 / 20  # of pixels, for which another program is compiled: training sees every image many times


def training_canvases(
    sizes: Sequence[Size | None], transform: DetectionTransform, preset: str, most: int = MOST, least: int = 1
) -> list[Canvas]:
    """Up to `most` canvases for all training images, each for `least` images or more; that of most images first.

    Whatever `train.augment.objects.preset` makes of an image, it fits on the canvas of its group once `transform` has
    resized it, to any of its `min_size`. Where all images are of one shape, or become so, there is one canvas.

    Args:
      sizes: height and width of each image; None, of one that cannot be read, goes with the smallest.
      transform: the detector's.
      preset: the name of the augmentation.
      least: the images of a batch, so that each canvas has batches.
    """
    if not len(sizes):
        return []
    if transform.fixed_size:
        sides = np.tile(transform.fixed_size[::-1], (len(sizes), 1))
    else:
        sides = _largest(transform, *_shapes(np.array([size or (np.nan, np.nan) for size in sizes]), preset))
    step = transform.size_divisible
    return grouped((np.ceil(np.maximum(np.nan_to_num(sides), 1) / step) * step).astype(int), most, LEAST_GAIN, least)


def _shapes(sizes: np.ndarray, preset: str) -> tuple[np.ndarray, np.ndarray]:
    """The least and the greatest width by height that augmentation makes of images of these sizes (N, 2)."""
    height, width = sizes.T
    shape = width / height
    match preset:
        case "lsj":
            return np.ones_like(shape), np.ones_like(shape)
        case "multiscale":  # sides are whole pixels, rounded down: of the smallest images that changes most
            factor = np.minimum(min(MULTISCALE_SIDES) / sizes.min(1), MULTISCALE_LONGEST / sizes.max(1))
            height, width = np.maximum(height * factor, 1), np.maximum(width * factor, 1)
            return np.maximum(width - 1, 1) / height, width / np.maximum(height - 1, 1)
        case "ssd":  # likewise, of images that are hardly enlarged
            low, high = shape * width / (width + 1), shape * (height + 1) / height
            return np.minimum(low, CROP_SHAPES[0]), np.maximum(high, CROP_SHAPES[1])
        case "ssdlite":
            return np.minimum(shape, CROP_SHAPES[0]), np.maximum(shape, CROP_SHAPES[1])
    return shape, shape


def _largest(transform: DetectionTransform, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Height and width (N, 2) that images of such shapes have at most after `transform`."""
    short, long = max(transform.min_size), transform.max_size
    slim = np.stack([1 / low, high], 1)  # of the highest image its height by width, of the widest its width by height
    sides = np.minimum(np.minimum(short * np.maximum(slim, 1), long * slim), long)
    return np.floor(sides * (1 + 1e-9))  # `transform` rounds, too, before it takes whole pixels
