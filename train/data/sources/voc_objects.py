"""`voc:PATH` for detection: boxes in XML files of Pascal VOC's format, its VOCdevkit, or what holds that.

PATH/JPEGImages/2007_000032.jpg             images; CVAT and others call the folder images/
PATH/Annotations/2007_000032.xml            their objects
PATH/ImageSets/Main/train.txt, val.txt      names without ending, one a line: to train on, and to hold out;
                                            trainval.txt where there is no train.txt; val.txt or test.txt alone can
                                            only be evaluated
PATH/1.jpg, PATH/1.xml                      or side by side, as labelImg has them,
PATH/train/1.jpg, PATH/train/1.xml, …       also split into parts, as Roboflow has them
PATH/classes.txt, labelmap.txt              names of the classes, one a line; without it they are VOC's 20 where all
                                            objects are of these, or else those that occur, sorted

Where lists or folders name no two parts, a part is held out by --val-fraction and --seed.

VOC counts pixels from 1, and a box holds its last one: (xmin, ymin, xmax, ymax) is (xmin - 1, ymin - 1, xmax, ymax)
here, where coordinates are from the image's upper left corner, as in Detectron2. Polygons of LabelMe (`polygon`, `pt`)
are from 0, and have masks. Difficult objects are crowds, truncated and occluded ones are like others.
"""

import functools
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

from jaxzoo.errors import UsageError
from jaxzoo.images import hidden, image_suffixes
from jaxzoo.voc import VOC_CLASSES
from train.data import Data
from train.data.annotated import AnnotatedImage, AnnotatedImages, Annotation, annotated, as_data, numbers, read_as
from train.data.masks import image_size
from train.data.objects import Problem, with_background
from train.data.outlines import box_around, polygons_of
from train.data.sources.coco_files import number_of
from train.data.sources.folder import existing_folder
from train.data.sources.voc import images_by_name, lists_in, named_classes, names_in, root_of
from train.data.splits import part_named, sides, split_folders

LISTS = Path("ImageSets", "Main")
YES = ("1", "yes", "true")
IMAGES = ("JPEGImages", "images")


class Entry(NamedTuple):
    """The name of an image, where it lies, its annotations, and if one of both is missing, what is wrong."""

    name: str
    image: Path | None
    tree: ElementTree.Element | None
    problem: str = ""


def load(path: str | Path, *, val_fraction: float = 0.2, seed: int = 0) -> Data:
    """Reads the lists and all XML files; images are opened only whose size these do not say.

    Raises:
      UsageError: no such folder, another layout, a list that is empty, no image that is there.
    """
    path = existing_folder(path)
    root = root_of(path, "Annotations") or path
    file, names, _ = named_classes(root)
    train, held_out = _parts(root)
    entries = [*(train or []), *(held_out or [])]
    if not any(entry.tree is not None for entry in entries):
        raise UsageError(
            f"{root} has no XML file of Pascal VOC's format, neither in Annotations/ nor beside its images"
        )
    if not file:
        found = {name for entry in entries for element in _objects(entry) if (name := _text(element, "name"))}
        names = VOC_CLASSES if found <= set(VOC_CLASSES) else sorted(found)
    classes = with_background(names, file or root)
    parts = [None if part is None else _images(part, classes, file or root) for part in (train, held_out)]
    return as_data(*parts, classes, root, val_fraction=val_fraction, seed=seed)


def _parts(root: Path) -> tuple[list[Entry] | None, list[Entry] | None]:
    """What to train on, and what to hold out; None for what there is not."""
    folders = split_folders(root, lambda folder: any(folder.glob("*.xml")) or (folder / "Annotations").is_dir())
    if any(folders):
        return tuple(folder and _files(folder) for folder in folders)
    lists = {file.stem: file for file in lists_in(root / LISTS)}
    # VOC also has a list for each part and class, such as cat_train.txt.
    whole = [file for name, file in lists.items() if not part_named(name.rpartition("_")[2]) and name != "trainval"]
    train, held_out = sides(lists.items())
    train = train or lists.get("trainval")
    if train is None and held_out is None:
        return _files(root, whole), None
    return train and _files(root, [train]), held_out and _files(root, [held_out])


def _files(root: Path, lists: Sequence[Path] = ()) -> list[Entry]:
    """The images that lists name, with their annotations; without lists, all that have an image or annotations."""
    images = images_by_name(next((place for name in IMAGES if (place := root / name).is_dir()), root))
    place = root / "Annotations" if (root / "Annotations").is_dir() else root
    annotations = {
        file.relative_to(place).with_suffix("").as_posix(): file
        for file in sorted(place.rglob("*.xml"))
        if not hidden(file.name)
    }
    names = [_name(line) for listing in lists for line in names_in(listing)]
    if lists and not names:
        raise UsageError(f"{lists[0]} names no image")
    return [
        _entry(name, images.get(name), annotations.get(name))
        for name in (dict.fromkeys(names) if lists else sorted(images.keys() | annotations.keys()))
    ]


def _name(line: str) -> str:
    """What a line of a list names, which some programs write with its ending."""
    path = PureWindowsPath(line)
    return (path.with_suffix("") if path.suffix.lower() in image_suffixes() else path).as_posix()


def _entry(name: str, image: Path | None, file: Path | None) -> Entry:
    if file is None:
        return Entry(name, image, None, "it has no XML file" if image else "there is neither image nor XML file")
    try:
        tree = ElementTree.parse(file).getroot()
    except (OSError, ValueError, ElementTree.ParseError) as error:
        return Entry(name, image, None, f"its XML file cannot be read ({error})")
    return Entry(
        name, image, tree, "" if image else f"the image is not there (with {len(tree.findall('object'))} objects)"
    )


def _text(element: ElementTree.Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _objects(entry: Entry) -> list[ElementTree.Element]:
    found = [] if entry.tree is None else entry.tree.findall("object")
    return [element for element in found if _text(element, "deleted") not in YES]


def _images(entries: list[Entry], classes: Sequence[str], where: Path) -> AnnotatedImages:
    found: list[AnnotatedImage] = []
    problems: list[Problem] = []
    annotation = functools.partial(_annotation, classes={name: i for i, name in enumerate(classes)}, where=where)
    for entry in entries:
        try:
            if entry.problem:
                raise UsageError(entry.problem)
            size = size_of(entry.tree) or image_size(entry.image)
        except UsageError as error:
            problems.append(Problem(entry.name, str(error)))
            continue
        objects = [(f"object {i} of {entry.name}.xml", element) for i, element in enumerate(_objects(entry), 1)]
        read = functools.partial(read_as, entry.image, size)
        found.append(annotated(str(entry.image), read, size, objects, annotation, problems))
    return AnnotatedImages(found, problems)


def size_of(tree: ElementTree.Element) -> tuple[int, int] | None:
    """Height and width of the image as its annotations say; None if they do not."""
    for tags in (("size/height", "size/width"), ("imagesize/nrows", "imagesize/ncols")):
        if all(sides := [number_of(tree.findtext(tag)) for tag in tags]):
            return int(sides[0]), int(sides[1])
    return None


def _annotation(element: ElementTree.Element, classes: dict[str, int], where: Path) -> Annotation:
    """Raises ValueError, in words, if there is no box or no class."""
    name = _text(element, "name")
    if not classes.get(name):
        raise ValueError(f"its class is none of {where} ({name})" if name else "it has no name")
    crowd, outline = _text(element, "difficult").lower() in YES, None
    if (corners := element.find("bndbox")) is not None:
        x1, y1, x2, y2 = numbers([corners.findtext(tag) for tag in ("xmin", "ymin", "xmax", "ymax")])
        box = x1 - 1, y1 - 1, x2, y2
    elif points := element.findall("polygon/pt"):
        outline = [numbers([point.findtext(axis) for point in points for axis in "xy"])]
        box = box_around(polygons_of(outline))
    else:
        raise ValueError("it has no box (bndbox)")
    return Annotation(box, classes[name], crowd, outline=outline)
