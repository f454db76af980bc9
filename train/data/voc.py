"""`voc:PATH`: a folder in the layout of Pascal VOC, its VOCdevkit, or what holds that.

PATH/JPEGImages/2007_000032.jpg                 images
PATH/SegmentationClass/2007_000032.png          palette images of class indices, 255 at the borders of objects
PATH/ImageSets/Segmentation/train.txt, val.txt  names without ending, one a line: to train on, and to hold out;
                                                val.txt or test.txt alone can only be evaluated
PATH/classes.txt                                other names than VOC's 21, one a line, that of class 0 first
"""

from pathlib import Path

from jaxzoo.errors import UsageError
from jaxzoo.voc import VOC_CLASSES
from train.data import Data
from train.data.masks import MaskedImages, read_classes
from train.data.splits import sides

LISTS = Path("ImageSets", "Segmentation")
ENDINGS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")


def load(path: str | Path, *, val_fraction: float = 0.2, seed: int = 0) -> Data:
    """Reads the lists; no image is opened before its turn.

    Raises:
      UsageError: no such folder, another layout, a list that is missing or empty, a listed image or mask that is
        missing.
    """
    root = _root(Path(path).expanduser())
    names = root / "classes.txt"
    classes = read_classes(names) if names.exists() else list(VOC_CLASSES)
    train, held_out = sides((listing.stem, listing) for listing in sorted((root / LISTS).glob("*.txt")))
    return Data(
        MaskedImages(_listed(root, train) if train else [], len(classes)),
        MaskedImages(_listed(root, held_out or root / LISTS / "val.txt"), len(classes)),
        classes=classes,
    )


def _root(path: Path) -> Path:
    """The folder that holds JPEGImages; the latest year's where there are several."""
    if not path.is_dir():
        raise UsageError(f"there is no folder {path}")
    for place in (path, *sorted(path.glob("VOC2*"), reverse=True), *sorted(path.glob("VOCdevkit/VOC*"), reverse=True)):
        if (place / "JPEGImages").is_dir():
            return place
    raise UsageError(
        f"{path} is not laid out as Pascal VOC: it needs JPEGImages/, SegmentationClass/ and "
        "ImageSets/Segmentation/train.txt and val.txt"
    )


def _listed(root: Path, listing: Path) -> list[tuple[Path, Path]]:
    try:
        names = listing.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise UsageError(f"cannot read {listing}, a list of images ({error.strerror})") from None
    files = []
    for name in filter(None, map(str.strip, names)):
        images = (root / "JPEGImages" / f"{name}{ending}" for ending in ENDINGS)
        image, mask = next(filter(Path.is_file, images), None), root / "SegmentationClass" / f"{name}.png"
        if image is None:
            raise UsageError(f"{listing} names {name}, but there is no {root / 'JPEGImages' / name}.jpg")
        if not mask.is_file():
            raise UsageError(f"the image {image} has no mask: there is no {mask}")
        files.append((image, mask))
    if not files:
        raise UsageError(f"{listing} names no image")
    return files
