"""`voc:PATH` for segmentation: a folder in the layout of Pascal VOC, its VOCdevkit, or what holds that.

PATH/JPEGImages/2007_000032.jpg                 images
PATH/SegmentationClass/2007_000032.png          palette images of class indices, 255 at the borders of objects; or in
                                                VOC's colours, or those of labelmap.txt
PATH/ImageSets/Segmentation/train.txt, val.txt  names without ending, one a line: to train on, and to hold out;
                                                val.txt or test.txt alone can only be evaluated
PATH/classes.txt                                other names than VOC's 21, one a line, that of class 0 first;
                                                labelme calls it class_names.txt, CVAT labelmap.txt (name:colour:…)

Where lists name no two parts, or there are none, a part is held out by --val-fraction and --seed.
"""

from pathlib import Path

from jaxzoo.errors import UsageError
from jaxzoo.images import hidden, image_files
from jaxzoo.voc import IGNORED, VOC_CLASSES, palette
from train.data import Data, drawn
from train.data.masks import Colors, MaskedImages, check_names, read_classes, reader
from train.data.sources.folder import existing_folder
from train.data.splits import sides
from train.reporting.progress import say

LISTS = Path("ImageSets", "Segmentation")
NAMES = ("classes", "class_names", "labelmap")
MASKS = ("SegmentationClass", "SegmentationClassPNG")  # where labelme's SegmentationClass holds arrays
Files = list[tuple[Path, Path]]


def load(path: str | Path, *, val_fraction: float = 0.2, seed: int = 0) -> Data:
    """Reads the lists and some masks; no image is opened before its turn.

    Raises:
      UsageError: no such folder, another layout, a list that is empty, a listed image or mask that is missing, masks
        with a single class.
    """
    if (root := root_of(existing_folder(path), "JPEGImages")) is None:
        raise UsageError(f"{path} is not laid out as Pascal VOC: it needs JPEGImages/ and SegmentationClass/")
    classes, colors = _classes(root)
    lists = lists_in(root / LISTS)
    train, held_out = sides((file.stem, file) for file in lists)
    if held_out:
        parts = [_listed(root, [file]) if file else [] for file in (train, held_out)]
    else:
        files = _listed(root, [train] if train else lists)
        parts = drawn(files, [str(image.relative_to(root)) for image, _ in files], val_fraction, seed, root)
    read = reader((mask for part in parts for _, mask in part), classes, root, colors)
    return Data(*(MaskedImages(part, len(classes), read) for part in parts), classes)


def root_of(path: Path, folder: str) -> Path | None:
    """What holds this folder of the layout, if anything does; the latest year's where there are several."""
    for place in (path, *sorted(path.glob("VOC2*"), reverse=True), *sorted(path.glob("VOCdevkit/VOC*"), reverse=True)):
        if (place / folder).is_dir():
            return place
    return None


def lists_in(folder: Path) -> list[Path]:
    """The lists of images in a folder, sorted."""
    return sorted(file for file in folder.glob("*.txt") if not hidden(file.name))


def names_in(listing: Path) -> list[str]:
    """The lines of a list that are not empty. Raises UsageError."""
    try:
        lines = listing.read_text(encoding="utf-8-sig", errors="surrogateescape").split("\n")
    except OSError as error:
        raise UsageError(f"cannot read {listing}, a list of images ({error.strerror})") from None
    return list(filter(None, map(str.strip, lines)))


def named_classes(root: Path) -> tuple[Path | None, list[str], list[str]]:
    """The file beside VOC's folders that names classes, if there is one, its names, and of labelmap.txt their colours,
    "255,0,0" or empty. Raises UsageError."""
    file = next((file for name in NAMES if (file := root / f"{name}.txt").is_file()), None)
    if file is None or file.stem != "labelmap":
        return file, read_classes(file) if file else [], []
    try:
        lines = [line for line in map(str.strip, file.read_text(encoding="utf-8-sig").splitlines()) if line]
        entries = [line.rsplit(":", 3)[:2] for line in lines if not line.startswith("#")]
        names, colors = map(list, zip(*entries, strict=True))
    except (OSError, ValueError):
        raise UsageError(f"{file} has no lines of name:red,green,blue:parts:actions, as CVAT writes it") from None
    return file, names, colors


def _classes(root: Path) -> tuple[list[str], Colors]:
    """Names of the classes, and what colours in masks stand for them, if masks are in colours."""
    file, names, own = named_classes(root)
    classes = check_names(names, file) if file else list(VOC_CLASSES)
    colors = [tuple(color) for color in palette().tolist()]
    try:
        own = [tuple(map(int, color.split(","))) if color else colors[i] for i, color in enumerate(own)]
    except ValueError:
        raise UsageError(f"{file} has no lines of name:red,green,blue:parts:actions, as CVAT writes it") from None
    colors[: len(own)] = own
    return classes, {color: value for value, color in [(IGNORED, colors[IGNORED]), *enumerate(colors[: len(classes)])]}


def _listed(root: Path, lists: list[Path]) -> Files:
    """The images that lists name, with their masks; without lists, all images that have one."""
    images = images_by_name(root / "JPEGImages")
    masks = next((found for name in MASKS if (root / name).is_dir() and (found := images_by_name(root / name))), {})
    files = []
    for listing in lists:
        for name in names_in(listing):
            if name not in images:
                raise UsageError(f"{listing} names {name}, but there is no {root / 'JPEGImages' / name}.jpg")
            if name not in masks:
                raise UsageError(f"the image {images[name]} has no mask: there is no {root / MASKS[0] / name}.png")
            files.append((images[name], masks[name]))
        if not files:
            raise UsageError(f"{listing} names no image")
    if not lists:
        files = [(images[name], masks[name]) for name in images if name in masks]
        if len(files) < len(images):
            say(f"left out: {len(images) - len(files)} images in {root / 'JPEGImages'} that have no mask")
        if not files:
            raise UsageError(f"no image in {root / 'JPEGImages'} has a mask of its name in {root / MASKS[0]}")
    return list(dict.fromkeys(files))


def images_by_name(folder: Path) -> dict[str, Path]:
    """The images below a folder by their names, as seen from it and without endings."""
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in reversed(image_files(folder))}
