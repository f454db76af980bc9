"""`list:FILE.csv` for detection: your own images and boxes, in a file with a header and a line for each box.

path,x1,y1,x2,y2,label           a part is held out, by --val-fraction and --seed
photos/1.jpg,10,20,110,95.5,cat
photos/1.jpg,60,5,90,40,dog
photos/2.jpg,,,,,                an image without objects

path,x1,y1,x2,y2,label,split     or split as you like it, into `train` and `val`; all `test`, it can only be evaluated
photos/1.jpg,10,20,110,95.5,cat,train

Boxes are in pixels, from the image's upper left corner. All else is as in `csv_list`.
"""

import functools
import os
from collections.abc import Sequence
from pathlib import Path

from jaxzoo.errors import UsageError
from train.data import Data
from train.data.annotated import AnnotatedImage, AnnotatedImages, Annotation, annotated, as_data, numbers, read_as
from train.data.masks import image_size
from train.data.objects import Problem, with_background
from train.data.sources.csv_list import Line, lines_of, place_of, sorted_labels
from train.data.splits import part_named

BOX = ("x1", "y1", "x2", "y2")
ENTRY = (*BOX, "label")


def load(path: str | Path, *, val_fraction: float = 0.2, seed: int = 0) -> Data:
    """Reads the list, and of all images how large they are.

    Raises:
      UsageError: no such list, or not of that form; no image that is there, or one on both sides of the split.
    """
    file = Path(os.path.expanduser(path))
    lines = lines_of(file, ("path", *ENTRY), ("split",), ("path", "split"))
    classes = with_background(sorted_labels({line.label for line in lines if line.label}), file)
    images: dict[str, list[Line]] = {}
    for line in lines:
        images.setdefault(os.path.normpath(place_of(file, line)), []).append(line)
    sides: dict[bool, dict[str, list[Line]]] = {True: {}, False: {}}
    for place, entries in images.items():
        parts = {part_named(line.split or "") == "train" for line in entries}
        if len(parts) > 1:
            numbered = " and ".join(str(line.number) for line in (entries[0], entries[-1]))
            raise UsageError(f"{file} has {entries[0].path} in train and in what is held out (lines {numbered})")
        sides[parts.pop()][place] = entries
    train, held_out = (_images(file, sides[side], classes) for side in (True, False))
    if lines[0].split is None:
        train, held_out = held_out, None
    elif not len(held_out):
        raise UsageError(f"{file} leaves nothing to hold out: no line has the split val")
    return as_data(train, held_out, classes, file, val_fraction=val_fraction, seed=seed)


def _images(file: Path, images: dict[str, list[Line]], classes: Sequence[str]) -> AnnotatedImages:
    found: list[AnnotatedImage] = []
    problems: list[Problem] = []
    for place, lines in images.items():
        path = Path(place)
        try:
            if not path.is_file():
                raise UsageError("the image is not there")
            size = image_size(path)
        except UsageError as error:
            problems.append(Problem(lines[0].path, str(error)))
            continue
        entries = [
            (f"line {line.number} of {file.name}", line)
            for line in lines
            if any(line.values.get(name) for name in ENTRY)
        ]
        annotation = functools.partial(_annotation, classes=classes)
        found.append(annotated(place, functools.partial(read_as, path, size), size, entries, annotation, problems))
    return AnnotatedImages(found, problems)


def _annotation(line: Line, classes: Sequence[str]) -> Annotation:
    """Raises ValueError, in words, if there is no box or no class."""
    if line.label not in classes[1:]:
        raise ValueError(f"its label is the background ({line.label})" if line.label else "it has no label")
    return Annotation(numbers([line.values.get(name) for name in BOX]), classes.index(line.label))
