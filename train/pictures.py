"""The PNG files of a run, drawn by matplotlib without a display."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

BLUE, GRAY = "#2563eb", "#6b7280"


def draw_curves(rows: Sequence[Mapping[str, float]], title: str, path: Path) -> None:
    """Each metric of metrics.csv over the epochs, training beside held-out, and the learning rate."""
    metrics = [name.removeprefix("val_") for name in rows[0] if name.startswith("val_")]
    figure = Figure(figsize=(4.2 * (len(metrics) + 1), 3.4), layout="constrained")
    figure.suptitle(title)
    epochs = [row["epoch"] for row in rows]
    for axes, metric in zip(figure.subplots(1, len(metrics) + 1), [*metrics, "lr"], strict=True):
        lines = (
            [("lr", GRAY, "")]
            if metric == "lr"
            else [(f"train_{metric}", GRAY, "training"), (f"val_{metric}", BLUE, "held out")]
        )
        for key, color, label in lines:
            axes.plot(
                epochs, [row[key] for row in rows], color=color, label=label, marker="." if len(rows) < 40 else None
            )
        axes.set_title({"lr": "learning rate"}.get(metric, metric))
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if metric != "lr":
            axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def draw_confusion(matrix: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """Rows are the true classes, columns the predicted; a cell's shade is its part of the row, its number the count."""
    n = len(classes)
    inches = float(np.clip(1.8 + 0.42 * n, 4, 14))
    figure = Figure(figsize=(inches + 0.6, inches), layout="constrained")
    axes = figure.subplots()
    parts = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    shown = axes.imshow(parts, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(shown, ax=axes, label="part of the true class", shrink=0.8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(f"{np.trace(matrix)} of {matrix.sum()} right")
    if n <= 40:
        axes.set_xticks(range(n), classes, rotation=0 if max(map(len, classes)) < 3 else 90)
        axes.set_yticks(range(n), classes)
    if n <= 25:
        for row, column in np.argwhere(matrix):
            color = "white" if parts[row, column] > 0.5 else "black"
            axes.text(column, row, matrix[row, column], ha="center", va="center", color=color, fontsize=8)
    figure.savefig(path, dpi=120)
