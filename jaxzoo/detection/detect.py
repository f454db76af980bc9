"""Detectors on images of any size: what torchvision's detectors do when they are called."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx

from jaxzoo.detection.transform import DetectionTransform, Size, batched
from jaxzoo.errors import UsageError

TOLERANCE = 0.1  # by which resampling may leave the range from 0 to 1


def detect(
    model: nnx.Module,
    images: Sequence[np.ndarray],
    *,
    batch_size: int | None = None,
    canvas: Literal["exact", "buckets"] | Size = "exact",
    min_score: float = 0.0,
    max_detections: int | None = None,
) -> list[dict[str, np.ndarray]]:
    """What a detector finds in images: torchvision's call of the same model in eval mode.

    >>> (found,) = jaxzoo.detect(model, [np.zeros((480, 640, 3), np.uint8)])
    >>> found["boxes"].shape, found["labels"].shape, found["scores"].shape
    ((7, 4), (7,), (7,))

    Images are normalised and resized as `model.transform` says, and those of a batch put on one canvas, zeros right of
    and below them. A program is compiled for each shape of a batch, and kept for all models of the same architecture.

    Args:
      model: a detector of the zoo, in any mode; it is left as it is.
      images: RGB images (H, W, 3) of any sizes, uint8, or floating from 0 to 1.
      batch_size: so many images at a time; all at once unless given. Blank images fill up the last batch.
      canvas: "exact" is torchvision's, the smallest for a batch, with sides that are multiples of 32. With "buckets"
        the sides are those that photographs of a few usual shapes have, so that a folder of images takes few programs;
        results for images of other shapes change a little. Or height and width, of all batches.
      min_score: least score of what is returned; the model has a threshold of its own.
      max_detections: at most so many of an image, the best; the model has a limit of its own.

    Returns:
      For each image a dictionary: `boxes` (n, 4) as (x1, y1, x2, y2) in pixels of the image, `labels` (n,) int64 and
      `scores` (n,), best first; from Mask R-CNN `masks` (n, 1, H, W), the probability that a pixel is the object's;
      from Keypoint R-CNN `keypoints` (n, K, 3) as (x, y, 1) and `keypoints_scores` (n, K).

    Raises:
      UsageError: no detector, no such image, an image too narrow to be resized, an impossible batch size or canvas.
    """
    transform = getattr(model, "transform", None)
    if not isinstance(transform, DetectionTransform):
        raise UsageError(f"detect takes a detector, such as retinanet_resnet50_fpn; {type(model).__name__} is none")
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"batch_size is {batch_size!r}; it must be at least 1")
    images = [_checked(f"image {i}", image, len(transform.image_mean)) for i, image in enumerate(images)]
    if not images:
        return []
    size = batch_size or len(images)
    found, waiting = [], []
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def collect(outputs: Mapping[str, jax.Array], batch: list[np.ndarray], sizes: list[Size]) -> None:
            outputs = {name: np.asarray(output) for name, output in outputs.items()}
            kept = outputs.pop("valid") & (outputs["scores"] >= min_score)

            def own(i: int) -> dict[str, np.ndarray]:
                rows = np.flatnonzero(kept[i])[:max_detections]
                one = {name: output[i, rows] for name, output in outputs.items()}
                one["labels"] = one["labels"].astype(np.int64)
                return transform.postprocess(one, sizes[i], batch[i].shape[:2])

            found.extend(pool.map(own, range(len(batch))))

        for start in range(0, len(images), size):
            batch = images[start : start + size]
            ready = list(pool.map(transform, batch))
            sizes = [image.shape[:2] for image in ready]
            blank = [np.zeros_like(ready[0])] * (size - len(batch))
            outputs = _run(model, *batched(ready + blank, _canvas(transform, sizes, canvas)))
            waiting.append((outputs, batch, sizes))
            if len(waiting) > 1:  # the device computes this batch meanwhile
                collect(*waiting.pop(0))
        collect(*waiting.pop())
    return found


@jax.jit
def _run(model: nnx.Module, images: jax.Array, sizes: jax.Array) -> Mapping[str, jax.Array]:
    model.eval()  # in a program a model is a copy
    parameter = jax.tree.leaves(nnx.state(model, nnx.Param))[0]
    return model(images.astype(parameter.dtype), sizes)


def _canvas(transform: DetectionTransform, sizes: Sequence[Size], canvas: str | Size) -> Size:
    if canvas in ("exact", "buckets"):
        return transform.canvas(sizes, buckets=canvas == "buckets")
    if isinstance(canvas, str):
        raise UsageError(f'canvas is {canvas!r}; it must be "exact", "buckets", or height and width')
    height, width = (max(lengths) for lengths in zip(*sizes, strict=True))
    if height > canvas[0] or width > canvas[1]:
        raise UsageError(f"canvas={canvas} is too small for an image resized to {height} × {width}")
    return canvas


def _checked(name: str, image: Any, channels: int) -> np.ndarray:
    """An image as an array. Raises UsageError if it is none that a detector takes."""
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != channels:
        first = image.ndim == 3 and image.shape[0] == channels
        way = "; channels come last: image.transpose(1, 2, 0)" if first else ""
        raise UsageError(f"{name} has the shape {image.shape}; it must be (height, width, {channels}){way}")
    if 0 in image.shape:
        raise UsageError(f"{name} has the shape {image.shape}: it has no pixels")
    if image.dtype == np.uint8:
        return image
    if not np.issubdtype(image.dtype, np.floating):
        raise UsageError(f"{name} is of {image.dtype}; it must be of uint8, 0 to 255, or floating, 0 to 1")
    low, high = float(image.min()), float(image.max())
    if not np.isfinite([low, high]).all():
        raise UsageError(f"{name} has pixels that are no numbers (NaN or infinite)")
    if low < -TOLERANCE or high > 1 + TOLERANCE:
        raise UsageError(
            f"{name} has values from {low:.4g} to {high:.4g}; floating ones must be from 0 to 1: the model normalises "
            "images itself"
        )
    return image
