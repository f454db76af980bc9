"""`coco:PATH`: objects in COCO's format, drawn into class masks; PATH is a folder, or one annotation file.

PATH/annotations/instances_train2017.json, instances_val2017.json    COCO; the latest of each part
PATH/train/_annotations.coco.json, PATH/valid/…, PATH/test/…         Roboflow
PATH/annotations/instances_default.json, PATH/images/…               CVAT
PATH/annotations.json, PATH/JPEGImages/…                             labelme
PATH/result.json, PATH/images/…                                      Label Studio

Images lie where the file says, as seen from it, or in a folder of the part's name, in images/ or beside the file.
Where files name no two parts, a part is held out by --val-fraction and --seed; val or test alone can only be evaluated.

Class 0 is the background; the categories follow in the order of their ids. Of objects that overlap, those with the
smaller area are on top. Pixels of crowds that no object covers are 255, and do not count.
"""

import collections
import dataclasses
import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from PIL import Image

from jaxzoo.coco_rle import run_lengths
from jaxzoo.errors import UsageError
from jaxzoo.images import folders, hidden, read_image
from jaxzoo.voc import IGNORED
from train.data import Data, drawn
from train.data.masks import Item, image_size, turned_like
from train.data.splits import part_named, sides

KINDS = ("instances", "coco", "annotations", "")  # what files of annotations are called, the surest first
OTHER_KINDS = re.compile("captions|person_keypoints|stuff|panoptic|image_info")
FARTHEST = 1e6  # pixels
BACKGROUNDS = ("background", "_background_", "__background__")


@dataclasses.dataclass(frozen=True, eq=False)
class Instances:
    """Some images of one annotation file; masks are drawn when an item is read.

    `images` and `annotations` (by the image's id) are as the file has them, `places` is where the images lie, and
    `values` the mask value of every category's id.
    """

    file: Path
    images: Sequence[dict]
    places: Sequence[Path]
    annotations: dict[str, list[dict]]
    values: dict[str, int]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Item:
        image = read_image(self.places[index])
        height, width = (_number(self.images[index].get(side)) for side in ("height", "width"))
        size = (int(height), int(width)) if height and width else (image.height, image.width)
        if sorted(size) != sorted(image.size):
            self._refuse(index, image, size)
        mask = turned_like(self.mask(index, size), image, self.places[index])
        if mask.shape != (image.height, image.width):
            self._refuse(index, image, size)
        return image, mask

    def _refuse(self, index: int, image: Image.Image, size: tuple[int, int]) -> None:
        raise UsageError(
            f"{self.name(index)} is {image.width} x {image.height} pixels, but {size[1]} x {size[0]} in {self.file}"
        )

    def name(self, index: int) -> str:
        return str(self.places[index])

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of the image upright, in pixels. Raises UsageError."""
        return image_size(self.places[index])

    def mask(self, index: int, size: tuple[int, int]) -> np.ndarray:
        """The class of every pixel (H, W) uint8. Raises UsageError if an object's outline cannot be understood."""
        objects = []
        for annotation in self.annotations.get(_id(self.images[index]["id"]), []):
            crowd = bool(_number(annotation.get("iscrowd")))
            try:
                inside = drawn_outline(annotation.get("segmentation"), size)
                value = IGNORED if crowd else self.values[_id(annotation["category_id"])]
            except (KeyError, ValueError, TypeError, IndexError) as error:
                raise UsageError(
                    f"annotation {annotation.get('id')} of {self.name(index)} in {self.file} cannot be drawn "
                    f"({type(error).__name__}: {error})"
                ) from None
            area = _number(annotation.get("area"))
            objects.append((not crowd, -(inside.sum() if area is None else area), inside, value))
        mask = np.zeros(size, np.uint8)
        for _, _, inside, value in sorted(objects, key=lambda found: found[:2]):
            mask[inside] = value
        return mask

    def some(self, indices: Sequence[int]) -> "Instances":
        """The same with these images only."""
        chosen = ([of[i] for i in indices] for of in (self.images, self.places))
        return dataclasses.replace(self, **dict(zip(("images", "places"), chosen, strict=True)))


def load(path: str | Path, *, val_fraction: float = 0.2, seed: int = 0) -> Data:
    """Reads the annotations; no image is opened before its turn.

    Raises:
      UsageError: no such folder, no annotation file or several, one that is not COCO's or has boxes alone, images that
        are not there, other categories in one part than in the other.
    """
    root = Path(os.path.expanduser(path))
    if not root.exists():
        raise UsageError(f"there is no folder {root}")
    if root.is_file():
        train, held_out, root = root, None, root.parent.parent if root.parent.name == "annotations" else root.parent
    else:
        train, held_out = _annotation_files(root)
    contents = {file: _content(file) for file in (train, held_out) if file}
    classes, values = _classes(contents)
    parts = {file: _instances(root, file, content, values) for file, content in contents.items()}
    if held_out:
        return Data(parts.get(train, []), parts[held_out], classes)
    whole = parts[train]
    indices = drawn(range(len(whole)), [str(image["file_name"]) for image in whole.images], val_fraction, seed, train)
    return Data(*map(whole.some, indices), classes)


def drawn_outline(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """The pixels that an object covers, bool (H, W): from polygons, or run lengths, compressed or not.

    Raises:
      ValueError: run lengths of another size, or damaged; a polygon with fewer than three corners, or with one that is
        no number or farther away than images are large, for which pycocotools would take all memory.
    """
    if isinstance(segmentation, dict):
        if tuple(map(int, segmentation["size"])) != size:
            raise ValueError(f"run lengths for {segmentation['size']} pixels")
        return run_lengths(segmentation["counts"], size)
    if not segmentation or not any(segmentation):
        raise ValueError("it has no outline")
    if not isinstance(segmentation[0], list):  # one polygon without the list around it
        segmentation = [segmentation]
    for polygon in segmentation:
        corners = np.asarray(polygon, np.float64).reshape(-1, 2)
        if len(corners) < 3 or not (np.abs(corners) < FARTHEST).all():
            raise ValueError("a polygon needs three corners or more, each a place in the image")
    from pycocotools import mask

    polygons = [[float(number) for number in polygon] for polygon in segmentation]
    return mask.decode(mask.merge(mask.frPyObjects(polygons, *size))).astype(bool)


def _number(value: Any) -> float | None:
    """A number as exporters write it: also as text, or in a list of its own; None if it is none."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _id(value: Any) -> str:
    """An id, which is 7 as well as "7" and 7.0."""
    number = _number(value)
    return str(int(number)) if number is not None and number == int(number) else str(value)


def _annotation_files(root: Path) -> tuple[Path | None, Path | None]:
    """The files to train on and to hold out; None for what there is not. Raises UsageError."""
    found = _json_files(root / "annotations") or _json_files(root)
    for folder in folders(root):
        if part_named(folder.name):
            found += _json_files(folder)[-1:]
    parts = {_part(root, file): file for file in found}  # the latest of each
    train, held_out = sides(parts.items())
    if held_out or train:
        return train, held_out
    if len(found) > 1:
        names = ", ".join(str(file.relative_to(root)) for file in found[:5])
        raise UsageError(f"{root} holds several annotation files: {names}; name one: --data coco:{found[0]}")
    if not found:
        place = root / "annotations"
        raise UsageError(f"there is no {place}/instances_train*.json, such as instances_train2017.json, nor another")
    return found[0], None


def _json_files(folder: Path) -> list[Path]:
    """Files of annotations in a folder, sorted: those that are called so where there are others, none of COCO's other
    kinds."""
    found = sorted(file for file in folder.glob("*.json") if not hidden(file.name) and not OTHER_KINDS.match(file.name))
    return next((files for kind in KINDS if (files := [file for file in found if kind in file.name])), [])


def _part(root: Path, file: Path) -> str:
    """Which part a file is, by a word of its name, or else by its folder's; empty if it says nothing."""
    words = re.split("[_.-]+", file.stem) + [file.parent.name] * (file.parent != root)
    return next(filter(None, map(part_named, words)), "")


def _content(file: Path) -> dict:
    """What an annotation file says, if it is one of COCO with outlines and images that have a name."""
    try:
        content = json.loads(file.read_bytes())
        for kind, keys in {
            "images": {"id", "file_name"},
            "categories": {"id", "name"},
            "annotations": {"image_id"},
        }.items():
            if wrong := next((entry for entry in content[kind] if not keys <= entry.keys()), None):
                raise KeyError(f"{' or '.join(sorted(keys - wrong.keys()))} of {str(wrong)[:200]} in {kind}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{file} is not an annotation file of COCO ({type(error).__name__}: {error})") from None
    if not content["images"]:
        raise UsageError(f"{file} names no image")
    annotations = content["annotations"]
    outlines = (annotation.get("segmentation") for annotation in annotations)
    if annotations and not any(isinstance(outline, list | dict) and any(outline) for outline in outlines):
        raise UsageError(
            f"{file} has boxes alone: none of its {len(annotations)} annotations has an outline (segmentation), and "
            "masks are drawn from outlines"
        )
    if annotations and {_id(image["id"]) for image in content["images"]}.isdisjoint(
        _id(annotation["image_id"]) for annotation in annotations
    ):
        raise UsageError(f"no annotation in {file} belongs to one of its images: no image_id is the id of an image")
    return content


def _classes(contents: dict[Path, dict]) -> tuple[list[str], dict[str, int]]:
    """Names of the classes, and the mask value of every category by its id."""

    def order(category: dict) -> tuple:
        number = _number(category["id"])
        return (number is None, number or 0, str(category["id"]))

    found = {
        file: [(_id(category["id"]), str(category["name"])) for category in sorted(content["categories"], key=order)]
        for file, content in contents.items()
    }
    file, *others = found
    if any(found[other] != found[file] for other in others):
        raise UsageError(f"{file} and {others[0]} have different categories")
    used = {_id(entry.get("category_id")) for content in contents.values() for entry in content["annotations"]}
    # Roboflow lists what all its categories belong to as one of them.
    above = {entry.get("supercategory") for entry in contents[file]["categories"]}
    whole = {_id(entry["id"]) for entry in contents[file]["categories"] if entry.get("supercategory") == "none"}
    categories = [(number, name) for number, name in found[file] if number not in whole - used or name not in above]
    grounds = [(number, name) for number, name in categories if name.lower() in BACKGROUNDS]
    categories = [entry for entry in categories if entry not in grounds]
    classes = [grounds[0][1] if grounds else "background", *(name for _, name in categories)]
    if not 2 <= len(classes) <= IGNORED:
        raise UsageError(f"{file} has {len(categories)} categories; a mask can tell 1 to 254 apart")
    if twice := [name for name, count in collections.Counter(classes).items() if count > 1]:
        raise UsageError(f"{file} has two categories that are called {twice[0]!r}; rename one")
    values = {number: value for value, (number, _) in enumerate(categories, 1)}
    return classes, values | {number: 0 for number, _ in grounds}


def _instances(root: Path, file: Path, content: dict, values: dict[str, int]) -> Instances:
    annotations: dict[str, list] = {}
    for annotation in content["annotations"]:
        annotations.setdefault(_id(annotation["image_id"]), []).append(annotation)
    return Instances(file, content["images"], _places(root, file, content["images"]), annotations, values)


def _places(root: Path, file: Path, images: Sequence[dict]) -> list[Path]:
    """Where the images of a file lie; those that are nowhere are said to be missing when their turn comes.

    Raises:
      UsageError: none is there.
    """
    names = [PureWindowsPath(str(image["file_name"])).as_posix() for image in images]  # "/" on either system
    part = file.stem.removeprefix("instances_")
    known = [part, part.rstrip("0123456789")]
    places = [file.parent, *(place / name for name in known for place in (root, root / "images"))]
    places += [root / "images", root]

    def found(name: str) -> Path | None:
        short = name.rsplit("/", 1)[-1]  # the folder may be one of the machine that wrote the file
        return next((path for given in (name, short) for place in places if (path := place / given).is_file()), None)

    paths = [found(name) for name in names]
    if not any(paths):
        raise UsageError(f"{names[0]}, which {file} names, is not in {places[1]}, {places[-2]} or {places[0]}")
    return [path or places[0] / name for path, name in zip(paths, names, strict=True)]
