"""metrics.csv and timing.csv: one row per epoch, each file replaced whole so that none is ever cut short."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

Row = Mapping[str, float]


def read(path: Path) -> list[dict[str, float]]:
    """The rows, numbers as they were written; none if the file is not there."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{name: _number(text) for name, text in row.items()} for row in csv.DictReader(file)]


def write(path: Path, rows: Sequence[Row]) -> None:
    """Replaces the file by `rows`, whose floats are written exactly."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(path)


def _number(text: str) -> float:
    return float(text) if set(text) & set(".en") else int(text)
