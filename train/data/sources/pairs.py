"""`pairs:PATH`: your own images and masks, equal but for their endings.

PATH/images/street/1.jpg, PATH/masks/street/1.png         a part is held out, by --val-fraction and --seed
PATH/train/images, PATH/train/masks, PATH/val/images, …   or split as you like it,
PATH/images/train, PATH/masks/train, PATH/images/val, …   also this way around
PATH/test/images, PATH/test/masks                         a test set alone, which can only be evaluated
PATH/classes.txt                                          names of the classes, one a line, that of class 0 first

Masks are palette or grayscale images of class indices, 255 for pixels that do not count; where two classes are 0 and
255 throughout, 255 is the second. Without classes.txt the classes are called 0, 1, … up to the largest index.
"""

from pathlib import Path

from jaxzoo.errors import UsageError
from jaxzoo.images import image_files
from train.data import Data, drawn
from train.data.masks import MaskedImages, check_names, read_classes, read_mask, reader, values_of
from train.data.sources.folder import existing_folder, say_left_out
from train.data.splits import split_folders
from train.reporting.progress import say

Files = list[tuple[Path, Path]]


def load(path: str | Path, *, val_fraction: float, seed: int) -> Data:
    """Lists the files; without classes.txt, reads all masks.

    Raises:
      UsageError: no such folder, another layout, an image without mask or a mask without image, fewer than two images
        or classes.
    """
    root = existing_folder(path)
    train, held_out = _parts(root)
    if held_out is None:
        files = train or _pairs(root / "images", root / "masks")
        train, held_out = drawn(files, [str(image.relative_to(root)) for image, _ in files], val_fraction, seed, root)
    names, masks = root / "classes.txt", [mask for _, mask in (train or []) + held_out]
    if names.exists():
        classes = check_names(read_classes(names), names)
        read = reader(masks, classes, root)
    else:
        classes, read = _numbers(root, masks), read_mask
    return Data(*(MaskedImages(part or [], len(classes), read) for part in (train, held_out)), classes)


def _parts(root: Path) -> tuple[Files | None, Files | None]:
    """What to train on and what to hold out, as folders divide them; None for a part that there is not."""
    parts = split_folders(root, lambda folder: (folder / "images").is_dir())
    if any(parts):
        return tuple(folder and _pairs(folder / "images", folder / "masks") for folder in parts)
    if (root / "images").is_dir():
        parts = split_folders(root / "images", lambda folder: (root / "masks" / folder.name).is_dir())
    return tuple(folder and _pairs(folder, root / "masks" / folder.name) for folder in parts)


def _pairs(images: Path, masks: Path) -> Files:
    """Every image below one folder and the mask of the same name below the other, sorted."""
    found: list[dict[Path, Path]] = []
    for folder in (images, masks):
        if not folder.is_dir():
            raise UsageError(
                f"{folder.parent} needs the folders images/ and masks/, or train/ and val/ that hold these"
            )
        others: list[Path] = []
        side: dict[Path, Path] = {}
        for file in image_files(folder, others.append):
            stem = file.relative_to(folder).with_suffix("")
            if stem in side:
                raise UsageError(f"{side[stem]} and {file} differ only in their endings; keep one of them")
            side[stem] = file
        say_left_out(folder, others)
        found.append(side)
    if not found[0]:
        raise UsageError(f"{images} holds no images")
    for ours, theirs, folder, what in ((*found, masks, ("image", "mask")), (*found[::-1], images, ("mask", "image"))):
        if lonely := sorted(ours.keys() - theirs.keys()):
            more = f", nor have {len(lonely) - 1} others" if len(lonely) > 1 else ""
            raise UsageError(f"the {what[0]} {ours[lonely[0]]} has no {what[1]} {folder / lonely[0]}.*{more}")
    return [(found[0][stem], found[1][stem]) for stem in sorted(found[0])]


def _numbers(root: Path, masks: list[Path]) -> list[str]:
    """Classes for masks that nobody names: the numbers from 0 to the largest in any."""
    most = 0
    for path in masks:
        try:
            most = max([most, *values_of(read_mask(path))])
        except UsageError as error:
            raise UsageError(f"{error} (all masks are read, as {root} has no classes.txt)") from None
    if not most:
        raise UsageError(
            f"the masks of {root} hold no class but 0 (255 is for pixels that do not count); number the classes "
            "0, 1, 2 and so on, or name two in classes.txt, and 255 is the second"
        )
    say(f"{root} has no classes.txt: its classes are the numbers 0 to {most}, the largest in its masks")
    return [str(value) for value in range(most + 1)]
