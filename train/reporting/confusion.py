"""What evaluation confused: confusion.csv, confusion_matrix.png, and per_class.csv with precision, recall and F1.

A confusion matrix is (C, C) whole numbers: rows are the true classes, columns the predicted ones.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from train.metrics.confusion import per_class
from train.reporting import records
from train.reporting.figure import save


def write(matrix: np.ndarray, classes: Sequence[str], folder: Path) -> None:
    """Writes confusion.csv, per_class.csv and confusion_matrix.png."""
    write_matrix(matrix, classes, folder)
    table = [row._asdict() for row in per_class(matrix, classes)]
    records.write(folder / "per_class.csv", [{"class": row.pop("name"), **row} for row in table])
    draw_confusion(matrix, classes, folder / "confusion_matrix.png")


def write_matrix(matrix: np.ndarray, classes: Sequence[str], folder: Path) -> None:
    """Writes confusion.csv."""
    with records.replacing(folder / "confusion.csv") as partial, partial.open("w", newline="", **records.TEXT) as file:
        rows = csv.writer(file)
        rows.writerow(["true \\ predicted", *classes])
        rows.writerows([name, *row] for name, row in zip(classes, matrix.tolist(), strict=True))


def read(folder: Path) -> tuple[np.ndarray, list[str]] | None:
    """The matrix and the classes of confusion.csv; None if it is not there."""
    path = folder / "confusion.csv"
    if not path.exists():
        return None
    with path.open(newline="", **records.TEXT) as file:
        (_, *classes), *rows = csv.reader(file)
    return np.array([row[1:] for row in rows], np.int64), classes


def draw_confusion(
    matrix: np.ndarray, classes: Sequence[str], path: Path, *, percent: bool = False, title: str | None = None
) -> None:
    """A cell's shade is its part of the row, its number the count. Of many classes rare errors get more shade.

    With `percent` the number is the part, where counts would be too long. Unless there is a title it says how many of
    all are right.
    """
    n, longest = len(classes), max(map(len, classes))
    inches = float(np.clip(1.8 + 0.42 * n, 4, 14))
    words = 0.09 * min(longest, 24) if longest >= 3 and n <= 40 else 0  # room for the names of the classes
    figure = Figure(figsize=(1.14 * inches + words, inches + words), layout="constrained")
    axes = figure.subplots()
    parts = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    shown = axes.imshow(parts, cmap="Blues", norm=PowerNorm(1 if n <= 25 else 0.4, vmin=0, vmax=1))
    figure.colorbar(shown, ax=axes, label="part of the true class", fraction=0.04)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    right, total = np.trace(matrix), matrix.sum()
    said = f"{right / max(total, 1):.1%} right" if percent else f"{right} of {total} right"
    axes.set_title(title or said, fontsize=11 if title else None)
    if n <= 40:
        names = [name if len(name) <= 24 else f"{name[:23]}…" for name in classes]
        axes.set_xticks(range(n), names, rotation=0 if longest < 3 else 90, parse_math=False)
        axes.set_yticks(range(n), names, parse_math=False)
    if n <= 25:
        for row, column in np.argwhere(matrix):
            color = "white" if parts[row, column] > 0.5 else "black"
            number = f"{100 * parts[row, column]:.0f}" if percent else matrix[row, column]
            axes.text(column, row, number, ha="center", va="center", color=color, fontsize=8)
    save(figure, path)
