"""`folder:PATH`: your own images, one folder per class.

PATH/cat/1.jpg, PATH/dog/7.png            a part of every class is held out, by --val-fraction and --seed
PATH/train/cat/1.jpg, PATH/val/cat/2.jpg  or split as you like it
PATH/test/cat/3.jpg                       a test set alone, which can only be evaluated
"""

from pathlib import Path

import numpy as np
from PIL import Image

from jaxzoo.errors import UsageError
from jaxzoo.preprocess import IMAGE_SUFFIXES, image_files, read_image
from train.data import Data, split_folders, stratified_split


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
    root = Path(path).expanduser()
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}")
    ours, theirs = split_folders(root)
    drawn = theirs is None
    if ours:
        classes, files = _files(ours)
        held_classes, held_out = _files(theirs)
        if unknown := sorted(set(held_classes) - set(classes)):
            raise UsageError(f"{theirs} has class folders that {ours} has not: {', '.join(unknown)}")
        held_out = [(file, classes.index(held_classes[label])) for file, label in held_out]
    elif theirs:
        files, (classes, held_out) = [], _files(theirs)
    else:
        classes, files = _files(root)
        names = [str(file.relative_to(root)) for file, _ in files]
        ours, theirs = stratified_split([label for _, label in files], val_fraction, seed, names)
        files, held_out = [files[i] for i in ours], [files[i] for i in theirs]
    if not held_out:
        raise UsageError(f"every class in {root} has a single image: none can be held out")
    return Data(ImageFiles(files), ImageFiles(held_out), classes, drawn=drawn)


def _files(root: Path) -> tuple[list[str], list[tuple[Path, int]]]:
    """Names of the class folders, and every image below them with its class's index; both sorted."""
    classes = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(classes) < 2:
        found = f"only {classes[0]!r}" if classes else "none"
        raise UsageError(f"{root} needs a folder of images for each class, at least two; it has {found}")
    files = []
    for label, name in enumerate(classes):
        found = image_files(root / name)
        if not found:
            endings = ", ".join(sorted(IMAGE_SUFFIXES))
            raise UsageError(f"class folder {root / name} holds no images; remove it or fill it ({endings})")
        files += [(file, label) for file in found]
    return classes, files
