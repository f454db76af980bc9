"""Objects in images: boxes with classes, and masks and keypoints where there are any.

An item of a detection source is a PIL image, RGB, and its `Objects`. Such a source also has
- `size(index)`: height and width in pixels, and
- `objects(index)`: the same objects without decoding the image; neither reads it where its file says enough,
- `problems`: a list of `Problem`s of its annotations, which the objects are without,
- `with_parts(masks=..., keypoints=...)`: the same with these parts of objects where they are wanted; sources of files
  give neither before.
"""

import array
import collections
import dataclasses
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxzoo.errors import UsageError
from train.reporting.progress import say

BACKGROUNDS = ("background", "_background_", "__background__")  # what class 0 is called


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


def mirrored(names: Sequence[str]) -> tuple[int, ...]:
    """Which keypoint each is in a mirrored image, by their names: left and right ones change places."""

    def other(name: str) -> str:
        swapped = {"left": "right", "right": "left", "l": "r", "r": "l"}
        return "".join(swapped.get(word, word) for word in re.split("([^a-z]+)", name.lower()))

    numbers = {name.lower(): number for number, name in enumerate(names)}
    return tuple(numbers.get(other(name), number) for number, name in enumerate(names))


def with_background(names: Iterable[str], where: Any) -> list[str]:
    """Names of classes, the background's first. Raises UsageError if there is none beside it, or two are the same."""
    classes = ["background", *(name for name in names if name.lower() not in BACKGROUNDS)]
    if len(classes) == 1:
        raise UsageError(f"{where} has no class of objects")
    if twice := [name for name, count in collections.Counter(classes).items() if count > 1]:
        raise UsageError(f"{where} names {twice[0]!r} twice")
    return classes


class Problem(NamedTuple):
    """What cannot be used, and so is left out: an annotation, or a whole image.

    Args:
      where: as `annotation 12 of photos/3.jpg`.
      what: the kind of problem, and more about it in brackets: `its box is reversed (30, 5, 20, 9)`.
      image: the one that the annotation is of; empty where it is an image that is left out, or none of its.
    """

    where: str
    what: str
    image: str = ""


def usable(box: Sequence[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """What lies within an image (height, width) of a box (x1, y1, x2, y2), rounded to float32.

    As in torchvision's references, boxes that reach beyond the image are cut off at its sides, and what is left may be
    less than a pixel, but not nothing.

    Raises:
      ValueError: the box is not four finite numbers, is reversed or empty, or outside of the image.
    """
    try:
        x1, y1, x2, y2 = array.array("f", box)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"its box is not four numbers ({str(box)[:80]})") from None
    height, width = size
    within = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    more = ""
    if not all(map(math.isfinite, (x1, y1, x2, y2))):
        what = "not of finite numbers"
    elif x2 < x1 or y2 < y1:
        what = "reversed"
    elif x2 == x1 or y2 == y1:
        what = "empty"
    elif within[2] <= within[0] or within[3] <= within[1]:
        what, more = "outside of the image", f" of {width} x {height} pixels"
    else:
        return within
    raise ValueError(f"its box is {what} ({x1:g}, {y1:g}, {x2:g}, {y2:g}{more})")


def said(problems: Sequence[Problem], strict: bool, most: int = 20) -> None:
    """Says what is left out: how much, and of every kind how often and one of them, in `most` lines at most.

    Raises:
      UsageError: with the same words, if there is anything and `strict`.
    """
    if not problems:
        return
    images = [problem.image for problem in problems if problem.image]
    counts = [f"{_many(len(images), 'object', 's')} of {_many(len(set(images)), 'image', 's')}"] if images else []
    if others := len(problems) - len(images):
        counts.append(_many(others, "other entr" if images else "entr", "ies", "y"))
    kinds: dict[str, list[Problem]] = {}
    for problem in problems:
        kinds.setdefault(problem.what.partition(" (")[0], []).append(problem)
    ordered = sorted(kinds.values(), key=len, reverse=True)
    shown = ordered if len(ordered) < most else ordered[: most - 2]
    lines = [f"  {len(found)} x {found[0].where}: {found[0].what}" for found in shown]
    if rest := ordered[len(shown) :]:
        lines.append(f"  {sum(map(len, rest))} of {len(rest)} other kinds")
    text = "\n".join([f"left out: {' and '.join(counts)}:", *lines])
    if strict:
        raise UsageError(f"{text}\nwithout --strict-data training goes on without them")
    say(text)


def _many(count: int, name: str, several: str, one: str = "") -> str:
    return f"{count} {name}{one if count == 1 else several}"


class Counts(NamedTuple):
    """Of every class (C,) int64: objects, without crowds; images with such objects; and crowds.

    Class 0, the background, has the images without any object.
    """

    objects: np.ndarray
    images: np.ndarray
    crowds: np.ndarray


def count(source: Any, classes: int) -> Counts:
    """Objects and images of every class in a source, none of whose images is decoded; unreadable ones do not count."""
    found = np.zeros((3, classes), np.int64)
    source = source.with_parts()  # no masks, which take long to draw
    for index in range(len(source)):
        try:
            objects = source.objects(index)
        except UsageError:
            continue
        labels = objects.labels[~objects.crowd]
        found[0] += np.bincount(labels, minlength=classes)
        found[1, np.unique(labels) if len(objects) else 0] += 1
        found[2] += np.bincount(objects.labels[objects.crowd], minlength=classes)
    return Counts(*found)
