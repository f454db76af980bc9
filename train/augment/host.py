"""Augmentation on the host: random changes of one PIL image, equal to torchvision's at the same parameters.

Chance comes from a given generator alone, and is asked for in the order in which torchvision asks for it: what a policy
makes of an image is what torchvision makes of it, were the same numbers drawn. Flips, erasing and mixing run on the
device (`train.augment.device`).

References: torchvision.transforms.autoaugment, RandomResizedCrop, ColorJitter, all on PIL images.
"""

import math

import numpy as np
from PIL import Image

from jaxzoo.errors import UsageError
from jaxzoo.preprocess import Preprocess, resize_and_crop
from train.augment import Augmentation
from train.augment.pil_ops import OPERATIONS, SIGNED, Box, Fill, adjusted, apply, cropped

# The strongest magnitude of operations with a direction: in AutoAugment and RandAugment, and in TrivialAugmentWide.
# Units are those of `apply`, but that the first translate by parts of the side.
STRONGEST = {
    **dict.fromkeys(("ShearX", "ShearY"), (0.3, 0.99)),
    **dict.fromkeys(("TranslateX", "TranslateY"), (150 / 331, 32.0)),
    "Rotate": (30.0, 135.0),
    **dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), (0.9, 0.99)),
}

# Cubuk et al., "AutoAugment", 2018, table 9: two operations each, with probability and one of ten levels.
IMAGENET_POLICY = (
    (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, None)),
    (("Equalize", 0.8, None), ("Equalize", 0.6, None)),
    (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
    (("Equalize", 0.4, None), ("Solarize", 0.2, 4)),
    (("Equalize", 0.4, None), ("Rotate", 0.8, 8)),
    (("Solarize", 0.6, 3), ("Equalize", 0.6, None)),
    (("Posterize", 0.8, 5), ("Equalize", 1.0, None)),
    (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
    (("Equalize", 0.6, None), ("Posterize", 0.4, 6)),
    (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
    (("Rotate", 0.4, 9), ("Equalize", 0.6, None)),
    (("Equalize", 0.0, None), ("Equalize", 0.8, None)),
    (("Invert", 0.6, None), ("Equalize", 1.0, None)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
    (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
    (("Sharpness", 0.4, 7), ("Invert", 0.6, None)),
    (("ShearX", 0.6, 5), ("Equalize", 1.0, None)),
    (("Color", 0.4, 0), ("Equalize", 0.6, None)),
    (("Equalize", 0.4, None), ("Solarize", 0.2, 4)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, None)),
    (("Invert", 0.6, None), ("Equalize", 1.0, None)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Equalize", 0.8, None), ("Equalize", 0.6, None)),
)


def augmented(
    image: Image.Image, rng: np.random.Generator, wanted: Augmentation, side: int, interpolation: str = "bilinear"
) -> Image.Image:
    """A training image of `side` x `side` pixels: random crop, colour jitter, then the policy, as `wanted`.

    Args:
      wanted: of it `crop_area`, `color_jitter`, `auto_augment`, `ra_ops` and `ra_magnitude` are read. With
        a `crop_area` of 1 there is no random crop: an image of the right size stays as it is, of others the shorter
        side is resized to `side` and the centre taken.
      interpolation: `bilinear` or `bicubic`, of crop and policy alike, as in torchvision's reference training.
    """
    if wanted.crop_area < 1:
        image = cropped(image, crop_box(image.size, rng, (wanted.crop_area, 1.0)), side, interpolation)
    elif image.size != (side, side):
        image = resize_and_crop(image, Preprocess(crop=side, interpolation=interpolation))
    if any(wanted.color_jitter):
        image = color_jitter(image, rng, *wanted.color_jitter)
    match wanted.auto_augment:
        case "none":
            return image
        case "autoaugment":
            return autoaugment(image, rng, interpolation=interpolation)
        case "randaugment":
            return randaugment(image, rng, wanted.ra_ops, wanted.ra_magnitude, interpolation=interpolation)
        case "trivialaugment":
            return trivialaugment(image, rng, interpolation=interpolation)
    raise UsageError(f"unknown --auto-augment {wanted.auto_augment!r}; it is autoaugment, randaugment, trivialaugment")


def crop_box(
    size: tuple[int, int],
    rng: np.random.Generator,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
    """A random part of an image of `size` (width, height), as torchvision's RandomResizedCrop takes it.

    Ten tries at a part of the image's area and a width-to-height ratio (uniform in the logarithm) within these ranges;
    then the largest central part that keeps to `ratio`.

    Returns:
      (left, top, right, bottom) in whole pixels.
    """
    width, height = size
    for _ in range(10):
        wanted = width * height * rng.uniform(*area)
        shape = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(wanted * shape)), round(math.sqrt(wanted / shape))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
            return left, top, left + w, top + h
    w, h = width, height
    if width / height < ratio[0]:
        h = round(w / ratio[0])
    elif width / height > ratio[1]:
        w = round(h * ratio[1])
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def color_jitter(
    image: Image.Image,
    rng: np.random.Generator,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
) -> Image.Image:
    """Brightness, contrast, saturation and hue by random factors in random order: torchvision's ColorJitter.

    Factors are uniform between 1 minus the argument, at least 0, and 1 plus it; hue between minus and plus it.
    """
    strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
    order = rng.permutation(4)
    factors = {
        name: rng.uniform(-most, most) if name == "hue" else rng.uniform(max(0.0, 1 - most), 1 + most)
        for name, most in strengths.items()
        if most
    }
    names = (tuple(strengths)[i] for i in order)
    return adjusted(image, [(name, factors[name]) for name in names if name in factors])


def autoaugment(
    image: Image.Image, rng: np.random.Generator, *, interpolation: str = "nearest", fill: Fill = None
) -> Image.Image:
    """One of the 25 pairs of operations that AutoAugment found for ImageNet, each with its probability."""
    pair = IMAGENET_POLICY[rng.integers(0, len(IMAGENET_POLICY))]
    chances, signs = rng.random(2), rng.integers(0, 2, 2)
    size = image.size
    for (operation, probability, level), chance, sign in zip(pair, chances, signs, strict=True):
        if chance <= probability:
            strengths = levels(operation, 10, size)
            magnitude = 0.0 if strengths is None else float(strengths[level])
            magnitude = -magnitude if operation in SIGNED and sign == 0 else magnitude
            image = apply(operation, image, magnitude, interpolation=interpolation, fill=fill)
    return image


def randaugment(
    image: Image.Image,
    rng: np.random.Generator,
    ops: int = 2,
    magnitude: int = 9,
    bins: int = 31,
    *,
    interpolation: str = "nearest",
    fill: Fill = None,
) -> Image.Image:
    """`ops` random operations one after the other, at level `magnitude` of `bins`, in a random direction.

    Reference: Cubuk et al., "RandAugment", 2019. Raises UsageError if there is no such level.
    """
    if not 0 <= magnitude < bins:
        raise UsageError(f"RandAugment's magnitude is {magnitude}; it must be a whole number from 0 to {bins - 1}")
    size = image.size
    for _ in range(ops):
        operation = OPERATIONS[rng.integers(0, len(OPERATIONS))]
        strengths = levels(operation, bins, size)
        strength = 0.0 if strengths is None else float(strengths[magnitude])
        strength = -strength if operation in SIGNED and rng.integers(0, 2) else strength
        image = apply(operation, image, strength, interpolation=interpolation, fill=fill)
    return image


def trivialaugment(
    image: Image.Image,
    rng: np.random.Generator,
    bins: int = 31,
    *,
    interpolation: str = "nearest",
    fill: Fill = None,
) -> Image.Image:
    """One random operation at a random level, in a random direction: TrivialAugmentWide (Müller and Hutter, 2021)."""
    operation = OPERATIONS[rng.integers(0, len(OPERATIONS))]
    strengths = levels(operation, bins)
    strength = 0.0 if strengths is None else float(strengths[rng.integers(0, bins)])
    strength = -strength if operation in SIGNED and rng.integers(0, 2) else strength
    return apply(operation, image, strength, interpolation=interpolation, fill=fill)


def levels(operation: str, bins: int, size: tuple[int, int] | None = None) -> np.ndarray | None:
    """The magnitudes of an operation, weakest first, float64 (bins,); None if it has none.

    Args:
      bins: how many, at least 2.
      size: (width, height) of the image, for AutoAugment and RandAugment; without it those of TrivialAugmentWide.
    """
    wide = size is None
    if operation in STRONGEST:
        most = STRONGEST[operation][wide]
        if operation.startswith("Translate") and not wide:
            most *= size[operation == "TranslateY"]
        return np.linspace(0, most, bins)
    if operation == "Posterize":  # bits that stay
        return 8 - np.round(np.arange(bins) / ((bins - 1) / (6 if wide else 4)))
    return np.linspace(255, 0, bins) if operation == "Solarize" else None
