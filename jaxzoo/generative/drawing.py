"""Images from 0 to 1 as pictures, alone and in rows."""

import numpy as np
from PIL import Image


def pictures(values: np.ndarray) -> list[Image.Image]:
    """Pixels from 0 to 1 (N, H, W, C), of one channel or three, as RGB."""
    pixels = np.clip(np.nan_to_num(np.asarray(values, np.float32)) * 255 + 0.5, 0, 255).astype(np.uint8)
    return [Image.fromarray(np.broadcast_to(image, (*image.shape[:2], 3)).copy()) for image in pixels]


def strip(values: np.ndarray, gap: int = 1) -> Image.Image:
    """Images (N, H, W, C) beside each other."""
    found = pictures(values)
    width, height = found[0].size
    whole = Image.new("RGB", (len(found) * (width + gap) - gap, height), "white")
    for i, picture in enumerate(found):
        whole.paste(picture, (i * (width + gap), 0))
    return whole


def grid(values: np.ndarray, across: int = 8, gap: int = 1) -> Image.Image:
    """Images (N, H, W, C) in rows of `across`."""
    rows = [strip(values[i : i + across], gap) for i in range(0, len(values), across)]
    whole = Image.new("RGB", (rows[0].width, sum(row.height + gap for row in rows) - gap), "white")
    for i, row in enumerate(rows):
        whole.paste(row, (0, i * (row.height + gap)))
    return whole


def enlarged(picture: Image.Image, times: int) -> Image.Image:
    """With every pixel as a square of so many."""
    return picture.resize((times * picture.width, times * picture.height), Image.Resampling.NEAREST)
