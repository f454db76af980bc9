"""What a network looks at while it learns: class_activation.png and first_kernels.png."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxzoo.inspect import heatmap
from jaxzoo.inspect.drawing import kernel_pictures, overlaid
from train.reporting.contact_sheet import Tile, draw_sheet

SHOWN = 8  # images of the first held-out batch
KERNELS, SIDE = 64, 48  # of the first layer; pixels of one


def draw_maps(tiles: Sequence[Tile], maps: np.ndarray, canvas: Sequence[int], folder: Path) -> None:
    """Images with what speaks for their captions, and below them under these class activation maps (N, h, w).

    Args:
      tiles: the images, each the upper left part of a canvas.
      canvas: height and width of all.
    """
    heat = np.asarray(heatmap(maps, canvas))
    under = [
        Tile(overlaid(tile.picture, one[: tile.picture.height, : tile.picture.width]), [""], tile.side)
        for tile, one in zip(tiles, heat, strict=False)
    ]
    title = "held-out images, and where the network sees what they show"
    draw_sheet([*tiles, *under], title, folder / "class_activation.png", across=len(tiles), keep=False)


def draw_first_kernels(kernel: np.ndarray, path: str, folder: Path) -> None:
    """The kernels of the first layer (kh, kw, in, out), some if there are many."""
    pictures = kernel_pictures(kernel)[:KERNELS]
    tiles = [Tile(picture.resize((SIDE, SIDE), 0), [""], SIDE) for _, picture in pictures]
    shape = " × ".join(map(str, kernel.shape))
    draw_sheet(tiles, f"kernels of {path}: {shape}", folder / "first_kernels.png", across=6, keep=False)
