"""`yolo:PATH`: boxes in text files beside images, as Ultralytics has them; PATH is a data.yaml, or a folder with one.

path: ../datasets/pets                      of what follows, as seen from the file; its own folder unless given
train: images/train                         a folder, several in a list, or a .txt list of images
val: images/val                             without it, a part of train is held out by --val-fraction and --seed;
test: images/test                           val or test alone can only be evaluated
names: [cat, dog]                           or {0: cat, 1: dog}; the classes of objects, to which 0 is the background
kpt_shape: [17, 3]                          objects have 17 keypoints of x, y and visibility, or without the latter: 2
flip_idx: [0, 2, 1, …]                      which keypoint each is in a mirrored image

A folder without data.yaml needs images/, labels/ and classes.txt, as Label Studio writes them.

What images/…/1.jpg shows is in labels/…/1.txt, a line for each object: its class from 0, and in parts of the image's
width and height the box's centre and sides (class x y width height), then its keypoints, or else the corners of the
polygon around it (class x1 y1 x2 y2 x3 y3 …), which is its mask. An image without such a file is background.
"""

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from jaxzoo.coco import PERSON_KEYPOINTS, PERSON_SIGMAS, SKELETON
from jaxzoo.errors import UsageError
from jaxzoo.images import image_files
from train.data import Data
from train.data.annotated import AnnotatedImage, AnnotatedImages, Annotation, annotated, as_data, numbers, read_as
from train.data.masks import image_size, read_classes
from train.data.objects import Problem, Skeleton, mirrored, with_background
from train.data.outlines import box_around, polygons_of
from train.data.splits import sides
from train.reporting.progress import say

PARTS = ("train", "val", "test")


def load(path: str | Path, *, val_fraction: float = 0.2, seed: int = 0) -> Data:
    """Reads all labels, and of all images how large they are.

    Raises:
      UsageError: no such file, one that cannot be read or says too little, a part without images.
    """
    file, content = _content(Path(os.path.expanduser(path)))
    names = _names(file, content)
    classes = with_background(names, file)
    labels = [classes.index(name) if name in classes else 0 for name in names]
    skeleton, shape = _skeleton(file, content)
    root = file.parent / str(content.get("path") or "")
    parts = {part: places for part in PARTS if (places := content.get(part))}
    train, held_out = sides((part, (part, places)) for part, places in parts.items())
    if held_out and train and held_out[1] == train[1]:
        say(f"{file} names the same images for train and {held_out[0]}: a part of them is held out")
        held_out = None
    if not train and not held_out:
        raise UsageError(f"{file} names no images: it needs train or val")

    parts = [part and _images(_files(file, root, *part), labels, shape) for part in (train, held_out)]
    return as_data(*parts, classes, file, val_fraction=val_fraction, seed=seed, skeleton=skeleton)


def _content(path: Path) -> tuple[Path, dict]:
    """A data.yaml and what it says. Raises UsageError."""
    if path.is_dir():
        found = [file for name in ("data.yaml", "*.yaml", "*.yml") for file in sorted(path.glob(name))]
        if not found and (path / "images").is_dir() and (path / "classes.txt").is_file():
            return path / "classes.txt", {"train": "images", "names": read_classes(path / "classes.txt")}
        path = found[0] if found else path / "data.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig", errors="replace"))
    except FileNotFoundError:
        raise UsageError(f"there is no {path}, which says where images are and what their classes are called") from None
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"{path} cannot be read ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} has no entries such as train, val and names")
    return path, content


def _names(file: Path, content: dict) -> list[str]:
    """The name of every class from 0. Raises UsageError."""
    names, count = content.get("names"), content.get("nc")
    if isinstance(names, dict) and set(names) == {*range(len(names))}:
        names = [names[number] for number in range(len(names))]
    if names is None and isinstance(count, int):
        names = range(count)
    if not isinstance(names, list | range):
        raise UsageError(f"{file} needs names, a list of the classes or a dictionary by their numbers from 0")
    if isinstance(count, int) and count != len(names):
        raise UsageError(f"{file} has {len(names)} names, but nc is {count}")
    return [str(name).strip() for name in names]


def _skeleton(file: Path, content: dict) -> tuple[Skeleton | None, tuple[int, int]]:
    """Of the objects' keypoints, and how many there are of how many numbers each; (0, 0) without any."""
    if not (shape := content.get("kpt_shape")):
        return None, (0, 0)
    try:
        count, numbers_each = map(int, shape)
        order = tuple(map(int, content.get("flip_idx") or ()))
        if numbers_each not in (2, 3) or (order and sorted(order) != list(range(count))):
            raise ValueError
    except (TypeError, ValueError):
        raise UsageError(
            f"{file} needs kpt_shape as [17, 3] or [17, 2], and flip_idx with each number below 17"
        ) from None
    person = count == len(PERSON_KEYPOINTS) and order in ((), mirrored(PERSON_KEYPOINTS))
    names = PERSON_KEYPOINTS if person else tuple(map(str, range(count)))
    if not order and not person:
        say(f"{file} has no flip_idx: keypoints keep their names in mirrored images; --flip no mirrors none")
    skeleton = Skeleton(names, order or mirrored(names), SKELETON if person else (), PERSON_SIGMAS if person else ())
    return skeleton, (count, numbers_each)


def _files(file: Path, root: Path, part: str, places: Any) -> list[Path]:
    """The images of a part, sorted in each folder. Raises UsageError."""
    found: list[Path] = []
    for name in map(str, places if isinstance(places, list) else [places]):
        # Roboflow writes ../train/images for what lies beside the file.
        tried = [base / short for short in (name, name.removeprefix("../")) for base in (root, file.parent)]
        place = next((place for place in tried if place.exists()), None)
        if place is None:
            raise UsageError(f"{file} names {name} for {part}, but there is no {tried[0]}")
        if place.is_dir():
            found += image_files(place)
        else:
            lines = filter(None, map(str.strip, place.read_text("utf-8-sig", errors="surrogateescape").splitlines()))
            found += [
                next((path for base in (place.parent, root) if (path := base / line).is_file()), place.parent / line)
                for line in lines
            ]
    if not found:
        raise UsageError(f"{file} names {places} for {part}, where there are no images")
    return list(dict.fromkeys(found))


def _images(files: Sequence[Path], labels: Sequence[int], shape: tuple[int, int]) -> AnnotatedImages:
    found: list[AnnotatedImage] = []
    problems: list[Problem] = []
    for path in files:
        listing = labels_of(path)
        try:
            if not path.is_file():
                raise UsageError("the image is not there")
            size = image_size(path)
            lines = listing.read_text("utf-8-sig", errors="replace").splitlines() if listing.is_file() else []
        except (UsageError, OSError) as error:
            problems.append(Problem(str(path), str(error)))
            continue
        annotation = functools.partial(_annotation, size=size, labels=labels, shape=shape)
        entries = [(f"line {i} of {listing}", line.split()) for i, line in enumerate(lines, 1) if line.strip()]
        found.append(
            annotated(str(path), functools.partial(read_as, path, size), size, entries, annotation, problems, shape[0])
        )
    return AnnotatedImages(found, problems)


def labels_of(image: Path) -> Path:
    """The file of an image's labels: in labels/ instead of the last images/ of its path, or beside it."""
    *above, _ = image.parts
    last = max((i for i, part in enumerate(above) if part == "images"), default=None)
    folders = above if last is None else [*above[:last], "labels", *above[last + 1 :]]
    return Path(*folders, f"{image.stem}.txt")


def _annotation(words: list[str], size: tuple[int, int], labels: Sequence[int], shape: tuple[int, int]) -> Annotation:
    """Raises ValueError, in words, if a line is not as it should be."""
    number, *values = numbers(words, "its line is")
    if number not in range(len(labels)) or not labels[int(number)]:
        raise ValueError(f"its class is not in names ({words[0]})")
    label, (height, width) = labels[int(number)], size
    count, each = shape
    if count and len(values) == 4 + count * each:
        box, points = values[:4], np.reshape(values[4:], (count, each))
        seen = points[:, 2:] if each == 3 else 2 * (points > 0).any(1, keepdims=True)
        keypoints = np.concatenate([points[:, :2] * (width, height), seen], 1).ravel()
        return Annotation(_corners(box, size), label, keypoints=keypoints)
    if len(values) == 4 and not count:
        return Annotation(_corners(values, size), label)
    if len(values) >= 6 and len(values) % 2 == 0 and not count:
        outline = [[value * (height if i % 2 else width) for i, value in enumerate(values)]]
        return Annotation(box_around(polygons_of(outline)), label, outline=outline)
    wanted = f"{5 + count * each}" if count else "5, or of a polygon 7, 9, 11, …"
    raise ValueError(f"its line has another number of columns than {wanted} ({len(words)})")


def _corners(box: Sequence[float], size: tuple[int, int]) -> tuple[float, ...]:
    """From centre and sides in parts of the image to (x1, y1, x2, y2) in pixels."""
    (x, y, wide, high), (height, width) = box, size
    return (x - wide / 2) * width, (y - high / 2) * height, (x + wide / 2) * width, (y + high / 2) * height
