"""Single operations on a PIL RGB image, without chance: bit for bit what torchvision does at the same parameters.

References: torchvision.transforms.functional on PIL images, and `_apply_op` of its policies.
"""

import math
from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from jaxzoo.errors import UsageError

Box = tuple[int, int, int, int]
Fill = int | tuple[int, int, int] | None

# What policies choose from; AutoAugment's has Invert too.
OPERATIONS = (
    *("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast"),
    *("Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize"),
)
SIGNED = OPERATIONS[1:10]  # those with a direction
INTERPOLATIONS = ("nearest", "bilinear", "bicubic")


def apply(
    operation: str, image: Image.Image, magnitude: float, *, interpolation: str = "nearest", fill: Fill = None
) -> Image.Image:
    """One operation by torchvision's name at a magnitude, bit for bit as there.

    Args:
      magnitude: shear in pixels per pixel, translation in pixels (whole ones; the rest is dropped), rotation in
        degrees, what is added to a factor of 1 (Brightness, Color, Contrast, Sharpness), bits that stay (Posterize),
        threshold of 0 to 255 (Solarize); the other operations ignore it.
      interpolation: `nearest`, `bilinear` or `bicubic`, where pixels move.
      fill: the colour of what comes in from outside, 0 to 255; black unless given.

    Raises:
      UsageError: there is no such operation or interpolation.
    """
    match operation:
        case "Identity":
            return image
        case "ShearX" | "ShearY":
            # There and back through degrees, as torchvision goes: the last bit can decide a pixel.
            angle = math.radians(math.degrees(math.atan(magnitude)))
            across, down = math.tan(angle), math.sin(angle) / math.cos(angle)
            matrix = (1, across, 0, 0, 1, 0) if operation == "ShearX" else (1, 0, 0, down, 1, 0)
            return _moved(image, matrix, interpolation, fill)
        case "TranslateX":
            return _moved(image, (1, 0, -int(magnitude), 0, 1, 0), interpolation, fill)
        case "TranslateY":
            return _moved(image, (1, 0, 0, 0, 1, -int(magnitude)), interpolation, fill)
        case "Rotate":
            return image.rotate(magnitude, _resampling(interpolation), fillcolor=_color(fill))
        case "Brightness" | "Contrast" | "Sharpness":
            return adjusted(image, [(operation.lower(), 1.0 + magnitude)])
        case "Color":
            return adjusted(image, [("saturation", 1.0 + magnitude)])
        case "Posterize":
            return ImageOps.posterize(image, int(magnitude))
        case "Solarize":
            return ImageOps.solarize(image, magnitude)
        case "AutoContrast":
            return ImageOps.autocontrast(image)
        case "Equalize":
            return ImageOps.equalize(image)
        case "Invert":
            return ImageOps.invert(image)
    raise UsageError(f"unknown operation {operation!r}; it is one of {', '.join(OPERATIONS)}, Invert")


_ENHANCERS = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "saturation": ImageEnhance.Color,
    "sharpness": ImageEnhance.Sharpness,
}


def adjusted(image: Image.Image, changes: Iterable[tuple[str, float]]) -> Image.Image:
    """The image after one change after the other: (`brightness`, `contrast`, `saturation`, `sharpness`, factor), where
    1 changes nothing and 0 leaves black, gray, gray and smooth; or (`hue`, part of the colour circle, -0.5 to 0.5)."""
    for name, factor in changes:
        if name == "hue":
            hue, saturation, value = image.convert("HSV").split()
            turned = np.asarray(hue) + np.uint8(int(factor * 255) % 256)  # round the circle
            image = Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")
        else:
            image = _ENHANCERS[name](image).enhance(factor)
    return image


def cropped(image: Image.Image, box: Box, side: int, interpolation: str = "bilinear") -> Image.Image:
    """What is in the box, resized to `side` x `side` pixels (antialiased): torchvision's `resized_crop`."""
    # Not resize(box=...), whose filter also sees the pixels around the box.
    return image.crop(box).resize((side, side), _resampling(interpolation))


def _moved(image: Image.Image, matrix: tuple[float, ...], interpolation: str, fill: Fill) -> Image.Image:
    """Each pixel (x, y) from (ax + by + c, dx + ey + f)."""
    affine = Image.Transform.AFFINE
    return image.transform(image.size, affine, matrix, _resampling(interpolation), fillcolor=_color(fill))


def _color(fill: Fill) -> tuple[int, ...]:
    return tuple(fill) if isinstance(fill, tuple | list) else (fill or 0,) * 3


def _resampling(interpolation: str) -> Image.Resampling:
    if interpolation not in INTERPOLATIONS:
        raise UsageError(f"unknown interpolation {interpolation!r}; it is one of {', '.join(INTERPOLATIONS)}")
    return Image.Resampling[interpolation.upper()]
