"""The size at which detectors see images: torchvision.models.detection.transform."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from jaxzoo.preprocess import IMAGENET_MEAN, IMAGENET_STD


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
