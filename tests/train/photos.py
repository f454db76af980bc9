"""`python -m tests.train.photos FOLDER` makes a folder of photographs to learn from: JPEGs of about 500×400, 5 classes.

They are parts of scikit-image's photographs (bricks, grass, gravel, coffee, tissue), small and large, in any light,
tinted, mirrored, turned a little, noisy and out of focus, as people's pictures are. Some files are as in real
folders: one is damaged, one is CMYK, one is grayscale and one lies on its side, as EXIF says.
"""

import sys
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

CLASSES = {
    "brick": skimage.data.brick,
    "coffee": skimage.data.coffee,
    "grass": skimage.data.grass,
    "gravel": skimage.data.gravel,
    "tissue": skimage.data.immunohistochemistry,
}
SIDEWAYS = 6  # EXIF's orientation of a picture that has to be turned by 90° clockwise


def make(folder: Path, count: int, size: tuple[int, int] = (500, 400), seed: int = 0) -> Path:
    """Writes `count` JPEGs of about `size` pixels (width, height) of each class, which follow from the seed.

    Returns:
      the damaged one.
    """
    for label, (name, picture) in enumerate(CLASSES.items()):
        (folder / name).mkdir(parents=True)
        whole = Image.fromarray(picture()).convert("RGB")
        for index in range(count):
            photo = photograph(whole, size, np.random.default_rng((seed, label, index)))
            photo.save(folder / name / f"{index:03}.jpg", quality=90)
    for path, change in {"brick/001": "CMYK", "coffee/001": "L"}.items():
        with Image.open(folder / f"{path}.jpg") as image:
            image.convert(change).save(folder / f"{path}.jpg", quality=90)
    with Image.open(folder / "grass" / "001.jpg") as image:
        exif = Image.Exif()
        exif[0x0112] = SIDEWAYS
        image.transpose(Image.Transpose.ROTATE_90).save(folder / "grass" / "001.jpg", quality=90, exif=exif)
    damaged = folder / "tissue" / "001.jpg"
    damaged.write_bytes(damaged.read_bytes()[:300])
    return damaged


def photograph(whole: Image.Image, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A part of a picture, as if somebody had photographed it anew."""
    width, height = (round(side * rng.uniform(0.85, 1.15)) for side in size)
    part = min(whole.width / width, whole.height / height) * rng.uniform(0.1, 0.5)
    left, top = rng.uniform(0, whole.width - part * width), rng.uniform(0, whole.height - part * height)
    image = whole.rotate(rng.uniform(-12, 12), Image.Resampling.BILINEAR)
    image = image.resize(
        (width, height), Image.Resampling.BICUBIC, (left, top, left + part * width, top + part * height)
    )
    if rng.random() < 0.5:
        image = ImageOps.mirror(image)
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = change(image).enhance(rng.uniform(0.3, 1.5))
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 6)))
    light, noise = rng.uniform(0.6, 1.2, 3), rng.normal(0, rng.uniform(2, 25), (height, width, 1))
    return Image.fromarray(np.clip(np.asarray(image) * light + noise, 0, 255).astype(np.uint8))


if __name__ == "__main__":
    print(f"made {sys.argv[1]}; damaged is {make(Path(sys.argv[1]), 70)}")
