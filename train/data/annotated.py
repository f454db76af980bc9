"""Images with annotated objects, as sources of detection read them from files; see `train.data.objects`."""

import copy
import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from jaxzoo.errors import UsageError
from jaxzoo.images import orientation, read_image, turned
from train.data import Data, drawn
from train.data.masks import SIDEWAYS
from train.data.objects import Objects, Problem, Skeleton, usable
from train.data.outlines import FARTHEST, drawn_outline, polygons_of

T = TypeVar("T")
BACK = {6: 8, 8: 6}  # what undoes a quarter turn of `turned`; the other ways of lying on the side undo themselves
NEEDED = ": take a model that finds boxes alone, or data that has them"


class Annotation(NamedTuple):
    """An object as its file has it.

    `box` is (x1, y1, x2, y2) in pixels, `label` its class, `area` None where none is given, `outline` as
    `drawn_outline` takes it, and `keypoints` x, y, visibility, x, y, …
    """

    box: Sequence[float]
    label: int
    crowd: bool = False
    area: float | None = None
    outline: Any = None
    keypoints: Sequence[float] | None = None


class AnnotatedImage(NamedTuple):
    """An image that `read` reads, its (height, width), its objects without masks, and the outlines of these."""

    name: str
    read: Callable[[], Image.Image]
    size: tuple[int, int]
    objects: Objects
    outlines: Sequence[Any]


class AnnotatedImages:
    """Images and their objects, those with usable boxes; `problems` says which are not.

    Masks and keypoints are there after `with_parts` asks for them.
    """

    def __init__(self, images: Sequence[AnnotatedImage], problems: Sequence[Problem] = ()):
        self.images, self.problems = images, list(problems)
        self.masks = self.keypoints = False

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Image.Image, Objects]:
        """Raises UsageError if the image cannot be read, or is of another size than its annotations say."""
        return self.images[index].read(), self.objects(index)

    def name(self, index: int) -> str:
        return self.images[index].name

    def size(self, index: int) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.images[index].size

    @property
    def most_objects(self) -> int:
        """How many an image has at most."""
        return max((len(image.objects) for image in self.images), default=0)

    def objects(self, index: int) -> Objects:
        """The objects of an image, which is not read."""
        _, _, size, objects, outlines = self.images[index]
        parts = {} if self.keypoints else {"keypoints": None}
        if self.masks:
            masks = np.zeros((len(outlines), *size), np.uint8)
            for mask, outline in zip(masks, outlines, strict=True):
                mask[:] = drawn_outline(outline, size)
            parts["masks"] = masks
        return dataclasses.replace(objects, **parts)

    def with_parts(self, *, masks: bool = False, keypoints: bool = False) -> "AnnotatedImages":
        """The same images with these parts of their objects; objects without outlines have no mask, and are left out.

        Raises:
          UsageError: of no object there are outlines, or keypoints.
        """
        found = copy.copy(self)
        found.masks, found.keypoints = masks, keypoints
        if any(len(image.objects) for image in self.images):
            if masks and not any(outline for image in self.images for outline in image.outlines):
                raise UsageError(f"no object has an outline, from which masks are learnt{NEEDED}")
            if keypoints and all(image.objects.keypoints is None for image in self.images):
                raise UsageError(f"no object has keypoints{NEEDED}")
        if masks:
            found.problems = self.problems.copy()
            found.images = [_outlined(image, found.problems) for image in self.images]
        else:  # outlines take more memory than all else
            found.images = [image._replace(outlines=()) for image in self.images]
        return found


def as_data(
    train: AnnotatedImages | None,
    held_out: AnnotatedImages | None,
    classes: list[str],
    where: Path,
    *,
    val_fraction: float,
    seed: int,
    skeleton: Skeleton | None = None,
) -> Data:
    """What a data set at `where` is made of; if there is nothing to hold out, a part of the rest is, by
    `train.data.drawn`.

    Raises:
      UsageError: there is no image, or no object that can be used.
    """
    parts = [part for part in (train, held_out) if part is not None]
    if not any(len(image.objects) for part in parts for image in part.images):
        problems = [f": {problem.where}: {problem.what}" for part in parts for problem in part.problems]
        raise UsageError(f"{where} has no object that can be used{(problems or [''])[0]}")
    if held_out is None:
        train, held_out = _divided(train, val_fraction, seed, where)
    return Data(AnnotatedImages([]) if train is None else train, held_out, classes, skeleton=skeleton)


def _divided(whole: AnnotatedImages, fraction: float, seed: int, where: Path) -> list[AnnotatedImages]:
    """Those to train on and those to hold out, each with its own problems; those of no image are with the first."""
    names = [os.path.relpath(image.name, where if where.is_dir() else where.parent) for image in whole.images]
    sides = drawn(whole.images, names, fraction, seed, where)
    held_out = {image.name for image in sides[1]}
    problems = [[], []]
    for problem in whole.problems:
        problems[problem.image in held_out or fraction == 1].append(problem)
    return list(map(AnnotatedImages, sides, problems))


def annotated(
    name: str,
    read: Callable[[], Image.Image],
    size: tuple[int, int],
    entries: Iterable[tuple[str, T]],
    annotation: Callable[[T], Annotation],
    problems: list[Problem],
    keypoints: int = 0,
) -> AnnotatedImage:
    """An image and the objects that can be used of those that its file has.

    Args:
      entries: where each object stands, in words, and what stands there.
      annotation: understands that; raises ValueError, in words, where it cannot.
      problems: where those that cannot be used are noted.
      keypoints: how many an object has.
    """
    found: list[Annotation] = []
    for where, entry in entries:
        try:
            this = annotation(entry)
            found.append(this._replace(box=usable(this.box, size), keypoints=_keypoints(this.keypoints, keypoints)))
        except ValueError as error:
            problems.append(Problem(where, str(error), name))
    objects = Objects.of(
        [this.box for this in found],
        [this.label for this in found],
        crowd=[this.crowd for this in found],
        keypoints=np.reshape([this.keypoints for this in found], (-1, keypoints, 3)) if keypoints else None,
    )
    given = np.array([this.area or 0 for this in found], np.float64)
    areas = np.where((given > 0) & (given < FARTHEST**2), given, objects.area).astype(np.float32)
    objects = dataclasses.replace(objects, area=areas)
    return AnnotatedImage(name, read, size, objects, [this.outline for this in found])


def numbers(texts: Sequence[str | None], what: str = "its box is") -> list[float]:
    """What is written in files of text. Raises ValueError, in words."""
    try:
        return [float(text) for text in texts]
    except (TypeError, ValueError):
        raise ValueError(f"{what} not of numbers ({', '.join(map(str, texts))})") from None


def read_as(path: Path, size: tuple[int, int]) -> Image.Image:
    """The image at a path, (height, width) of which its annotations say.

    Where a camera's image lies on its side, and it is this that was annotated, it stays so. Raises UsageError if it
    cannot be read or is of another size.
    """
    image = read_image(path)
    if (image.height, image.width) != size and image.size == size:
        with Image.open(path) as stored:
            held = orientation(stored)
        if held in SIDEWAYS:
            image = turned(image, BACK.get(held, held))
    if (image.height, image.width) != size:
        raise UsageError(
            f"{path} is {image.width} x {image.height} pixels, but its annotations are for {size[1]} x {size[0]}"
        )
    return image


def _keypoints(values: Sequence[float] | None, count: int) -> np.ndarray:
    """x, y and visibility of `count` keypoints (3 * count,); none is visible where nothing is said of them."""
    if not count or values is None:
        return np.zeros(3 * count, np.float32)
    try:
        found = np.array(values, np.float32)
    except (TypeError, ValueError, OverflowError):
        found = np.empty(0, np.float32)
    if found.shape != (3 * count,) or not np.isfinite(found).all():
        raise ValueError(f"its keypoints are not {count} x 3 numbers")
    return found


def _outlined(image: AnnotatedImage, problems: list[Problem]) -> AnnotatedImage:
    """The image with those of its objects whose outlines can be drawn."""
    drawable = np.ones(len(image.objects), bool)
    for i, outline in enumerate(image.outlines):
        try:
            if isinstance(outline, dict):
                drawn_outline(outline, image.size)
            else:
                polygons_of(outline)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            drawable[i] = False
            x, y = image.objects.boxes[i, :2]
            what = f"its mask cannot be drawn ({error or type(error).__name__})"
            problems.append(Problem(f"the object at {x:g}, {y:g} of {image.name}", what, image.name))
    if drawable.all():
        return image
    return image._replace(
        objects=image.objects.some(drawable), outlines=[image.outlines[i] for i in np.flatnonzero(drawable)]
    )
