"""Pascal VOC's classes and colours, in which class masks are drawn here.

Everingham et al. 2010, The Pascal Visual Object Classes (VOC) Challenge; colours as the development kit's colour map.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

IGNORED = 255
"""The value of pixels in masks that count nowhere: VOC's borders of objects."""

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


@functools.cache
def palette() -> np.ndarray:
    """VOC's colour of every mask value, uint8 (256, 3) RGB: 0 is black, 255 cream.

    The bits of a value go to red, green and blue in turn, the lowest three becoming the highest of each colour.
    """
    values, colors = np.arange(256)[:, None], np.zeros((256, 3), int)
    for bit in range(8):
        colors |= (values >> [0, 1, 2] & 1) << (7 - bit)
        values = values >> 3
    colors = colors.astype(np.uint8)
    colors.flags.writeable = False
    return colors


def colored(mask: np.ndarray) -> Image.Image:
    """A class mask (H, W) uint8 as a palette image, with the same values, in VOC's colours."""
    image = Image.fromarray(np.ascontiguousarray(mask, np.uint8))
    image.putpalette(palette().tobytes())
    return image


def overlay(image: np.ndarray, mask: np.ndarray, alpha: float = 0.6) -> np.ndarray:
    """The image (H, W, 3) uint8 RGB with each class's colour over it, uint8 (H, W, 3); class 0 stays as it is.

    Args:
      mask: classes (H, W) uint8.
      alpha: how much of a pixel is its class's colour, 0 to 1.
    """
    image, mask = np.asarray(image), np.asarray(mask)
    mixed = image * (1 - alpha) + palette()[mask] * alpha
    return np.where((mask == 0)[..., None], image, (mixed + 0.5).astype(np.uint8))


def legend(classes: Sequence[str], width: int, values: Sequence[int] | None = None) -> Image.Image:
    """Names of classes beside their colours, in rows, an RGB image `width` pixels wide with a white ground.

    Args:
      classes: the name of every value.
      values: those to show, 255 for ignored pixels; all unless given.
    """
    import matplotlib  # has the font, and takes a while to import

    font = ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), 12)
    gap, box, line = 8, 12, 20
    places, x, y = [], gap, gap // 2
    for value in range(len(classes)) if values is None else values:
        name = "ignored" if value == IGNORED else classes[value]
        long = box + 4 + int(font.getlength(name)) + 1
        if x > gap and x + long > width:
            x, y = gap, y + line
        places.append((x, y, value, name))
        x += long + 2 * gap
    picture = Image.new("RGB", (width, y + line + gap // 2), "white")
    draw = ImageDraw.Draw(picture)
    for x, y, value, name in places:
        draw.rectangle((x, y + 4, x + box, y + 4 + box), tuple(palette()[value].tolist()), "#6b7280")
        draw.text((x + box + 4, y + 3), name, "#111827", font)
    return picture
