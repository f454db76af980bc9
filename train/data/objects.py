"""Objects in images: boxes with classes, and masks and keypoints where there are any.

An item of a detection source is a PIL image, RGB, and its `Objects`. Such a source also has
- `size(index)`: height and width in pixels, and
- `objects(index)`: the same objects without decoding the image; neither reads it where its file says enough,
- `problems`: a list of `Problem`s of its annotations, which the objects are without.
"""

import dataclasses
from typing import NamedTuple

import numpy as np


@dataclasses.dataclass(frozen=True)
class Objects:
    """The M objects of one image.

    Args:
      boxes: (M, 4) float32 as (x1, y1, x2, y2) in pixels, within the image, wider and higher than 0.
      labels: (M,) int32 classes from 1; 0 is the background.
      crowd: (M,) bool: COCO's crowds and VOC's difficult objects, which nobody learns, and which evaluation neither
        asks for nor counts as false.
      area: (M,) float32 in square pixels, by which COCO's metrics tell small from large; those of the boxes unless
        annotated.
      masks: (M, H, W) uint8 of 0 and 1, the image's size.
      keypoints: (M, K, 3) float32 as (x, y, visibility), the latter 0 (not annotated), 1 (hidden) or 2.
    """

    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    area: np.ndarray
    masks: np.ndarray | None = None
    keypoints: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        boxes: np.ndarray,
        labels: np.ndarray,
        *,
        crowd: np.ndarray | None = None,
        area: np.ndarray | None = None,
        masks: np.ndarray | None = None,
        keypoints: np.ndarray | None = None,
    ) -> "Objects":
        """From lists too, which may be empty."""
        boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        labels = np.asarray(labels, np.int32).reshape(-1)
        crowd = np.zeros(len(boxes), bool) if crowd is None else np.asarray(crowd, bool).reshape(-1)
        if area is None:
            area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        return cls(boxes, labels, crowd, np.asarray(area, np.float32).reshape(-1), masks, keypoints)

    def __len__(self) -> int:
        return len(self.boxes)

    def some(self, chosen: np.ndarray) -> "Objects":
        """Those at these indices, or where this mask is True."""
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return Objects(**{name: None if array is None else array[chosen] for name, array in found.items()})


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """The keypoints of a data set's objects.

    Args:
      names: of the K keypoints.
      mirrored: which keypoint each is in a mirrored image: left and right change places.
      limbs: pairs of indices to join in pictures.
      sigmas: (K,) how far annotators differ, in parts of the object's size: COCO's k divided by 2, as pycocotools has.
    """

    names: tuple[str, ...]
    mirrored: tuple[int, ...]
    limbs: tuple[tuple[int, int], ...] = ()
    sigmas: tuple[float, ...] = ()


class Problem(NamedTuple):
    """An annotation that cannot be used, as `annotation 12 of photos/3.jpg` and `its box is reversed`."""

    where: str
    what: str
