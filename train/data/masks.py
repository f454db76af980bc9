"""Class masks beside images: reading and checking them, and changes that move image and mask alike.

An item of a segmentation source is a PIL image, RGB, and its mask (H, W) uint8: a class for every pixel, 255 where none
counts. Such a source also has `size(index)`.
"""

import contextlib
import functools
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from jaxzoo.errors import UsageError
from jaxzoo.images import orientation, read_image, turned
from jaxzoo.voc import IGNORED
from train.reporting.progress import say
from train.reporting.sample import evenly_spread

STEP = 32  # sides that networks which halve an image five times divide evenly
SIDEWAYS = (5, 6, 7, 8)  # values of EXIF's orientation that turn width into height
LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF")
Item = tuple[Image.Image, np.ndarray]
Colors = Mapping[tuple[int, int, int], int]  # the class that an RGB colour stands for


class MaskedImages:
    """Image files, each with the file of its mask, which `read` reads."""

    def __init__(self, files: Sequence[tuple[Path, Path]], classes: int, read: Callable[[Path], np.ndarray]):
        self.files, self.classes, self.read = files, classes, read

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Item:
        path, mask_path = self.files[index]
        image = read_image(path)
        mask = turned_like(self.read(mask_path), image, path)
        return image, checked(mask, image, self.classes, str(mask_path), str(path))

    def name(self, index: int) -> str:
        return str(self.files[index][0])

    def size(self, index: int) -> tuple[int, int]:
        """Height and width in pixels. Raises UsageError."""
        return image_size(self.files[index][0])


def read_mask(source: Path | BinaryIO, name: str | None = None, colors: Colors | None = None) -> np.ndarray:
    """A mask's class indices (H, W) uint8, upright: from a palette image, a gray one, or one in known colours.

    Raises:
      UsageError: there is no such file, it cannot be read, its compression changes values, a colour means nothing, or
        an index is above 255.
    """
    name = name or str(source)
    try:
        with Image.open(source) as opened:
            opened.load()
            kind, image = opened.format, turned(opened, orientation(opened))
    except FileNotFoundError:
        raise UsageError(f"there is no mask at {name}") from None
    except Exception as error:  # of damaged files Pillow's readers raise struct.error, EOFError, OverflowError, ...
        raise UsageError(f"{name} cannot be read as a mask ({error}); replace or remove it") from None
    if kind in LOSSY:
        raise UsageError(f"the mask {name} is a {kind} image, whose compression changes classes; save masks as PNG")
    values = _indices(image, name, colors)
    if values.dtype != np.uint8 and values.size and not 0 <= int(values.min()) <= int(values.max()) <= 255:
        raise UsageError(f"{name} holds the value {values.max()}; a mask's class indices are 0 to 254, and 255")
    return values.astype(np.uint8)


def _indices(image: Image.Image, name: str, colors: Colors | None) -> np.ndarray:
    """What an image's pixels stand for (H, W)."""
    if image.mode in ("P", "L", "1", "F") or image.mode.startswith("I"):
        values = np.array(image)
        if image.mode != "F" or (values == np.round(values)).all():
            return values
    why = f"{name} is an {image.mode} image"
    if image.mode in ("LA", "RGB", "RGBA"):
        red, green, blue = (np.array(band, np.int32) for band in image.convert("RGB").split())
        found, places = np.unique(red << 16 | green << 8 | blue, return_inverse=True)
        found = [(color >> 16, color >> 8 & 255, color & 255) for color in found.tolist()]
        unknown = [color for color in found if color not in (colors or {})]
        if not unknown:
            return np.array([colors[color] for color in found])[places].reshape(red.shape)
        if all(r == g == b for r, g, b in found):  # gray, as some programs save it
            return red
        if colors:
            why += f" with a colour of no class, {unknown[0]}"
    raise UsageError(f"{why}; a mask holds a class index for every pixel, so save it as a palette or grayscale PNG")


def turned_like(mask: np.ndarray, image: Image.Image, source: Path | bytes) -> np.ndarray:
    """The mask turned as its image was, if it was made for the pixels as they are stored, which lie on their side."""
    if mask.shape == image.size and image.width != image.height:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as stored:
            if (held := orientation(stored)) in SIDEWAYS:
                return np.array(turned(Image.fromarray(mask), held))
    return mask


def checked(mask: np.ndarray, image: Image.Image, classes: int, name: str, image_name: str) -> np.ndarray:
    """The mask, if it is one of this image. Raises UsageError if its size is another, or a class does not exist."""
    if mask.shape != (image.height, image.width):
        raise UsageError(
            f"the mask {name} is {mask.shape[1]} x {mask.shape[0]} pixels, its image {image_name} {image.width} x "
            f"{image.height}; they must be of one size"
        )
    present = values_of(mask)
    if unknown := [value for value in present if value >= classes]:
        raise UsageError(
            f"the mask {name} holds the value {unknown[0]}, but there are {classes} classes: 0 to {classes - 1}, and "
            "255 for pixels that do not count"
        )
    return mask


def reader(
    files: Iterable[Path], classes: Sequence[str], where: Path, colors: Colors | None = None
) -> Callable[[Path], np.ndarray]:
    """How to read the masks of a data set: where two classes are 0 and 255 in all of them, 255 is the second.

    Masks are read until there is more than the background in one. Raises UsageError if there is nothing else in any.
    """
    read = functools.partial(read_mask, colors=colors)
    seen, broken = set(), None
    for path in files:
        try:
            seen.update(np.unique(read(path)).tolist())
        except UsageError as error:  # said when its turn comes
            broken = error
            continue
        if seen - {0, IGNORED}:
            return read
    if not seen and broken:
        raise broken
    if seen == {0, IGNORED} and len(classes) == 2:
        say(f"the masks of {where} hold 0 and 255 alone: 255 stands for {classes[1]!r}")
        return lambda path: np.minimum(read(path), 1)
    known = repr(classes[0]) if 0 in seen else "none"
    raise UsageError(
        f"all pixels in the masks of {where} are of class {known} or do not count (255); number the classes 0 to "
        f"{len(classes) - 1}"
    )


def values_of(mask: np.ndarray) -> list[int]:
    """The classes in a mask, in order, without 255."""
    return [int(value) for value in np.flatnonzero(np.bincount(mask.ravel(), minlength=256)) if value != IGNORED]


def image_size(source: Path | bytes) -> tuple[int, int]:
    """Height and width of an image file as `read_image` gives it, without decoding it. Raises UsageError."""
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            width, height = image.size
            # Of TIFF Pillow says the size upright.
            return (width, height) if image.format != "TIFF" and orientation(image) in SIDEWAYS else (height, width)
    except Exception as error:  # as in `read_image`
        raise UsageError(f"an image cannot be read ({error})") from None


class Canvas(NamedTuple):
    """Height and width that images of like sizes fit on, and which images of a source these are."""

    size: tuple[int, int]
    indices: np.ndarray


def canvases(source: Sequence, step: int = STEP, most: int = 4) -> list[Canvas]:
    """Up to `most` canvases, multiples of `step`, for all images of a source; that of most images first.

    Images that cannot be read go with the smallest.
    """
    sizes = np.full((len(source), 2), step)
    for index in range(len(source)):
        with contextlib.suppress(UsageError):  # said when its turn comes
            sizes[index] = [max(step, -(-side // step) * step) for side in source.size(index)]
    return grouped(sizes, most)


def grouped(sizes: np.ndarray, most: int, least_gain: float = 1 / 4, least: int = 1) -> list[Canvas]:
    """Up to `most` canvases for images of these sizes (N, 2), each for `least` images or more; that of most images
    first.

    Each is a program to compile, so there is one more only where that saves a quarter, or `least_gain`, of all pixels:
    where one image is much larger than the others, say. Images of one size share a canvas.
    """
    sizes, which, counts = np.unique(sizes, axis=0, return_inverse=True, return_counts=True)
    groups = [np.arange(len(sizes))]
    while len(groups) < most:
        splits = [(*_split(sizes[group], counts[group], least), number) for number, group in enumerate(groups)]
        saved, order, first, number = max(splits, key=lambda split: split[0])
        if not saved or saved < least_gain * sum(counts[group].sum() * sizes[group].max(0).prod() for group in groups):
            break
        members = groups[number][order]
        groups[number : number + 1] = [members[:first], members[first:]]
    found = [Canvas(tuple(sizes[group].max(0).tolist()), np.flatnonzero(np.isin(which, group))) for group in groups]
    return sorted(found, key=lambda canvas: -len(canvas.indices))


def _split(sizes: np.ndarray, counts: np.ndarray, least: int) -> tuple[int, np.ndarray, int]:
    """How to divide so many images of each of these sizes (S, 2) in two: pixels saved, an order of the sizes, and how
    many of them come first in it."""
    found = []
    for key in (sizes[:, 0], sizes[:, 1], sizes.prod(1)):
        order = np.argsort(key, kind="stable")
        before = np.cumsum(counts[order])
        low = np.maximum.accumulate(sizes[order]).prod(1)  # of the images of the first 1, 2, ... sizes
        high = np.maximum.accumulate(sizes[order[::-1]])[::-1].prod(1)
        saved = before[-1] * low[-1] - before[:-1] * low[:-1] - (before[-1] - before[:-1]) * high[1:]
        saved[(before[:-1] < least) | (before[-1] - before[:-1] < least)] = 0
        if len(saved):
            best = int(saved.argmax())
            found.append((int(saved[best]), order, best + 1))
    return max(found, key=lambda split: split[0], default=(0, np.arange(len(sizes)), 0))


def read_classes(path: Path) -> list[str]:
    """The names in a classes.txt, one in a line, that of class 0 first. Raises UsageError."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as text ({error})") from None


def check_names(names: list[str], path: Path) -> list[str]:
    """The names of classes in a file, if masks can have so many and no name comes twice. Raises UsageError."""
    if not 2 <= len(names) <= IGNORED:
        raise UsageError(f"{path} has {len(names)} class names, one a line; there must be 2 to 255")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{path} names {twice[0]!r} twice")
    return names


class Pixels(NamedTuple):
    """What masks hold: pixels (C,) and images (C,) of every class, and pixels that are ignored; int64."""

    pixels: np.ndarray
    images: np.ndarray
    ignored: int


def count(source: Sequence, classes: int, most: int = 2000) -> Pixels:
    """Pixels and images of every class in up to `most` items, evenly spread; unreadable ones do not count."""
    pixels, images = np.zeros(256, np.int64), np.zeros(256, np.int64)
    for index in evenly_spread(len(source), most):
        try:
            found = np.bincount(source[index][1].ravel(), minlength=256)
        except UsageError:
            continue
        pixels += found
        images += found > 0
    return Pixels(pixels[:classes], images[:classes], int(pixels[IGNORED]))


def rescaled(image: Image.Image, mask: np.ndarray, factor: float) -> Item:
    """Both so many times larger: the image bilinear (antialiased), the mask by its nearest pixels."""
    size = tuple(max(1, round(side * factor)) for side in image.size)
    if size == image.size:
        return image, mask
    nearest = Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)
    return image.resize(size, Image.Resampling.BILINEAR), np.array(nearest)


def window(
    image: Image.Image, mask: np.ndarray, corner: tuple[int, int], size: tuple[int, int], fill: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """What lies in a window: (h, w, 3) uint8 of `fill` and (h, w) uint8 of 255 where that is outside the image.

    Args:
      corner: row and column of the window's first pixel in the image, which may be negative.
      size: the window's height and width.
      fill: RGB, 0 to 255.
    """
    top, left = corner
    pixels = np.empty((*size, 3), np.uint8)
    pixels[:] = fill
    classes = np.full(size, IGNORED, np.uint8)
    part = image.crop((max(left, 0), max(top, 0), min(left + size[1], image.width), min(top + size[0], image.height)))
    down, across = max(-top, 0), max(-left, 0)
    inside = (slice(down, down + part.height), slice(across, across + part.width))
    pixels[inside] = np.asarray(part)
    classes[inside] = mask[max(top, 0) :, max(left, 0) :][: part.height, : part.width]
    return pixels, classes


def random_window(
    image: Image.Image, mask: np.ndarray, size: tuple[int, int], fill: Sequence[int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """`window` at a random place: inside the image, or where that is smaller, around it."""
    room = (image.height - size[0], image.width - size[1])
    corner = tuple(int(rng.integers(min(0, space), max(0, space) + 1)) for space in room)
    return window(image, mask, corner, size, fill)


@functools.cache
def mean_color(mean: tuple[float, ...]) -> tuple[int, ...]:
    """The colour that normalising takes to about 0: of an eval transform's `mean` (0 to 1), 0 to 255."""
    return tuple(round(255 * value) for value in mean)
