"""What was seen inside a model, as pictures."""

import matplotlib
import numpy as np
from PIL import Image

HEAT, SIGNED = "turbo", "RdBu_r"  # matplotlib's names


def colored(values: np.ndarray, colors: str = HEAT) -> np.ndarray:
    """Values (...) from 0 to 1 as colours (..., 3) uint8."""
    return matplotlib.colormaps[colors](np.nan_to_num(np.asarray(values)), bytes=True)[..., :3]


def overlaid(picture: Image.Image, heat: np.ndarray, strength: float = 0.5) -> Image.Image:
    """An RGB picture under a heat map (H, W) from 0 to 1 of its size, which covers `strength` of it."""
    mixed = np.asarray(picture) * (1 - strength) + colored(heat).astype(float) * strength
    return Image.fromarray(mixed.astype(np.uint8))
