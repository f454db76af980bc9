"""`scenes` for detection: the digits of scenes (see `train.data.sources.scenes`) as objects.

Each has its box, the mask of the pixels to be seen, and four keypoints, the ends of its stroke: hidden where a later
sticker covers them.
"""

import numpy as np
from PIL import Image

from train.data import Data
from train.data.objects import Objects, Problem, Skeleton
from train.data.sources import digits
from train.data.sources.scenes import CLASSES, HELD_OUT, Kind, Scenes

TRAINING = 7000  # enough for none to be learnt by heart: a detector sees them six times
KIND = Kind(side=128, stickers=(1, 3), sides=(0.4, 0.65), hidden=0.1, tilt=5.0, contrast=130.0)
ENDS = Skeleton(
    ("top", "right", "bottom", "left"),
    mirrored=(0, 3, 2, 1),
    limbs=((0, 1), (1, 2), (2, 3), (3, 0)),
    sigmas=(0.05,) * 4,
)


class DigitScenes(Scenes):
    """Scenes, and where the digits in them are."""

    problems: list[Problem] = []

    @property
    def most_objects(self) -> int:
        """Of any scene."""
        return self.kind.stickers[1]

    def with_parts(self, *, masks: bool = False, keypoints: bool = False) -> "DigitScenes":
        """The same: masks and keypoints are always there."""
        return self

    def __getitem__(self, index: int) -> tuple[Image.Image, Objects]:
        return super().__getitem__(index)[0], self.objects(index)

    def objects(self, index: int) -> Objects:
        """All stickers of a scene, the first below the others."""
        scene = self.scene(index)
        masks = scene.owner == np.arange(len(scene.digits))[:, None, None]
        x, y = scene.ends[..., 0], scene.ends[..., 1]
        seen = scene.owner[y.astype(int), x.astype(int)] == np.arange(len(scene.digits))[:, None]
        keypoints = np.stack([x, y, np.where(seen, 2, 1)], -1).astype(np.float32)
        areas = masks.sum((1, 2))
        return Objects.of(
            [box_of(mask) for mask in masks],
            scene.digits + 1,
            area=areas,
            masks=masks.astype(np.uint8),
            keypoints=keypoints,
        )


def box_of(mask: np.ndarray) -> list[int]:
    """The box around what a mask (H, W) covers."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def load(place: str = "", *, val_fraction: float = 0.2, seed: int = 0) -> Data:
    """7,000 scenes to train on and 150 held out, always the same ones."""
    source = digits.load()
    return Data(
        DigitScenes(source.train, TRAINING, 1, "scene", KIND),
        DigitScenes(source.held_out, HELD_OUT, 2, "held-out scene", KIND),
        classes=list(CLASSES),
        image_size=KIND.side,
        photographs=False,
        skeleton=ENDS,
    )
