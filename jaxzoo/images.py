"""Image files: which there are, and reading them."""

import collections
import functools
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from jaxzoo.errors import UsageError

# What Pillow knows by name alone, or hands over to another program.
_WITHOUT_PIXELS = {"BUFR", "EMF", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}
_BYTES = re.compile("[\udc80-\udcff]+")
_OF_TOOLS = {".ipynb_checkpoints", "__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "@eadir"}
_ORIENTATION = 0x0112  # EXIF's tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def hidden(name: str) -> bool:
    """Whether a file or folder of this name is a tool's own: .ipynb_checkpoints, ._1.jpg, __MACOSX, Thumbs.db, ..."""
    return name.startswith(".") or name.lower() in _OF_TOOLS


def has_hidden_part(path: str) -> bool:
    """Whether a path leads through hidden folders. Those of an absolute one are the user's, unless a tool made them."""
    *above, name = Path(path).parts or (".",)
    if path.startswith(("/", "~")):
        return hidden(name) or any(part.lower() in _OF_TOOLS for part in above)
    return any(hidden(part) for part in (*above, name) if part != "..")


def endings(files: Iterable[Path]) -> str:
    """How many files have which ending, the most frequent first: "2 .heic, 1 .txt"."""
    counts = collections.Counter(path.suffix.lower() or "without an ending" for path in files)
    return ", ".join(f"{count} {ending}" for ending, count in counts.most_common(8)) + ", …" * (len(counts) > 8)


def as_text(name: str) -> str:
    """A file's name for people: bytes that are no UTF-8, which Python keeps as lone surrogates, as Windows-1252."""
    return _BYTES.sub(lambda found: found[0].encode(errors="surrogateescape").decode("cp1252", "replace"), name)


@functools.cache
def image_suffixes() -> frozenset[str]:
    """The endings of files whose pixels Pillow reads, in small letters, each with its dot."""
    known = Image.registered_extensions()
    readable = Image.OPEN.keys() - _WITHOUT_PIXELS | {"MPO"}  # MPO opens as JPEG
    return frozenset(suffix for suffix, kind in known.items() if kind in readable)


def image_files(folder: str | os.PathLike, others: Callable[[Path], None] = lambda path: None) -> list[Path]:
    """The images anywhere below a folder, as their names' endings tell (`image_suffixes`), sorted.

    Hidden files and folders are passed over. A folder that is there by links as well is read once, and a link to what
    the folder lies in is not followed.

    Args:
      others: is told of files that are no images.

    Raises:
      UsageError: a folder may not be read.
    """
    found, linked = [], []
    seen = {*map(str, Path(folder).resolve().parents)}

    def walk(place: Path) -> None:
        if (real := os.path.realpath(place)) in seen:
            return
        seen.add(real)
        for path, is_folder in _entries(place):
            if not is_folder:
                found.append(path) if path.suffix.lower() in image_suffixes() else others(path)
            elif path.is_symlink():
                linked.append(path)
            else:
                walk(path)

    walk(Path(folder))
    while linked:  # after all that is there without them
        walk(linked.pop(0))
    return sorted(found)


def folders(folder: str | os.PathLike) -> list[Path]:
    """The folders in a folder, sorted, without hidden ones and links to its parents. Raises UsageError."""
    above = {os.path.realpath(folder), *map(str, Path(folder).resolve().parents)}
    return [path for path, is_folder in _entries(folder) if is_folder and os.path.realpath(path) not in above]


def _entries(folder: str | os.PathLike) -> list[tuple[Path, bool]]:
    """What lies in a folder and is not hidden, sorted by name, and whether that is a folder."""
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry.name, entry) for entry in entries if not hidden(entry.name))
    except OSError as error:
        raise UsageError(f"the folder {folder} cannot be read ({error.strerror})") from None
    # Where the file system says what an entry is, that costs no access to it.
    return [(path := Path(entry.path), path.is_dir() if entry.is_symlink() else entry.is_dir()) for _, entry in found]


def read_image(source: str | os.PathLike | BinaryIO, name: str | None = None) -> Image.Image:
    """Reads an image as 8-bit RGB, upright.

    EXIF's orientation is applied. Grayscale, palette and CMYK images are converted, those of more than 8 bits are
    scaled, see `to_eight_bits`, and transparency is dropped, unless nothing is drawn but in it.

    Args:
      source: a path or an open binary file.
      name: how errors call the image; the path unless given.

    Raises:
      UsageError: there is no such file, or it is no image, or it is damaged or cut short.
    """
    name = name or str(source)
    try:
        with Image.open(source) as image:
            image.load()
            return _in_rgb(turned(image, orientation(image)))
    except FileNotFoundError:
        raise UsageError(f"there is no image at {name}") from None
    except IsADirectoryError:
        raise UsageError(f"{name} is a directory, not an image") from None
    except Exception as error:  # of damaged files Pillow's readers raise struct.error, EOFError, OverflowError, ...
        raise UsageError(
            f"{name} cannot be read as an image ({str(error) or type(error).__name__}); replace or remove it"
        ) from None


def orientation(image: Image.Image) -> int:
    """How a camera was held, 1 to 8, as EXIF says; 1 (upright) where it says nothing that can be understood."""
    try:
        found = image.getexif().get(_ORIENTATION)
    except Exception:  # a damaged tag says nothing about the pixels, which may be fine
        return 1
    return found if isinstance(found, int) and found in _UPRIGHT else 1


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """The image upright, given how its camera was held."""
    return image.transpose(_UPRIGHT[orientation]) if orientation != 1 else image


def to_eight_bits(values: np.ndarray) -> np.ndarray:
    """Pixels of any real type as uint8, by the range that they are most likely parts of.

    - Whole numbers up to 255 stay, those up to 4095 (12 bits) are divided by 4095 / 255, and up to 65535 by 257.
    - Fractions from 0 to 1 are multiplied by 255, and those up to 255 rounded; resampling may have left them a tenth
      outside.
    - Anything else is stretched from its least to its greatest value. What is not finite counts as the least.

    Raises:
      ValueError: no value is finite.
    """
    if not (finite := np.isfinite(values)).any():
        raise ValueError("none of its pixels is a number")
    low, high = float(values[finite].min()), float(values[finite].max())
    if np.issubdtype(values.dtype, np.integer):
        known = [top for top in (255, 4095, 65535) if low >= 0 and high <= top]
    else:
        known = [top for top, least in ((1, 0), (255, 32)) if -0.1 * high <= low and least <= high <= 1.1 * top]
    first, top = (0, known[0]) if known else (low, max(high - low, np.finfo(np.float32).tiny))
    values = np.where(finite, values, low).astype(np.float64)
    return np.clip(np.round((values - first) * (255 / top)), 0, 255).astype(np.uint8)


def _in_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        image = Image.fromarray(to_eight_bits(np.asarray(image)))  # Pillow's own conversion would clip at 255
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        *colors, opacity = image.getextrema()
        if all(low == high for low, high in colors) and opacity[0] != opacity[1]:  # a shape cut out of one colour
            ground = 255 if sum(low for low, _ in colors) < 384 else 0
            image = Image.alpha_composite(Image.new("RGBA", image.size, (ground, ground, ground, 255)), image)
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it
