"""What a run writes down: metrics.csv and timing.csv, a row per epoch, and steps.jsonl, a line now and then.

CSV files are replaced whole, so that none is ever cut short. Lines are added at the end; one that a killed process left
half written is taken away before the next is added.
"""

import contextlib
import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, float]
TEXT = {"encoding": "utf-8", "errors": "surrogateescape"}  # names of files need not be text


def read(path: Path) -> list[Row]:
    """The rows, numbers as they were written; none if the file is not there."""
    if not path.exists():
        return []
    with path.open(newline="", **TEXT) as file:
        return [{name: _number(text) for name, text in row.items()} for row in csv.DictReader(file)]


def append(path: Path, row: Row) -> list[Row]:
    """Adds a row, takes away those of this step and later ones, and returns all. Floats are written exactly."""
    rows = [earlier for earlier in read(path) if earlier["step"] < row["step"]] + [row]
    write(path, rows)
    return rows


def write(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Writes a CSV file of these rows, which all have the columns of the first unless `columns` names them."""
    with replacing(path) as partial, partial.open("w", newline="", **TEXT) as file:
        writer = csv.DictWriter(file, columns or rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def line(path: Path, row: Mapping[str, Any]) -> None:
    """Adds `row` as a line of JSON, and takes away lines of its `step` and later ones.

    A number that is not finite becomes null, since JSON has none.
    """
    _cut(path, row["step"])
    with path.open("a") as file:
        file.write(json.dumps({name: _plain(value) for name, value in row.items()}, allow_nan=False) + "\n")


def cut_back(path: Path, step: int) -> None:
    """Takes away the lines after `step`, which a run that continues from there will write anew."""
    _cut(path, step + 1)


def lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file that `line` wrote, without any that is damaged; none if the file is not there."""
    return [row for _, row in _complete(path)]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write to; what is written there takes the place of `path` at the end, at once or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _cut(path: Path, step: int) -> None:
    """Leaves the complete lines before `step`. Looks at the last line only, where nothing is to be done."""
    if not path.exists() or _ends_before(path, step):
        return
    kept = [text for text, row in _complete(path) if row["step"] < step]
    with replacing(path) as partial:
        partial.write_text("".join(text + "\n" for text in kept))


def _ends_before(path: Path, step: int, most: int = 1 << 16) -> bool:
    """Whether the file is empty, or its last line is complete and of a step before `step`."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - most))
        end = file.read()
    if not end.endswith(b"\n"):
        return not end
    row = _row(end.splitlines()[-1].decode(errors="replace"))  # None if it is longer than what was read
    return row is not None and row["step"] < step


def _complete(path: Path) -> list[tuple[str, dict[str, Any]]]:
    texts = path.read_text(errors="replace").split("\n")[:-1] if path.exists() else []
    return [(text, row) for text in texts if (row := _row(text))]


def _row(text: str) -> dict[str, Any] | None:
    try:
        row = json.loads(text)
    except ValueError:
        return None
    return row if isinstance(row, dict) and "step" in row else None


def _plain(value: Any) -> Any:
    """NumPy's and JAX's scalars as Python's."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(text: str) -> float:
    return float(text) if set(text) & set(".en") else int(text)
