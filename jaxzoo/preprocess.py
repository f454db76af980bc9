"""Reading images, and the eval transform of the reference's published weights."""

import dataclasses
import os
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from jaxzoo.errors import UsageError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}


@dataclasses.dataclass(frozen=True)
class Preprocess:
    """An eval transform: shorter side to `resize`, centre `crop` (pixels), `(x / 255 - mean) / std` per RGB channel.

    Segmentation crops nothing, and with a `resize` of 0 sees images at their own size.
    """

    crop: int
    resize: int | None = None  # the crop's size unless given
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def at(self, size: int) -> "Preprocess":
        """The same with a crop of `size` pixels; resize and crop keep their proportion."""
        return dataclasses.replace(self, crop=size, resize=round(size * (self.resize or self.crop) / self.crop))

    def described(self, *, crops: bool = True) -> str:
        """In words; whether it `crops` is up to the task."""
        crop = f"centre crop of {self.crop}, " if crops else ""
        short = f"shorter side to {self.resize or self.crop} ({self.interpolation})"
        return f"{short}, {crop}mean {self.mean}, std {self.std}"


def image_files(folder: str | os.PathLike) -> list[Path]:
    """The images anywhere below a folder, as their names' endings tell (`IMAGE_SUFFIXES`), sorted; hidden ones not."""
    return sorted(
        Path(root, name)
        for root, _, names in os.walk(folder, followlinks=True)
        for name in names
        if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")
    )


def read_image(source: str | os.PathLike | BinaryIO, name: str | None = None) -> Image.Image:
    """Reads an image as 8-bit RGB, upright.

    EXIF rotation is applied; grayscale, palette, CMYK and 16-bit images are converted (16 bits keep their upper eight),
    and transparency is dropped.

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
            ImageOps.exif_transpose(image, in_place=True)
            if image.mode.startswith("I"):  # I;16 and relatives; Pillow's own conversion would clip at 255
                image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
            return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it
    except FileNotFoundError:
        raise UsageError(f"there is no image at {name}") from None
    except IsADirectoryError:
        raise UsageError(f"{name} is a directory, not an image") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"{name} cannot be read as an image ({error}); replace or remove it") from None


def resize_and_crop(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    """The geometry of the eval transform: shorter side to `resize` (antialiased), then the central `crop` pixels."""
    width, height = image.size
    short = preprocess.resize or preprocess.crop
    size = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    if size != image.size:
        image = image.resize(size, getattr(Image.Resampling, preprocess.interpolation.upper()))
    left, top = (_start(length, preprocess.crop) for length in image.size)
    return image.crop((left, top, left + preprocess.crop, top + preprocess.crop))  # black beyond the border


def _start(length: int, crop: int) -> int:
    """Where a centred crop starts; torchvision rounds one way to cut and the other way to pad."""
    return round((length - crop) / 2) if length >= crop else -((crop - length) // 2)


def eval_transform(image: Image.Image, preprocess: Preprocess) -> np.ndarray:
    """An RGB image as the network wants it: float32, (crop, crop, 3), normalised; equal to torchvision's transform."""
    return normalised(resize_and_crop(image, preprocess), preprocess)


def normalised(image: Image.Image, preprocess: Preprocess) -> np.ndarray:
    """An RGB image's pixels, float32 (H, W, 3): `(x / 255 - mean) / std` of each channel."""
    pixels = np.asarray(image, np.float32) / 255
    return (pixels - np.asarray(preprocess.mean, np.float32)) / np.asarray(preprocess.std, np.float32)
