"""`coco:PATH`: the instances of COCO, drawn into class masks.

PATH/annotations/instances_train2017.json, instances_val2017.json    the latest where there are several;
                                                                     val or test alone can only be evaluated
PATH/train2017/000000000009.jpg or PATH/images/train2017/…, PATH/images/…, PATH/train/…

Class 0 is the background; the categories follow in the order of their ids. Of instances that overlap, those with the
smaller area are on top. Pixels of crowds that no instance covers are 255, and do not count.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxzoo.errors import UsageError
from jaxzoo.images import read_image
from jaxzoo.voc import IGNORED
from train.data import Data
from train.data.masks import Item
from train.data.outlines import filled, run_lengths


class Instances:
    """Images of one annotation file; masks are drawn when an item is read."""

    def __init__(self, file: Path, folder: Path, images: list[dict], annotations: dict[int, list], values: dict):
        self.file, self.folder, self.images = file, folder, images
        self.annotations, self.values = annotations, values

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Item:
        image = read_image(self.folder / self.images[index]["file_name"])
        height, width = self.size(index)
        if (image.height, image.width) != (height, width):
            raise UsageError(
                f"{self.name(index)} is {image.width} x {image.height} pixels, but {width} x {height} in {self.file}"
            )
        return image, self.mask(index)

    def name(self, index: int) -> str:
        return str(self.folder / self.images[index]["file_name"])

    def size(self, index: int) -> tuple[int, int]:
        """Height and width in pixels, as the annotation file has them."""
        return int(self.images[index]["height"]), int(self.images[index]["width"])

    def mask(self, index: int) -> np.ndarray:
        """The class of every pixel (H, W) uint8. Raises UsageError if an instance's outline cannot be understood."""
        size = self.size(index)
        mask = np.zeros(size, np.uint8)
        found = self.annotations.get(self.images[index]["id"], [])
        for annotation in sorted(found, key=lambda a: (not a.get("iscrowd"), -float(a.get("area", 0)))):
            try:
                inside = drawn(annotation["segmentation"], size)
                value = IGNORED if annotation.get("iscrowd") else self.values[annotation["category_id"]]
            except (KeyError, ValueError, TypeError, IndexError) as error:
                raise UsageError(
                    f"annotation {annotation.get('id')} of {self.name(index)} in {self.file} cannot be drawn "
                    f"({type(error).__name__}: {error})"
                ) from None
            mask[inside] = value
        return mask


def load(path: str | Path, *, val_fraction: float = 0.2, seed: int = 0) -> Data:
    """Reads the annotations; no image is opened before its turn.

    Raises:
      UsageError: no such folder or annotation file, one that is not COCO's, no folder with its images, other categories
        in one than in the other.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}")
    files = [_latest(root, names) for names in (("train",), ("val", "test"))]
    for part, file in zip(("train", "val"), files, strict=True):
        if not file and (part == "val" or not files[1]):
            place = f"{root / 'annotations'}/instances_{part}"
            raise UsageError(f"there is no {place}*.json, such as instances_{part}2017.json")
    (train, classes), (held_out, theirs) = (_part(root, file) if file else ([], None) for file in files)
    if train and classes != theirs:
        raise UsageError(f"{train.file} and {held_out.file} have different categories")
    return Data(train, held_out, theirs)


def drawn(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """Which pixels an instance covers, bool (H, W): from polygons or run lengths, compressed or not."""
    if isinstance(segmentation, dict):
        if tuple(segmentation["size"]) != size:
            raise ValueError(f"run lengths for {segmentation['size']} pixels")
        return run_lengths(segmentation["counts"], size)
    inside = np.zeros(size, bool)
    for polygon in segmentation:
        inside |= filled(np.asarray(polygon, np.float64).reshape(-1, 2), size)
    return inside


def _latest(root: Path, parts: Sequence[str]) -> Path | None:
    """The annotation file of the first of these parts that there is, of the latest year."""
    found = (sorted((root / "annotations").glob(f"instances_{part}*.json")) for part in parts)
    return next((files[-1] for files in found if files), None)


def _part(root: Path, file: Path) -> tuple[Instances, list[str]]:
    year = file.stem.removeprefix("instances_")
    part = year.rstrip("0123456789")
    try:
        content = json.loads(file.read_bytes())
        images, categories = content["images"], sorted(content["categories"], key=lambda category: category["id"])
        classes = ["background", *(str(category["name"]) for category in categories)]
        values = {category["id"]: value for value, category in enumerate(categories, 1)}
        annotations: dict[int, list] = {}
        for annotation in content["annotations"]:
            annotations.setdefault(annotation["image_id"], []).append(annotation)
        if missing := next((i for i in images if not {"id", "file_name", "height", "width"} <= i.keys()), None):
            raise KeyError(f"of image {missing}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{file} is not an annotation file of COCO ({type(error).__name__}: {error})") from None
    if len(classes) > IGNORED or len(classes) < 2:
        raise UsageError(f"{file} has {len(categories)} categories; a mask can tell 1 to 254 apart")
    if not images:
        raise UsageError(f"{file} names no image")
    places = [root / year, root / "images" / year, root / part, root / "images" / part, root / "images", root]
    folder = next((place for place in places if (place / images[0]["file_name"]).is_file()), None)
    if folder is None:
        raise UsageError(f"{images[0]['file_name']}, which {file} names, is not in {places[0]} or {places[1]}")
    return Instances(file, folder, images, annotations, values), classes
