"""`coco:PATH` for detection: objects in COCO's format (see `coco_files`), with masks and keypoints where there are any.

Boxes are (x, y, width, height) in pixels, from the upper left corner of the image. Where one is missing it is the one
around the object's polygons. Crowds stay crowds, and areas are as given.
"""

import array
import functools
from collections.abc import Sequence
from pathlib import Path

from jaxzoo.coco import PERSON_KEYPOINTS, PERSON_SIGMAS
from jaxzoo.errors import UsageError
from train.data import Data
from train.data.annotated import AnnotatedImage, AnnotatedImages, Annotation, annotated, as_data, read_as
from train.data.masks import image_size
from train.data.objects import Problem, Skeleton, mirrored
from train.data.outlines import box_around, polygons_of
from train.data.sources.coco_files import classes_of, content_of, files_of, id_of, number_of, places_of


def load(path: str | Path, *, val_fraction: float = 0.2, seed: int = 0) -> Data:
    """Reads the annotations; images are opened only whose size the file does not say.

    Raises:
      UsageError: no such folder, no annotation file or several, one that is not COCO's, no image that is there, other
        categories in one part than in the other.
    """
    train, held_out, root = files_of(path)
    contents = {file: content_of(file) for file in (train, held_out) if file}
    classes, values = classes_of(contents)
    skeleton = next(filter(None, (skeleton_of(content["categories"]) for content in contents.values())), None)
    points = len(skeleton.names) if skeleton else 0
    parts = {file: _images(root, file, content, values, points) for file, content in contents.items()}
    return as_data(
        parts.get(train),
        parts.get(held_out),
        ["background", *classes[1:]],
        train or held_out,
        val_fraction=val_fraction,
        seed=seed,
        skeleton=skeleton,
    )


def skeleton_of(categories: list[dict]) -> Skeleton | None:
    """That of the first category with keypoints."""
    for category in categories:
        if isinstance(names := category.get("keypoints"), list) and names:
            names, pairs = tuple(map(str, names)), category.get("skeleton")
            try:
                limbs = tuple((int(a) - 1, int(b) - 1) for a, b in pairs or ())
            except (TypeError, ValueError, OverflowError):  # which are for pictures alone
                limbs = ()
            limbs = tuple(limb for limb in limbs if set(limb) <= {*range(len(names))})
            return Skeleton(names, mirrored(names), limbs, PERSON_SIGMAS if names == PERSON_KEYPOINTS else ())
    return None


def _images(root: Path, file: Path, content: dict, values: dict[str, int], keypoints: int) -> AnnotatedImages:
    problems: list[Problem] = []
    annotations: dict[str, list[dict]] = {}
    for number, entry in enumerate(content["annotations"], 1):
        if not isinstance(entry, dict):
            problems.append(Problem(f"annotation number {number} in {file}", "it is no dictionary"))
            continue
        annotations.setdefault(id_of(entry.get("image_id")), []).append(entry)

    images = []
    for number, entry in enumerate(content["images"], 1):
        if isinstance(entry, dict) and {"id", "file_name"} <= entry.keys():
            images.append(entry)
        else:
            problems.append(Problem(f"image number {number} in {file}", "it has no id or file_name"))
    found: list[AnnotatedImage] = []
    for entry, place in zip(images, places_of(root, file, [str(entry["file_name"]) for entry in images]), strict=True):
        name, size = str(entry["file_name"]), tuple(number_of(entry.get(side)) for side in ("height", "width"))
        entries = annotations.pop(id_of(entry["id"]), [])
        try:
            if place is None:
                raise UsageError(f"the image is not there (with {len(entries)} objects)")
            size = tuple(map(int, size)) if all(size) else image_size(place)
        except UsageError as error:
            problems.append(Problem(name, str(error)))
            continue
        found.append(
            annotated(
                str(place),
                functools.partial(read_as, place, size),
                size,
                [(f"annotation {entry.get('id')} of {name}", entry) for entry in entries],
                functools.partial(_annotation, values=values),
                problems,
                keypoints,
            )
        )
    for number, entries in annotations.items():
        problems += [
            Problem(f"annotation {entry.get('id')} in {file}", f"its image_id is that of no image ({number})")
            for entry in entries
        ]
    return AnnotatedImages(found, problems)


def _annotation(entry: dict, values: dict[str, int]) -> Annotation:
    """Raises ValueError, in words, if there is no box or no class."""
    label = values.get(id_of(entry.get("category_id")))
    if not label:
        what = "is the background" if label == 0 else "is in no category" if "category_id" in entry else "is missing"
        raise ValueError(f"its category_id {what} ({entry.get('category_id')})")
    crowd, area = (number_of(entry.get(key)) for key in ("iscrowd", "area"))
    return Annotation(
        _box(entry), label, bool(crowd), area, entry.get("segmentation") or None, entry.get("keypoints") or None
    )


def _box(entry: dict) -> Sequence[float]:
    """As (x1, y1, x2, y2), by sums of float32 as in torchvision's references; what is no box as it is."""
    if not (box := entry.get("bbox")):
        try:
            return box_around(polygons_of(entry.get("segmentation")))
        except (ValueError, TypeError, KeyError, IndexError):
            raise ValueError("it has no box (bbox)") from None
    numbers = [number_of(number) for number in box] if isinstance(box, list) else []
    if len(numbers) != 4 or None in numbers:
        return box
    x, y, width, height = array.array("f", numbers)
    return x, y, x + width, y + height
