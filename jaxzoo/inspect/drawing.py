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


def map_picture(values: np.ndarray) -> Image.Image:
    """A channel of a map (h, w), from its least value, dark, to its greatest, bright."""
    values = np.asarray(values, np.float64)
    return Image.fromarray(colored((values - values.min()) / max(np.ptp(values), 1e-12), "viridis"))


def kernel_pictures(kernel: np.ndarray) -> list[tuple[str, Image.Image]]:
    """A kernel as pictures with captions, whose middle colour is 0.

    Of a convolution (kh, kw, in, out) one for each output: in colours if there are three inputs, of one input,
    else of the input with the largest weights, blue where they are negative and red where they are positive. Of
    pointwise and linear ones (in, out) a single one, a row for each output.
    """
    kernel = np.nan_to_num(np.asarray(kernel, np.float64))
    if kernel.ndim == 2 or kernel.shape[:-2] == (1,) * (kernel.ndim - 2):
        matrix = kernel.reshape(kernel.shape[-2:]).T
        limit = np.quantile(np.abs(matrix), 0.99) or 1
        return [(f"{matrix.shape[0]} outputs × {matrix.shape[1]} inputs", _signed(matrix, limit))]
    pictures = []
    for number in range(kernel.shape[-1]):
        one = kernel[..., number]
        limit = np.abs(one).max() or 1
        if one.shape[-1] == 3:
            pictures.append((f"{number}", Image.fromarray(np.round(127.5 + 127.5 * one / limit).astype(np.uint8))))
            continue
        strongest = int(np.abs(one).sum((0, 1)).argmax())
        caption = f"{number}" if one.shape[-1] == 1 else f"{number}, input {strongest}"
        pictures.append((caption, _signed(one[..., strongest], limit)))
    return pictures


def _signed(values: np.ndarray, limit: float) -> Image.Image:
    return Image.fromarray(colored(np.clip(0.5 + values / limit / 2, 0, 1), SIGNED))


def bars(counts: np.ndarray) -> str:
    """A histogram in a line of text: 16 bars."""
    counts = counts.reshape(16, -1).sum(1)
    return "".join(" ▁▂▃▄▅▆▇█"[int(np.ceil(8 * count / max(counts.max(), 1)))] for count in counts)
