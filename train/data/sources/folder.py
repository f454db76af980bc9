"""`folder:PATH`: your own images, one folder per class.

PATH/cat/1.jpg, PATH/dog/7.png            a part of every class is held out, by --val-fraction and --seed
PATH/train/cat/1.jpg, PATH/val/cat/2.jpg  or split as you like it, under any of these parts' usual names
PATH/test/cat/3.jpg                       a test set alone, which can only be evaluated
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from jaxzoo.errors import UsageError
from jaxzoo.images import as_text, endings, folders, image_files, read_image
from train.data import Data, stratified_split
from train.data.splits import split_folders
from train.reporting.progress import say


class ImageFiles:
    """Image files and their labels."""

    def __init__(self, files: list[tuple[Path, int]]):
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        path, label = self.files[index]
        return read_image(path), label

    def name(self, index: int) -> str:
        return str(self.files[index][0])

    @property
    def labels(self) -> np.ndarray:
        return np.array([label for _, label in self.files], np.int64)


def load(path: str | Path, *, val_fraction: float, seed: int) -> Data:
    """Lists the files; none is opened before its turn.

    Raises:
      UsageError: no such folder, fewer than two classes, a class without images, a class that is only held out.
    """
    root = existing_folder(path)
    train, held_out = split_folders(root, folders)
    others: list[Path] = []
    if held_out:
        held_classes, theirs = _files(held_out, others)
        classes, ours = _files(train, others) if train else (held_classes, [])
        if unknown := sorted(set(held_classes) - set(classes)):
            raise UsageError(f"{held_out} has class folders that {train} has not: {', '.join(unknown)}")
        theirs = [(file, classes.index(held_classes[label])) for file, label in theirs]
    else:
        classes, files = _files(train or root, others)
        names = [str(file.relative_to(root)) for file, _ in files]
        ours, theirs = (
            [files[i] for i in side]
            for side in stratified_split([label for _, label in files], val_fraction, seed, names)
        )
    if not theirs:
        raise UsageError(f"every class in {root} has a single image: none can be held out")
    say_left_out(root, others)
    return Data(ImageFiles(ours), ImageFiles(theirs), classes, drawn=not held_out)


def existing_folder(path: str | Path) -> Path:
    """A folder that people name, `~` being theirs. Raises UsageError if there is none."""
    folder = Path(os.path.expanduser(path))
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file, no folder" if folder.exists() else f"there is no folder {folder}")
    return folder


def say_left_out(root: Path, others: Sequence[Path]) -> None:
    """Says once which files lie among the images and have no ending of images."""
    if others:
        say(f"left out in {root}, as they are no images that Pillow reads: {endings(others)}")


def _files(root: Path, others: list[Path]) -> tuple[list[str], list[tuple[Path, int]]]:
    """Names of the class folders, and every image below them with its class's index; both sorted.

    What is no image goes to `others`.
    """
    classes = folders(root)
    if len(classes) < 2:
        found = f"only {classes[0].name!r}" if classes else "none"
        raise UsageError(f"{root} needs a folder of images for each class, at least two; it has {found}")
    files = []
    for label, folder in enumerate(classes):
        here: list[Path] = []
        found = image_files(folder, here.append)
        if not found:
            what = f", but {here[0].name}" if here else ""
            raise UsageError(f"class folder {folder} holds no images that Pillow reads{what}; remove it or fill it")
        files += [(file, label) for file in found]
        others += here
    return [as_text(folder.name) for folder in classes], files
