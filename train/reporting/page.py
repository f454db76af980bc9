"""report.html: all that lies in a run's folder, in one file that needs no network and no scripts."""

import base64
import csv
import html
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

import jaxzoo
from jaxzoo.images import as_text
from train.config.options import Config
from train.metrics.confusion import Class, most_confused, per_class
from train.reporting import confusion, records
from train.reporting.contact_sheet import read_sheet
from train.reporting.curves import curves_as_svg, steps_as_svg

CELLS = 25  # more classes than these are shown as a picture rather than a table of counts
# The page may show what it holds and load nothing, whatever a class or a file is called.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write(folder: Path) -> None:
    """Writes report.html from the other files in `folder`; what is not there yet is left out."""
    options = _yaml(folder / "config.yaml")
    title = f"{options.get('model', folder.name)} on {options.get('data', 'its data')}"
    parts = {name: make(folder) for name, make in SECTIONS.items()}
    parts = {name: part for name, part in parts.items() if part}
    links = "".join(f'<a href="#{_id(name)}">{name}</a>' for name in parts)
    sections = "".join(f'<section id="{_id(name)}">{_of("h2", name)}{part}</section>\n' for name, part in parts.items())
    with records.replacing(folder / "report.html") as partial:
        partial.write_text(
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<link rel="icon" href="data:,">{_of("title", title)}\n'
            f"<style>{Path(__file__).with_name('report.css').read_text()}</style></head>\n"
            f"<body><header>{_of('h1', title)}{_summary(folder, options)}</header>\n"
            f"<nav><div>{links}</div></nav>\n<main>{sections}</main>\n"
            f"<footer><p>jaxzoo {_text(jaxzoo.__version__)}, run {_text(folder.resolve().name)}. The numbers are in "
            "metrics.csv, per_class.csv, confusion.csv and mistakes.csv beside this page.</p></footer></body></html>\n",
            encoding="utf-8",
        )


def _summary(folder: Path, options: Mapping[str, Any]) -> str:
    """How far, how good, how fast."""
    rows, timing = records.read(folder / "metrics.csv"), records.read(folder / "timing.csv")
    if not rows:
        return '<p class="quiet">No epoch is finished yet.</p>'
    figures = []
    for column in [name for name in rows[-1] if name.startswith("val_")]:
        averaged = column.replace("val_", "ema_", 1)
        notes = [_best(rows, column)]
        if averaged in rows[-1]:
            note = f"{_number(averaged, rows[-1][averaged])} with averaged weights"
            notes += [", ".join(filter(None, [note, _best(rows, averaged)]))]
        figures.append((_metric(column), _number(column, rows[-1][column]), notes))
    total = options.get("epochs")
    figures.append(
        ("epochs", f"{rows[-1]['epoch']}" + (f" of {total}" if total else ""), [f"{rows[-1]['step']} steps"])
    )
    images, seconds = (sum(row[name] for row in timing) for name in ("images", "seconds"))
    if seconds:
        figures.append(("speed", f"{images / seconds:,.0f} images/s", [f"{_duration(seconds)} in training steps"]))
    cards = "".join(
        f"<div>{_of('dt', label)}<dd>{_text(value)}{''.join(_of('small', note) for note in notes if note)}</dd></div>"
        for label, value, notes in figures
    )
    return f'<dl class="figures">{cards}</dl>'


def _best(rows: Sequence[records.Row], column: str) -> str:
    """`best 97.50% in epoch 4`, unless that is the last epoch."""
    known = [row for row in rows if row[column] == row[column]]  # without those that are not a number
    best = (min if column.endswith("loss") else max)(known, key=lambda row: row[column], default=rows[-1])
    return "" if best[column] == rows[-1][column] else f"best {_number(column, best[column])} in epoch {best['epoch']}"


def _curves(folder: Path) -> str:
    rows, steps = records.read(folder / "metrics.csv"), records.lines(folder / "steps.jsonl")
    parts = [f'<div class="charts">{"".join(curves_as_svg(rows))}</div>'] if rows else []
    if charts := steps_as_svg(steps):
        parts.append(f'<h3>By step</h3><div class="charts">{"".join(charts)}</div>')
    if rows:
        cells = [[_number(name, value) for name, value in row.items()] for row in rows]
        table = _table([_metric(name) for name in rows[0]], cells)
        parts.append(f'<details><summary>Every epoch</summary><div class="tall">{table}</div></details>')
    return "".join(parts)


def _confusion(folder: Path) -> str:
    found = confusion.read(folder)
    if not found:
        return ""
    matrix, classes = found
    if len(classes) <= CELLS:
        long = ' class="long"' if max(map(len, classes)) > 2 else ""
        head = "".join(f"<th{long}><span>{_text(name)}</span></th>" for name in classes)
        body = "".join(
            f"<tr><th><span>{_text(name)}</span></th>{''.join(map(_cell, row, row / max(row.sum(), 1)))}</tr>"
            for name, row in zip(classes, matrix, strict=True)
        )
        shown = f'<table class="confusion"><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>'
        note = '<p class="quiet">Rows are the true classes, columns the predicted ones.</p>'
    else:
        path = folder / "confusion_matrix.png"
        shown, note = (_image(path.read_bytes(), "png", "confusion matrix") if path.exists() else ""), ""
    pairs = [[f"{true} → {predicted}", f"{count}"] for true, predicted, count in most_confused(*found)]
    errors = f"<div><h3>Most frequent errors</h3>{_table(['true → predicted', 'images'], pairs)}</div>" if pairs else ""
    right = _of("p", f"{matrix.trace():,} of {matrix.sum():,} held-out images are right.")
    columns = "beside" if len(classes) <= CELLS else "beside pictured"
    return f'{right}<div class="{columns}"><div><div class="scroll">{shown}</div>{note}</div>{errors}</div>'


def _cell(count: int, part: float) -> str:
    return f'<td style="--part:{0.6 * part:.3f}">{count}</td>' if count else '<td class="zero"></td>'


def _classes(folder: Path) -> str:
    found = confusion.read(folder)
    if not found:
        return ""
    rows = per_class(*found)
    averages = [f"{sum(row[i] for row in rows) / len(rows):.1%}" for i in (2, 3, 4)]
    foot = f"<tfoot><tr>{''.join(_of('td', cell) for cell in ['average', sum(r.images for r in rows), *averages])}</tr>"
    whole = f'<div class="tall">{_class_table(rows, foot + "</tfoot>")}</div>'
    if len(rows) <= CELLS:
        return whole
    worst = sorted(rows, key=lambda row: row.f1)[:20]
    return (
        f'<h3>The lowest F1</h3><div class="scroll">{_class_table(worst)}</div>'
        f"<details><summary>All {len(rows)} classes</summary>{whole}</details>"
    )


def _class_table(rows: Sequence[Class], foot: str = "") -> str:
    head = "".join(_of("th", name) for name in ("class", "images", "precision", "recall", "F1"))
    body = "".join(
        f"<tr>{_of('td', row.name)}{_of('td', row.images)}"
        + "".join(f'<td class="part" style="--part:{part:.1%}">{part:.1%}</td>' for part in row[2:])
        + "</tr>"
        for row in rows
    )
    return f'<table class="classes"><thead><tr>{head}</tr></thead><tbody>{body}</tbody>{foot}</table>'


def _sheet(name: str) -> Callable[[Path], str]:
    def tiles(folder: Path) -> str:
        figures = []
        for picture, caption in read_sheet(folder / name):
            lines = "".join(_of("span", line) for line in caption)
            figures.append(f"<figure>{_image(_jpeg(picture), 'jpeg')}<figcaption>{lines}</figcaption></figure>")
        return f'<div class="tiles">{"".join(figures)}</div>' if figures else ""

    return tiles


def _options(folder: Path) -> str:
    """What differs from the defaults first; mappings in config.yaml (versions, machine) as tables of their own."""
    values = _yaml(folder / "config.yaml")
    told = {name: value for name, value in values.items() if isinstance(value, dict)}
    options = {name: _shown(value) for name, value in values.items() if name not in told}
    usual = {name: _shown(value) for name, value in vars(Config()).items()}
    given = {name: value for name, value in options.items() if usual.get(name) != value}
    parts = [_pairs("Options given or chosen", given, str)] if given else []
    if options:
        everything = _pairs("", options, str, marked=given)
        parts.append(f"<details><summary>All {len(options)} options</summary>{everything}</details>")
    parts = [f"<div>{''.join(parts)}</div>"] if parts else []
    parts += [f"<div>{_pairs(name.capitalize(), value, _shown)}</div>" for name, value in told.items()]
    return f'<div class="beside">{"".join(parts)}</div>' if parts else ""


def _pairs(
    title: str, pairs: Mapping[str, Any], shown: Callable[[Any], str], marked: Mapping[str, Any] | None = None
) -> str:
    rows = "".join(
        f"<tr{' class=given' if marked and name in marked else ''}>{_of('td', name.replace('_', ' '))}"
        f"{_of('td', shown(value))}</tr>"
        for name, value in pairs.items()
    )
    return f'{_of("h3", title) if title else ""}<table class="words"><tbody>{rows}</tbody></table>'


def _picture(name: str, alt: str) -> Callable[[Path], str]:
    """A section that is a picture as it is, where there is one."""

    def picture(folder: Path) -> str:
        path = folder / name
        return f'<div class="scroll">{_image(path.read_bytes(), "png", alt)}</div>' if path.exists() else ""

    return picture


def _pixels(folder: Path) -> str:
    """Classes of pixels: per_class.csv with its intersections over unions, beside what was taken for what."""
    path = folder / "per_class.csv"
    if not path.exists():
        return ""
    with path.open(newline="", **records.TEXT) as file:
        rows = list(csv.reader(file))
    if "iou" not in rows[0]:
        return ""
    head = "".join(_of("th", name) for name in ("class", "pixels", "IoU", "accuracy", "precision"))
    body = "".join(f"<tr>{_of('td', name)}{_of('td', count)}{''.join(map(_part, parts))}</tr>"
                   for name, count, *parts in rows[1:])  # fmt: skip
    table = f'<table class="classes"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    matrix = _picture("confusion_matrix.png", "confusion matrix, in percent of the true classes")(folder)
    return f'<div class="beside pictured"><div class="tall">{table}</div>{matrix}</div>'


def _part(text: str) -> str:
    """A cell for a part as it stands in a CSV file, where an empty one means that there is none."""
    return f'<td class="part" style="--part:{float(text):.1%}">{float(text):.1%}</td>' if text else _of("td", "–")


SECTIONS: dict[str, Callable[[Path], str]] = {
    "Curves": _curves,
    "Segments": _picture("segments.png", "held-out images, their true and predicted classes"),
    "Confusion": _confusion,
    "Classes": lambda folder: _classes(folder) or _pixels(folder),
    "Mistakes": _sheet("mistakes.png"),
    "Training batch": _sheet("train_batch.png"),
    "Validation batch": _sheet("val_batch.png"),
    "Options": _options,
}


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cell: str, values: Sequence[str]) -> str:
        return f"<tr>{''.join(_of(cell, value) for value in values)}</tr>"

    return f"<table><thead>{line('th', head)}</thead><tbody>{''.join(line('td', row) for row in rows)}</tbody></table>"


def _image(data: bytes, kind: str, alt: str = "") -> str:
    return f'<img src="data:image/{kind};base64,{base64.b64encode(data).decode()}" alt="{_text(alt)}">'


def _jpeg(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.convert("RGB").save(data, "jpeg", quality=88)
    return data.getvalue()


def _yaml(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text()) or {} if path.exists() else {}


def _number(column: str, value: float) -> str:
    """A number of metrics.csv for reading: losses plain, the rate short, all other parts in percent."""
    if isinstance(value, int):
        return f"{value}"
    if column == "lr" or not -1 <= value <= 1:
        return f"{value:.3g}"
    return f"{value:.4f}" if column.endswith("loss") else f"{value:.2%}"


def _metric(column: str) -> str:
    """`val_top5` as `held-out top 5`"""
    side, _, metric = column.partition("_")
    sides = {"train": "training", "val": "held-out", "ema": "averaged"}
    words = [sides[side], metric] if side in sides else [column.replace("_", " ")]
    return " ".join({"lr": "rate", "top5": "top 5"}.get(word, word) for word in words)


def _duration(seconds: float) -> str:
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    return f"{seconds:.0f} s" if seconds < 120 else f"{minutes} min" if minutes < 180 else f"{hours} h"


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "–"
    return {None: "–", True: "yes", False: "no"}[value] if value is None or isinstance(value, bool) else str(value)


def _of(tag: str, content: Any) -> str:
    return f"<{tag}>{_text(content)}</{tag}>"


def _text(content: Any) -> str:
    return html.escape(as_text(str(content)))


def _id(name: str) -> str:
    return name.lower().replace(" ", "-")
