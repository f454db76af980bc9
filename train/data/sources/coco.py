"""`coco:PATH` for segmentation: objects in COCO's format (see `coco_files`), drawn into class masks.

Of objects that overlap, those with the smaller area are on top. Pixels of crowds that no object covers are 255, and do
not count.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from jaxzoo.errors import UsageError
from jaxzoo.images import read_image
from jaxzoo.voc import IGNORED
from train.data import Data, drawn
from train.data.masks import Item, image_size, turned_like
from train.data.outlines import drawn_outline
from train.data.sources.coco_files import classes_of, content_of, files_of, id_of, number_of, places_of, require


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
        height, width = (number_of(self.images[index].get(side)) for side in ("height", "width"))
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
        for annotation in self.annotations.get(id_of(self.images[index]["id"]), []):
            crowd = bool(number_of(annotation.get("iscrowd")))
            try:
                inside = drawn_outline(annotation.get("segmentation"), size)
                value = IGNORED if crowd else self.values[id_of(annotation["category_id"])]
            except (KeyError, ValueError, TypeError, IndexError) as error:
                raise UsageError(
                    f"annotation {annotation.get('id')} of {self.name(index)} in {self.file} cannot be drawn "
                    f"({type(error).__name__}: {error})"
                ) from None
            area = number_of(annotation.get("area"))
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
    train, held_out, root = files_of(path)
    contents = {file: _complete(file, content_of(file)) for file in (train, held_out) if file}
    classes, values = classes_of(contents)
    if len(classes) > IGNORED:
        raise UsageError(f"{train or held_out} has {len(classes) - 1} categories; a mask can tell 1 to 254 apart")
    parts = {file: _instances(root, file, content, values) for file, content in contents.items()}
    if held_out:
        return Data(parts.get(train, []), parts[held_out], classes)
    whole = parts[train]
    indices = drawn(range(len(whole)), [str(image["file_name"]) for image in whole.images], val_fraction, seed, train)
    return Data(*map(whole.some, indices), classes)


def _complete(file: Path, content: dict) -> dict:
    """What a file says, if its images have names and its annotations outlines. Raises UsageError."""
    images, annotations = content["images"], content["annotations"]
    try:
        require(images, {"id", "file_name"}, "images")
        require(annotations, {"image_id"}, "annotations")
    except (KeyError, AttributeError) as error:
        raise UsageError(f"{file} is not an annotation file of COCO ({type(error).__name__}: {error})") from None
    outlines = (annotation.get("segmentation") for annotation in annotations)
    if annotations and not any(isinstance(outline, list | dict) and any(outline) for outline in outlines):
        raise UsageError(
            f"{file} has boxes alone: none of its {len(annotations)} annotations has an outline (segmentation), and "
            "masks are drawn from outlines"
        )
    if annotations and {id_of(image["id"]) for image in images}.isdisjoint(
        id_of(annotation["image_id"]) for annotation in annotations
    ):
        raise UsageError(f"no annotation in {file} belongs to one of its images: no image_id is the id of an image")
    return content


def _instances(root: Path, file: Path, content: dict, values: dict[str, int]) -> Instances:
    """Images that are nowhere are said to be missing when their turn comes."""
    annotations: dict[str, list] = {}
    for annotation in content["annotations"]:
        annotations.setdefault(id_of(annotation["image_id"]), []).append(annotation)
    names = [str(image["file_name"]) for image in content["images"]]
    places = [path or file.parent / name for path, name in zip(places_of(root, file, names), names, strict=True)]
    return Instances(file, content["images"], places, annotations, values)
