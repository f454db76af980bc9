"""report.html: all that lies in a run's folder, in one file that needs no network and no scripts.

report.html.jinja, beside this file, says how it looks; here is what there is to show.
"""

import base64
import csv
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

import jaxzoo
from jaxzoo.images import as_text
from train.config.options import Config
from train.metrics import LOSS, Quantity
from train.metrics.confusion import most_confused
from train.metrics.detection_errors import KINDS
from train.reporting import confusion, records
from train.reporting.contact_sheet import read_tiles
from train.reporting.curves import TITLES, curves_as_svg, steps_as_svg

Quantities = Mapping[str, Quantity]

CELLS = 25  # more classes than these are shown as a picture rather than a table of counts
# Of the columns of per_class_ap.csv
OBJECT_PARTS = {
    **{"ap": "AP", "ap_50": "AP, IoU 0.5", "segm_ap": "masks' AP", "keypoints_ap": "keypoints' AP"},
    **{"precision": "precision", "recall": "recall", "f1": "F1"},
}


def write(
    folder: Path, quantities: Mapping[str, Quantity] | None = None, headline: Collection[str] | None = None
) -> None:
    """Writes report.html from the other files in `folder`; what is not there yet is left out.

    `quantities` say how the metrics are read, and `headline` names those that are shown large and drawn, see
    `train.tasks.Task`; losses need no quantity.
    """
    quantities = {"loss": LOSS} | dict(quantities or {})
    options = _yaml(folder / "config.yaml")
    shown = [("Curves", "curves", _curves(folder, quantities, headline))]
    shown += [(name, kind, find(folder)) for name, (kind, find) in SECTIONS.items()]
    others = [path for path in sorted(folder.glob("*.png")) if path.name not in DRAWN]
    shown += [
        (as_text(path.stem).replace("_", " ").capitalize(), "picture", _picture(folder, path.name)) for path in others
    ]
    shown += [("Options", "options", _options(folder))]
    page = _template().render(
        title=f"{options.get('model', folder.name)} on {options.get('data', 'its data')}",
        style=Markup(Path(__file__).with_name("report.css").read_text()),
        figures=_figures(folder, options, quantities, headline),
        sections=[(name, kind, found) for name, kind, found in shown if found],
        version=jaxzoo.__version__,
        run=folder.resolve().name,
    )
    with records.replacing(folder / "report.html") as partial:
        partial.write_text(page, encoding="utf-8")


@functools.cache
def _template() -> jinja2.Template:
    def text(value: Any) -> Any:
        return value if isinstance(value, Markup) else as_text(str(value))  # names of files need not be text

    templates = jinja2.PackageLoader("train", "reporting")
    settings = {"autoescape": True, "trim_blocks": True, "lstrip_blocks": True, "undefined": jinja2.StrictUndefined}
    return jinja2.Environment(loader=templates, finalize=text, **settings).get_template("report.html.jinja")


def _figures(
    folder: Path, options: Mapping[str, Any], quantities: Quantities, headline: Collection[str] | None
) -> list[tuple[str, str, list[str]]]:
    """How far, how good, how fast: a label, a number and notes below it each. Empty before the first epoch's end."""
    rows, timing = records.read(folder / "metrics.csv"), records.read(folder / "timing.csv")
    if not rows:
        return []
    figures = []
    columns = [name for name in rows[-1] if name.startswith("val_")]
    for column in [name for name in columns if headline is None or name.removeprefix("val_") in headline]:
        averaged = column.replace("val_", "ema_", 1)
        notes = [_best(rows, column, quantities)]
        if averaged in rows[-1]:
            note = f"{_number(averaged, rows[-1][averaged], quantities)} with averaged weights"
            notes += [", ".join(filter(None, [note, _best(rows, averaged, quantities)]))]
        figures.append((_metric(column), _number(column, rows[-1][column], quantities), list(filter(None, notes))))
    total = f" of {options['epochs']}" if options.get("epochs") else ""
    figures.append(("epochs", f"{rows[-1]['epoch']}{total}", [f"{rows[-1]['step']} steps"]))
    images, seconds = (sum(row[name] for row in timing) for name in ("images", "seconds"))
    if seconds:
        figures.append(("speed", f"{images / seconds:,.0f} images/s", [f"{_duration(seconds)} in training steps"]))
    return figures


def _best(rows: Sequence[records.Row], column: str, quantities: Quantities) -> str:
    """`best 97.50% in epoch 4`, unless that is the last epoch."""
    known = [row for row in rows if row[column] == row[column]]  # without those that are not a number
    lower = _quantity(column, quantities).better == "lower"
    best = (min if lower else max)(known, key=lambda row: row[column], default=rows[-1])
    if best[column] == rows[-1][column]:
        return ""
    return f"best {_number(column, best[column], quantities)} in epoch {best['epoch']}"


def _curves(folder: Path, quantities: Quantities, headline: Collection[str] | None) -> dict[str, Any] | None:
    rows, steps = records.read(folder / "metrics.csv"), records.lines(folder / "steps.jsonl")
    found = {
        "epochs": list(map(Markup, curves_as_svg(rows, headline))) if rows else [],
        "steps": list(map(Markup, steps_as_svg(steps))),
        "columns": [_metric(name) for name in rows[0]] if rows else [],
        "rows": [[_number(name, value, quantities) for name, value in row.items()] for row in rows],
    }
    return found if found["epochs"] or found["steps"] else None


def _confusion(folder: Path) -> dict[str, Any] | None:
    if not (found := confusion.read(folder)):
        return None
    matrix, classes = found
    small = len(classes) <= CELLS
    parts = matrix / matrix.sum(1, keepdims=True).clip(1)
    objects = (folder / "errors_by_class.csv").exists()  # then the first class is the background
    return {
        "classes": classes,
        "cells": [list(zip(*row, strict=True)) for row in zip(matrix.tolist(), parts.tolist(), strict=True)],
        "picture": None if small else _picture(folder, "confusion_matrix.png"),
        "right": f"{matrix.trace():,} of {matrix[objects:].sum():,} {'objects' if objects else 'validation images'}",
        "objects": objects,
        "errors": most_confused(*found),
    }


def _classes(folder: Path) -> dict[str, Any] | None:
    """per_class.csv: of images, with averages; or of pixels, beside what was taken for what. per_class_ap.csv: of
    objects, with averages."""
    path = next((path for name in ("per_class.csv", "per_class_ap.csv") if (path := folder / name).exists()), None)
    if not path:
        return None
    with path.open(newline="", **records.TEXT) as file:
        (_, *columns), *rows = csv.reader(file)
    if path.name == "per_class_ap.csv":
        chosen = [i for i, name in enumerate(columns) if name in ("objects", *OBJECT_PARTS)]
        columns = [columns[i] for i in chosen]
        rows = [(name, *(parts[i] for i in chosen)) for name, *parts in rows]
    rows = [(name, int(count), [float(part) if part else None for part in parts]) for name, count, *parts in rows]
    named = [{"iou": "IoU", "f1": "F1", **OBJECT_PARTS}.get(name, name) for name in columns]
    found = {"columns": named, "rows": rows, "picture": None, "worst": [], "average": None}
    if "iou" in columns:
        return found | {"picture": _picture(folder, "confusion_matrix.png")}
    known = [
        [part for part in values if part is not None] for values in zip(*(parts for *_, parts in rows), strict=True)
    ]
    averages = [sum(values) / len(values) if values else None for values in known]
    worst = sorted(rows, key=lambda row: 2 if row[2][-1] is None else row[2][-1])[:20] if len(rows) > CELLS else []
    return found | {"average": ("average", sum(count for _, count, _ in rows), averages), "worst": worst}


def _precision(folder: Path) -> dict[str, Any] | None:
    """average_precision.csv and the curves beside it."""
    if not (table := _table(folder / "average_precision.csv")):
        return None
    rows = [[row.pop("measure"), *(f"{float(part):.3f}" if part else "–" for part in row.values())] for row in table]
    return {"columns": ["", *table[0]], "rows": rows, "picture": _picture(folder, "precision_recall.png")}


def _errors(folder: Path) -> dict[str, Any] | None:
    """errors_by_class.csv in all, with the meaning of each error, and the images that have the most."""
    if not (table := _table(folder / "errors_by_class.csv")):
        return None
    chosen = [float(row["confidence"]) for row in _table(folder / "confidence.csv") if row["chosen"] == "1"]
    counts = [(kind, sum(int(row[kind]) for row in table), meaning) for kind, meaning in KINDS.items()]
    return {"counts": counts, "confidence": f"{chosen[0]:.2f}", "tiles": read_tiles(folder / "errors.png")}


def _table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file; none if it is not there."""
    if not path.exists():
        return []
    with path.open(newline="", **records.TEXT) as file:
        return [*csv.DictReader(file)]


def _options(folder: Path) -> dict[str, Any] | None:
    """Options that differ from the defaults, and all; mappings in config.yaml (versions, machine) by themselves."""
    values = _yaml(folder / "config.yaml")
    told = {
        name: {key: _shown(part) for key, part in value.items()}
        for name, value in values.items()
        if isinstance(value, dict)
    }
    options = {name: _shown(value) for name, value in values.items() if name not in told}
    usual = {name: _shown(value) for name, value in vars(Config()).items()}
    given = {name: value for name, value in options.items() if usual.get(name) != value}
    return {"given": given, "options": options, "told": told} if values else None


def _picture(folder: Path, name: str) -> str | None:
    """A PNG file in base64."""
    path = folder / name
    return base64.b64encode(path.read_bytes()).decode() if path.exists() else None


# Title, how the template draws it, and what there is to draw in a folder; nothing if that is empty.
SECTIONS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "Segments": ("picture", lambda folder: _picture(folder, "segments.png")),
    "Average precision": ("precision", _precision),
    "Confidence": ("picture", lambda folder: _picture(folder, "confidence.png")),
    "Errors": ("errors", _errors),
    "Confusion": ("confusion", _confusion),
    "Classes": ("classes", _classes),
    "Mistakes": ("tiles", lambda folder: read_tiles(folder / "mistakes.png")),
    "Training batch": ("tiles", lambda folder: read_tiles(folder / "train_batch.png")),
    "Validation batch": ("tiles", lambda folder: read_tiles(folder / "val_batch.png")),
}
# Pictures that these sections, and that of the curves, show; others, a task's own, get a section each.
DRAWN = {
    f"{name}.png"
    for name in (
        *("segments", "confusion_matrix", "mistakes", "train_batch", "val_batch", "curves"),
        *("precision_recall", "errors", "confidence"),
    )
}


def _yaml(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text()) or {} if path.exists() else {}


def _quantity(column: str, quantities: Quantities) -> Quantity:
    """How a column of metrics.csv is read: `val_loss` as the loss is."""
    return quantities.get(column.partition("_")[2], Quantity())


def _number(column: str, value: float, quantities: Quantities) -> str:
    """A number of metrics.csv for reading, the rate short."""
    quantity = _quantity(column, quantities)
    if isinstance(value, int):
        return f"{value}"
    if column == "lr" or (quantity.unit in ("", "%") and not -1 <= value <= 1):
        return f"{value:.3g}"
    return quantity.write(value)


def _metric(column: str) -> str:
    """`val_top5` as `validation top 5`"""
    side, _, metric = column.partition("_")
    sides = {"train": "training", "val": "validation", "ema": "averaged"}
    words = [sides[side], metric] if side in sides else [column.replace("_", " ")]
    return " ".join({**TITLES, "lr": "rate"}.get(word, word) for word in words)


def _duration(seconds: float) -> str:
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    return f"{seconds:.0f} s" if seconds < 120 else f"{minutes} min" if minutes < 180 else f"{hours} h"


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "–"
    return {None: "–", True: "yes", False: "no"}[value] if value is None or isinstance(value, bool) else str(value)
