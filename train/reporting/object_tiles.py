"""Batches of detection as pictures: boxes, masks and keypoints over the images that they belong to."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from jaxzoo.detection.drawing import COLORS, annotated
from train.reporting import contact_sheet
from train.reporting.contact_sheet import Tile

if TYPE_CHECKING:
    from train.data.objects import Skeleton

SIDE = 2 * contact_sheet.SIDE  # pixels of a picture's longer side
NAMED = 8  # boxes of a picture that are drawn with their names, the largest ones


def tiles(
    images: np.ndarray, batch: Mapping[str, np.ndarray], classes: Sequence[str], skeleton: "Skeleton | None" = None
) -> list[Tile]:
    """Pictures of a batch's images with the objects in them, each class in a colour, and how many there are of each.

    Args:
      images: (N, H, W, 3) uint8 RGB.
      batch: `boxes` (N, M, 4) in pixels, `labels` (N, M), `valid` (N, M), and, if there are any, `masks` (N, M, H, W)
        and `keypoints` (N, M, K, 3), of which those are drawn whose visibility is not 0.
      classes: names of all labels; the first is the background.
      skeleton: of the keypoints.
    """
    names = [name for name in ("boxes", "labels", "valid", "masks", "keypoints") if name in batch]
    rows = zip(*(np.asarray(batch[name]) for name in names), strict=True)
    return [
        _tile(image, dict(zip(names, row, strict=True)), classes, skeleton)
        for image, row in zip(images, rows, strict=True)
    ]


def _tile(
    image: np.ndarray, found: Mapping[str, np.ndarray], classes: Sequence[str], skeleton: "Skeleton | None"
) -> Tile:
    sides = found["boxes"][:, 2:] - found["boxes"][:, :2]
    order = np.argsort(sides.prod(1), kind="stable")  # small ones on top of large ones
    order = order[found["valid"][order]]
    objects = {name: rows[order] for name, rows in found.items()}
    names = [classes[label] for label in objects["labels"]]
    parts = {}
    if "masks" in objects:
        parts["masks"] = objects["masks"] > 0
    if "keypoints" in objects:
        parts |= {"keypoints": objects["keypoints"][..., :2], "sure": objects["keypoints"][..., 2] > 0}
        parts |= {"names": skeleton.names, "limbs": skeleton.limbs} if skeleton else {}
    picture = annotated(
        Image.fromarray(image),
        objects["boxes"],
        ["" if place < len(names) - NAMED else name for place, name in enumerate(names)],
        [COLORS[label % len(COLORS)] for label in objects["labels"]],
        scale=SIDE / max(image.shape[:2]),
        **parts,
    )
    counts = Counter(names[::-1]).most_common()
    caption = ", ".join(f"{name} × {count}" if count > 1 else name for name, count in counts)
    return Tile(picture, [caption or classes[0]], SIDE, image.shape[1::-1])
