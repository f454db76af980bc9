"""metrics.csv and timing.csv: one row per epoch, each file replaced whole so that none is ever cut short."""

import csv
from collections.abc import Mapping
from pathlib import Path

Row = Mapping[str, float]


def read(path: Path) -> list[Row]:
    """The rows, numbers as they were written; none if the file is not there."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{name: _number(text) for name, text in row.items()} for row in csv.DictReader(file)]


def append(path: Path, row: Row) -> list[Row]:
    """Adds a row, takes away those of this step and later ones, and returns all. Floats are written exactly."""
    rows = [earlier for earlier in read(path) if earlier["step"] < row["step"]] + [row]
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, row.keys())
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(path)
    return rows


def _number(text: str) -> float:
    return float(text) if set(text) & set(".en") else int(text)
