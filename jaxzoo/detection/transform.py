"""Images as detectors see them, and their findings as images have them: torchvision.models.detection.transform."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from jaxzoo.errors import UsageError
from jaxzoo.nn.ops import paste_masks_in_image
from jaxzoo.preprocess import IMAGENET_MEAN, IMAGENET_STD, register_preparation

SHAPES = (1, 4 / 3, 3 / 2, 16 / 9, 2, 3)  # of photographs: their longer side divided by the shorter one

Size = tuple[int, int]  # height and width in pixels


@register_preparation
@dataclasses.dataclass(frozen=True)
class DetectionTransform:
    """Normalises an image and resizes it as large as it can be: shorter side `min_size`, longer one `max_size` at most.

    Args:
      min_size: in pixels; of several, training draws one, and evaluation takes the last.
      max_size: in pixels.
      image_mean, image_std: of each channel, of values from 0 to 1.
      size_divisible: the canvas of a batch has multiples of so many pixels.
      fixed_size: width and height of all images, whatever their shape, in place of the sizes.
    """

    min_size: tuple[int, ...] = (800,)
    max_size: int = 1333
    image_mean: tuple[float, ...] = IMAGENET_MEAN
    image_std: tuple[float, ...] = IMAGENET_STD
    size_divisible: int = 32
    fixed_size: tuple[int, int] | None = None
    kind: ClassVar[str] = "detection"

    @classmethod
    def of(
        cls,
        min_size: int | Sequence[int],
        max_size: int,
        image_mean: Sequence[float],
        image_std: Sequence[float],
        **more,
    ) -> "DetectionTransform":
        """Of the arguments that detectors take, lists among them."""
        sizes = (min_size,) if isinstance(min_size, int) else tuple(min_size)
        return cls(sizes, max_size, tuple(image_mean), tuple(image_std), **more)

    def __call__(self, image: Any) -> np.ndarray:
        """An image (H, W, C) as the network wants it: float32 (h, w, C), normalised and then resized to `size`.

        Args:
          image: bytes, or floats from 0 to 1; or a picture of Pillow's.
        """
        image = np.asarray(image)
        height, width = self.size(*image.shape[:2])
        top, bottom, down = _taps(image.shape[0], height)
        left, right, across = _taps(image.shape[1], width, image.shape[2])
        used, places = np.unique([top, bottom], return_inverse=True)  # of a large image many rows are not
        top, bottom = places.reshape(2, -1)
        pixels = image[used].astype(np.float32)
        if image.dtype == np.uint8:
            pixels /= 255
        pixels -= np.asarray(self.image_mean, np.float32)
        pixels /= np.asarray(self.image_std, np.float32)
        pixels = pixels.reshape(len(used), -1)
        pixels = np.take(pixels, left, 1) * (1 - across) + np.take(pixels, right, 1) * across
        pixels = pixels[top] * (1 - down)[:, None] + pixels[bottom] * down[:, None]
        return pixels.reshape(height, width, -1)

    def size(self, height: int, width: int) -> Size:
        """Height and width to which an image of this one is resized. Raises UsageError if one of them is 0."""
        if self.fixed_size:
            return self.fixed_size[1], self.fixed_size[0]
        scale = min(self.min_size[-1] / min(height, width), self.max_size / max(height, width))
        size = math.floor(height * scale), math.floor(width * scale)
        if 0 in size:
            raise UsageError(
                f"an image of {width} × {height} pixels is too narrow: nothing of it is left when its longer side is "
                f"{max(size)} pixels, as max_size={self.max_size} asks for"
            )
        return size

    def at(self, size: int) -> "DetectionTransform":
        """The same for a shorter side of `size` pixels; the longer one keeps its proportion to it."""
        if self.fixed_size:
            return dataclasses.replace(self, fixed_size=(size, size))
        return dataclasses.replace(self, min_size=(size,), max_size=round(size * self.max_size / self.min_size[-1]))

    @property
    def side(self) -> int:
        return min(self.fixed_size) if self.fixed_size else self.min_size[-1]

    def size_text(self) -> str:
        if self.fixed_size:
            return f"{self.fixed_size[0]} x {self.fixed_size[1]} pixels"
        return f"shorter side {self.side} pixels, longer one {self.max_size} at most"

    def described(self) -> str:
        """In words."""
        sides = f"shorter side to {self.min_size[-1]}, longer one to {self.max_size} at most"
        if self.fixed_size:
            sides = f"to {self.fixed_size[0]} × {self.fixed_size[1]}"
        return f"{sides} (bilinear), mean {self.image_mean}, std {self.image_std}"

    def canvas(self, sizes: Sequence[Size], buckets: bool = False) -> Size:
        """Height and width of the canvas for images of these sizes.

        Args:
          sizes: heights and widths, as `size` gives them.
          buckets: to have few different ones, each side is as long as the next longer one of a photograph of `SHAPES`.
        """
        sides = [self._divisible(max(lengths)) for lengths in zip(*sizes, strict=True)]
        if buckets:
            photographs = [self.size(720, round(720 * shape)) for shape in SHAPES]
            usual = sorted({self._divisible(side) for size in (*photographs, (self.max_size,)) for side in size})
            sides = [next((longer for longer in usual if longer >= side), side) for side in sides]
        return sides[0], sides[1]

    def _divisible(self, side: int) -> int:
        return math.ceil(side / self.size_divisible) * self.size_divisible

    def postprocess(self, found: Mapping[str, np.ndarray], size: Size, own: Size) -> dict[str, np.ndarray]:
        """What was found in one image, in pixels of the image itself.

        Args:
          found: `boxes` (n, 4), and, if there are any, `masks` (n, M, M) of probabilities and `keypoints` (n, K, 3).
          size: of the image on the canvas.
          own: of the image itself.

        Returns:
          The same, but for `masks` (n, 1, height, width) of probabilities.
        """
        found = dict(found) | {"boxes": resize_boxes(found["boxes"], size, own)}
        if "masks" in found:
            found["masks"] = paste_masks_in_image(found["masks"], found["boxes"], own)[:, None]
        if "keypoints" in found:
            found["keypoints"] = resize_keypoints(found["keypoints"], size, own)
        return found


def batched(images: Sequence[np.ndarray], canvas: Size) -> tuple[np.ndarray, np.ndarray]:
    """Images (h, w, C) of several sizes on one canvas (N, H, W, C), zeros right of and below them; and sizes (N, 2)."""
    batch = np.zeros((len(images), *canvas, images[0].shape[2]), images[0].dtype)
    for place, image in zip(batch, images, strict=True):
        place[: image.shape[0], : image.shape[1]] = image
    return batch, np.array([image.shape[:2] for image in images], np.int32)


def resize_boxes(boxes: np.ndarray, old: Size, new: Size) -> np.ndarray:
    """Boxes (n, 4) as (x1, y1, x2, y2) in an image that is resized: torchvision's function of this name."""
    down, across = map(_ratio, old, new)
    return np.asarray(boxes) * np.array([across, down, across, down])


def resize_keypoints(keypoints: np.ndarray, old: Size, new: Size) -> np.ndarray:
    """Keypoints (n, K, 3) as (x, y, visibility) in an image that is resized: torchvision's function of this name."""
    down, across = map(_ratio, old, new)
    return np.asarray(keypoints) * np.array([across, down, np.float32(1)])


def resize_masks(masks: np.ndarray, new: Size) -> np.ndarray:
    """Masks (n, H, W) of an image that is resized: the nearest pixel above and left of each place, as torchvision."""
    rows, columns = (
        np.minimum((np.arange(after, dtype=np.float32) * _ratio(after, before)).astype(np.int64), before - 1)
        for before, after in zip(masks.shape[1:], new, strict=True)
    )
    return np.take(np.take(masks, rows, 1), columns, 2)  # four times as fast as indexing by both at once


def _ratio(before: int, after: int) -> np.float32:
    return np.float32(after) / np.float32(before)


def _taps(before: int, after: int, values: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of bilinear interpolation without antialiasing: torch's neighbours, and the second one's weight, in float32.

    Args:
      before, after: numbers of pixels along the axis.
      values: of each pixel; there are as many indices.
    """
    place = (np.arange(after, dtype=np.float32) + np.float32(0.5)) * _ratio(after, before)
    place = np.maximum(place - np.float32(0.5), 0)
    first = np.minimum(place.astype(np.int64), before - 1)
    neighbours = first, np.minimum(first + 1, before - 1)
    one, two = ((pixel[:, None] * values + np.arange(values)).ravel() for pixel in neighbours)
    return one, two, np.repeat(place - first.astype(np.float32), values)
