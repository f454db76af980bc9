"""Files of annotations in COCO's format: which there are, what they say, and where their images lie.

PATH/annotations/instances_train2017.json, instances_val2017.json    COCO; the latest of each part
PATH/train/_annotations.coco.json, PATH/valid/…, PATH/test/…         Roboflow
PATH/annotations/instances_default.json, PATH/images/…               CVAT
PATH/annotations.json, PATH/JPEGImages/…                             labelme
PATH/result.json, PATH/images/…                                      Label Studio
PATH/annotations/person_keypoints_*.json                             one file, or those of a pattern
images=FOLDER,annotations=FILE.json                                  wherever they lie

Images lie where the file says, as seen from it, or in a folder of the part's name, in images/ or beside the file.
Where files name no two parts, a part is held out by --val-fraction and --seed; val or test alone can only be evaluated.

Class 0 is the background; the categories follow in the order of their ids.
"""

import collections
import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

from jaxzoo.errors import UsageError
from jaxzoo.images import folders, hidden
from train.data.objects import BACKGROUNDS
from train.data.splits import part_named, sides

KINDS = ("instances", "person_keypoints", "coco", "annotations", "")  # what such files are called, the surest first
OTHER_KINDS = re.compile("captions|stuff|panoptic|image_info")
IMAGES_AND_ANNOTATIONS = re.compile("images=(.+),annotations=(.+)|annotations=(.+),images=(.+)")


class Files(NamedTuple):
    """Files of annotations, None for a part that there is not, and the folder that images are sought in."""

    train: Path | None
    held_out: Path | None
    root: Path


def files_of(place: str | Path) -> Files:
    """The files at a place as the user names it. Raises UsageError."""
    if match := IMAGES_AND_ANNOTATIONS.fullmatch(str(place)):
        images, annotations = (Path(os.path.expanduser(part)) for part in (match[1] or match[4], match[2] or match[3]))
        if not images.is_dir():
            raise UsageError(f"there is no folder {images}")
        return files_of(annotations)._replace(root=images)
    root = Path(os.path.expanduser(place))
    if not root.exists():
        if "*" not in root.name or not (found := sorted(root.parent.glob(root.name))):
            raise UsageError(f"there is no folder {root}")
        return Files(*_parts(root.parent, found), _above(found[0]))
    if root.is_file():
        return Files(root, None, _above(root))
    return Files(*_annotation_files(root), root)


def content_of(file: Path) -> dict:
    """What a file of annotations says: lists of `images`, `annotations`, and `categories` with names. Raises
    UsageError."""
    try:
        content = json.loads(file.read_bytes())
        if any(not isinstance(content[kind], list) for kind in ("images", "annotations", "categories")):
            raise TypeError("images, annotations and categories must be lists")
        require(content["categories"], {"id", "name"}, "categories")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{file} is not an annotation file of COCO ({type(error).__name__}: {error})") from None
    return content


def require(entries: Sequence[dict], keys: set[str], kind: str) -> None:
    """Raises KeyError if an entry lacks one of the keys."""
    for entry in entries:
        if missing := keys - entry.keys():
            raise KeyError(f"{' or '.join(sorted(missing))} of {str(entry)[:200]} in {kind}")


def classes_of(contents: dict[Path, dict]) -> tuple[list[str], dict[str, int]]:
    """Names of the classes, and the class of every category by its id. Raises UsageError."""

    def order(category: dict) -> tuple:
        number = number_of(category["id"])
        return (number is None, number or 0, str(category["id"]))

    found = {
        file: [(id_of(category["id"]), str(category["name"])) for category in sorted(content["categories"], key=order)]
        for file, content in contents.items()
    }
    file, *others = found
    if any(found[other] != found[file] for other in others):
        raise UsageError(f"{file} and {others[0]} have different categories")
    entries = (entry for content in contents.values() for entry in content["annotations"] if isinstance(entry, dict))
    used = {id_of(entry.get("category_id")) for entry in entries}
    # Roboflow lists what all its categories belong to as one of them.
    above = {entry.get("supercategory") for entry in contents[file]["categories"]}
    whole = {id_of(entry["id"]) for entry in contents[file]["categories"] if entry.get("supercategory") == "none"}
    categories = [(number, name) for number, name in found[file] if number not in whole - used or name not in above]
    grounds = [(number, name) for number, name in categories if name.lower() in BACKGROUNDS]
    categories = [entry for entry in categories if entry not in grounds]
    classes = [grounds[0][1] if grounds else "background", *(name for _, name in categories)]
    if not categories:
        raise UsageError(f"{file} has no categories")
    if twice := [name for name, count in collections.Counter(classes).items() if count > 1]:
        raise UsageError(f"{file} has two categories that are called {twice[0]!r}; rename one")
    values = {number: value for value, (number, _) in enumerate(categories, 1)}
    return classes, values | {number: 0 for number, _ in grounds}


def places_of(root: Path, file: Path, names: Sequence[str]) -> list[Path | None]:
    """Where the images of a file lie that have these names there; None for those that are nowhere.

    Raises:
      UsageError: none is there.
    """
    names = [PureWindowsPath(name).as_posix() for name in names]  # "/" on either system
    part = file.stem.removeprefix("instances_").removeprefix("person_keypoints_")
    known = [part, part.rstrip("0123456789")]
    places = [file.parent, *(place / name for name in known for place in (root, root / "images"))]
    places += [root / "images", root]

    def found(name: str) -> Path | None:
        short = name.rsplit("/", 1)[-1]  # the folder may be one of the machine that wrote the file
        candidates = (place / given for given in (name, short) for place in places)
        return next((path for path in candidates if os.path.isfile(path)), None)  # False also for impossible names

    paths = [found(name) for name in names]
    if not names:
        raise UsageError(f"{file} names no image")
    if not any(paths):
        raise UsageError(f"{names[0]}, which {file} names, is not in {places[1]}, {places[-2]} or {places[0]}")
    return paths


def number_of(value: Any) -> float | None:
    """A number as exporters write it: also as text, or in a list of its own; None if it is none."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def id_of(value: Any) -> str:
    """An id, which is 7 as well as "7" and 7.0."""
    number = number_of(value)
    return str(int(number)) if number is not None and number == int(number) else str(value)


def _above(file: Path) -> Path:
    """The folder that a file of annotations belongs to."""
    return file.parent.parent if file.parent.name == "annotations" else file.parent


def _annotation_files(root: Path) -> tuple[Path | None, Path | None]:
    """The files of a folder to train on and to hold out. Raises UsageError."""
    found = _json_files(root / "annotations") or _json_files(root)
    for folder in folders(root):
        if part_named(folder.name):
            found += _json_files(folder)[-1:]
    if not found:
        place = root / "annotations"
        raise UsageError(f"there is no {place}/instances_train*.json, such as instances_train2017.json, nor another")
    return _parts(root, found)


def _parts(root: Path, found: Sequence[Path]) -> tuple[Path | None, Path | None]:
    """Of files below a folder the one to train on and the one to hold out: the latest of each part."""
    train, held_out = sides({_part(root, file): file for file in found}.items())
    if held_out or train:
        return train, held_out
    if len(found) > 1:
        names = ", ".join(str(file.relative_to(root)) for file in found[:5])
        raise UsageError(f"{root} holds several annotation files: {names}; name one: --data coco:{found[0]}")
    return found[0], None


def _json_files(folder: Path) -> list[Path]:
    """Files of annotations in a folder, sorted: those that are called so where there are others, none of COCO's other
    kinds."""
    found = sorted(file for file in folder.glob("*.json") if not hidden(file.name) and not OTHER_KINDS.match(file.name))
    return next((files for kind in KINDS if (files := [file for file in found if kind in file.name])), [])


def _part(root: Path, file: Path) -> str:
    """Which part a file is, by a word of its name, or else by its folder's; empty if it says nothing."""
    words = re.split("[_.-]+", file.stem) + [file.parent.name] * (file.parent != root)
    return next(filter(None, map(part_named, words)), "")
