"""Pictures of models that reconstruct and generate: reconstructions, samples over time, filters, codes."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from jaxzoo.generative.drawing import grid, strip
from train.reporting import records
from train.reporting.contact_sheet import SIDE, Tile, draw_sheet
from train.reporting.figure import save

ACROSS, WIDE = 12, 6 * SIDE  # images in a row, and the width of one in pixels
ROWS = 10  # of samples at most, over time
Rows = Mapping[int, Mapping[str, np.ndarray]]


def draw_reconstructions(rows: Rows, titles: Mapping[str, str], path: Path) -> None:
    """The first images in a row for each of `titles`: by the name of what was collected its words."""
    first = [rows[i] for i in sorted(rows)[:ACROSS]]
    tiles = [Tile(strip(np.stack([row[name] for row in first])), [words], WIDE) for name, words in titles.items()]
    draw_sheet(tiles, "held-out images", path, keep=False)


def draw_samples(samples: np.ndarray, folder: Path) -> None:
    """Adds a row of samples (N, H, W, C) to those of earlier epochs, and draws all, or ten that are evenly spread."""
    place = folder / "samples"
    place.mkdir(exist_ok=True)
    epoch = int(records.read(folder / "metrics.csv")[-1]["epoch"])
    with records.replacing(place / f"{epoch}.png") as partial:
        strip(samples[:ACROSS]).save(partial, format="png")
    epochs = sorted(int(file.stem) for file in place.glob("*.png") if re.fullmatch(r"\d+", file.stem))
    epochs = [e for e in epochs if e <= epoch]
    chosen = sorted({epochs[round(i)] for i in np.linspace(0, len(epochs) - 1, min(ROWS, len(epochs)))})
    tiles = [Tile(Image.open(place / f"{e}.png"), [f"epoch {e}"], WIDE) for e in chosen]
    draw_sheet(tiles, "samples", folder / "samples.png", keep=False)


def draw_filters(filters: np.ndarray, path: Path) -> None:
    """Weights (N, h, w, C), each between its own extremes; grey is 0."""
    scale = np.abs(filters).max(axis=(1, 2, 3), keepdims=True)
    tile = Tile(grid(0.5 + filters / np.maximum(scale, 1e-12) / 2, 16), ["grey is 0"], WIDE)
    draw_sheet([tile], "filters of the first layer", path, keep=False)


def draw_plane(images: np.ndarray, path: Path) -> None:
    """Images (side², H, W, C) that codes of two numbers stand for, over a square of such codes."""
    side = math.isqrt(len(images))
    draw_sheet([Tile(grid(images, side), ["each as likely as any other"], WIDE)], "plane of codes", path, keep=False)


def draw_codes(codes: np.ndarray, labels: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """Codes (N, K) in the plane of their two principal components, coloured by class."""
    centred = codes - codes.mean(0)
    plane = centred if codes.shape[1] == 2 else centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    for label in np.unique(labels):
        name = classes[label] if label < len(classes) else str(label)
        color = f"C{label}" if len(classes) <= 10 else None
        axes.scatter(*plane[labels == label].T, s=12, color=color, label=name if len(classes) <= 20 else None)
    axes.set_title("codes of held-out images, two principal components" if codes.shape[1] > 2 else "codes")
    axes.spines[["top", "right"]].set_visible(False)
    if 1 < len(classes) <= 20:
        axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, path)
