"""Pictures and tables of segmentation: per_class.csv, confusion_matrix.png, segments.png, batches.

A confusion matrix is (C, C) whole numbers of pixels: rows are the true classes, columns the predicted ones.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from jaxzoo.images import as_text
from jaxzoo.voc import IGNORED, colored, legend, overlay
from train.metrics.mean_iou import per_class
from train.reporting import confusion, records
from train.reporting.contact_sheet import FAINT, FONT, GAP, INK, LINE, Tile, font_of

SIDE = 224  # pixels of a picture's longer side
NAMES = ("image", "truth", "prediction", "prediction on image")
TITLES = {"first": "The first held-out images", "worst": "Those of the lowest IoU"}


class Row(NamedTuple):
    """A held-out image (H, W, 3) uint8 its true and predicted classes (H, W) uint8, and where it is drawn."""

    image: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray
    caption: str
    part: str


def write_tables(matrix: np.ndarray, classes: Sequence[str], folder: Path) -> None:
    """Writes per_class.csv, where what cannot be said is empty, and confusion_matrix.png, in percent."""
    table = [
        {"class": row.name} | {key: "" if value != value else value for key, value in list(row._asdict().items())[1:]}
        for row in per_class(matrix, classes)
    ]
    records.write(folder / "per_class.csv", table)
    confusion.draw_confusion(matrix, classes, folder / "confusion_matrix.png", percent=True)


def tiles(images: np.ndarray, targets: np.ndarray, classes: Sequence[str]) -> list[Tile]:
    """Images (N, H, W, 3) uint8 under the colours of their classes (N, H, W), and the names, the largest first."""
    found = []
    for image, target in zip(images, targets, strict=True):
        counts = np.bincount(target.ravel(), minlength=256)[:IGNORED]
        names = [classes[i] for i in np.argsort(-counts, kind="stable") if counts[i] and i > 0]
        found.append(Tile(Image.fromarray(overlay(image, target)), [", ".join(names) or classes[0]]))
    return found


def draw_rows(rows: Sequence[Row], classes: Sequence[str], path: Path) -> None:
    """Draws image, truth, prediction, and prediction over image beside each other, and a legend of what is seen."""
    width = len(NAMES) * (SIDE + GAP) + GAP
    seen = np.unique(np.concatenate([np.unique(side) for row in rows for side in (row.truth, row.predicted)] or [[]]))
    colors = legend(classes, width, [int(value) for value in seen])
    strips = []
    for i, row in enumerate(rows):
        if i == 0 or row.part != rows[i - 1].part:
            strips.append(_words(width, [TITLES[row.part]], FONT + 2, INK))
            strips.append(_words(width, NAMES, FONT, FAINT))
        strips.append(_strip(row, width))
    sheet = Image.new("RGB", (width, sum(strip.height for strip in strips) + colors.height + GAP), "white")
    y = 0
    for strip in [*strips, colors]:
        sheet.paste(strip, (0, y))
        y += strip.height
    with records.replacing(path) as partial:
        sheet.save(partial, format="png")


def _strip(row: Row, width: int) -> Image.Image:
    covered = Image.fromarray(overlay(row.image, row.predicted))
    pictures = [Image.fromarray(row.image), colored(row.truth), colored(row.predicted), covered]
    pictures = [_fitted(picture) for picture in pictures]
    strip = Image.new("RGB", (width, pictures[0].height + LINE + GAP), "white")
    for i, picture in enumerate(pictures):
        strip.paste(picture, (GAP + i * (SIDE + GAP), 0))
    ImageDraw.Draw(strip).text((GAP, pictures[0].height + 2), as_text(row.caption), FAINT, font_of(FONT))
    return strip


def _fitted(picture: Image.Image) -> Image.Image:
    """With a longer side of `SIDE`; masks keep to their classes' colours."""
    factor = SIDE / max(picture.size)
    size = tuple(max(1, round(side * factor)) for side in picture.size)
    resampling = Image.Resampling.NEAREST if picture.mode == "P" or factor > 1 else Image.Resampling.LANCZOS
    return picture.resize(size, resampling).convert("RGB")


def _words(width: int, texts: Sequence[str], size: int, color: str) -> Image.Image:
    """A line of texts, one above each picture."""
    line = Image.new("RGB", (width, LINE + GAP // 2), "white")
    for i, text in enumerate(texts):
        ImageDraw.Draw(line).text((GAP + i * (SIDE + GAP), 2), text, color, font_of(size))
    return line
