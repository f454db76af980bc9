"""`pairs:PATH`: your own images and masks, equal but for their endings.

PATH/images/street/1.jpg, PATH/masks/street/1.png         a part is held out, by --val-fraction and --seed
PATH/train/images, PATH/train/masks, PATH/val/images, …   or split as you like it
PATH/test/images, PATH/test/masks                         a test set alone, which can only be evaluated
PATH/classes.txt                                          names of the classes, one a line, that of class 0 first

Masks are palette or grayscale images of class indices, 255 for pixels that do not count. Without classes.txt the
classes are called 0, 1, … up to the largest index in all masks.
"""

from pathlib import Path

from jaxzoo.errors import UsageError
from jaxzoo.images import image_files
from train.data import Data, stratified_split
from train.data.masks import MaskedImages, read_classes, read_mask, values_of
from train.data.splits import split_folders
from train.progress import say

Files = list[tuple[Path, Path]]


def load(path: str | Path, *, val_fraction: float, seed: int) -> Data:
    """Lists the files; without classes.txt, reads all masks.

    Raises:
      UsageError: no such folder, another layout, an image without mask or a mask without image, fewer than two images
        or classes.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}")
    ours, theirs = split_folders(root, lambda folder: (folder / "images").is_dir())
    if theirs:
        train, held_out = _pairs(ours) if ours else [], _pairs(theirs)
    else:
        files = _pairs(root)
        if len(files) < 2 and val_fraction < 1:
            raise UsageError(f"{root / 'images'} holds a single image: none can be held out")
        names = [str(image.relative_to(root)) for image, _ in files]
        ours, theirs = stratified_split([0] * len(files), val_fraction, seed, names)
        train, held_out = [files[i] for i in ours], [files[i] for i in theirs]
    names = root / "classes.txt"
    classes = read_classes(names) if names.exists() else _numbers(root, train + held_out)
    return Data(MaskedImages(train, len(classes)), MaskedImages(held_out, len(classes)), classes)


def _pairs(root: Path) -> Files:
    """Every image below images/ and the mask of the same name below masks/, sorted."""
    sides = {}
    for side in ("images", "masks"):
        folder = root / side
        if not folder.is_dir():
            raise UsageError(f"{root} needs the folders images/ and masks/, or train/ and val/ that hold these")
        sides[side] = {}
        for file in image_files(folder):
            stem = file.relative_to(folder).with_suffix("")
            if stem in sides[side]:
                raise UsageError(f"{sides[side][stem]} and {file} differ only in their endings; keep one of them")
            sides[side][stem] = file
    images, masks = sides["images"], sides["masks"]
    if not images:
        raise UsageError(f"{root / 'images'} holds no images")
    for these, others, what in ((images, masks, "image"), (masks, images, "mask")):
        if lonely := sorted(these.keys() - others.keys()):
            lacks, side = ("mask", "masks") if what == "image" else ("image", "images")
            more = f", nor have {len(lonely) - 1} others" if len(lonely) > 1 else ""
            raise UsageError(f"the {what} {these[lonely[0]]} has no {lacks} {root / side / lonely[0]}.*{more}")
    return [(images[stem], masks[stem]) for stem in sorted(images)]


def _numbers(root: Path, files: Files) -> list[str]:
    """Classes for masks that nobody names: the numbers from 0 to the largest in any."""
    most = 0
    for _, path in files:
        try:
            most = max([most, *values_of(read_mask(path))])
        except UsageError as error:
            raise UsageError(f"{error} (all masks are read, as {root} has no classes.txt)") from None
    if not most:
        raise UsageError(
            f"the masks of {root} hold no class but 0 (255 is for pixels that do not count); number the classes "
            "0, 1, 2 and so on"
        )
    say(f"{root} has no classes.txt: its classes are the numbers 0 to {most}, the largest in its masks")
    return [str(value) for value in range(most + 1)]
