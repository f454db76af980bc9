"""`list:FILE.csv`: your own images, named in a file with a header and a line for each.

path,label            a part of every class is held out, by --val-fraction and --seed
cats/1.jpg,cat
photos/7.png,dog

path,label,split      or split as you like it, into `train` and `val`; all `test`, it can only be evaluated
cats/1.jpg,cat,train
cats/2.jpg,cat,val

Paths are relative to the file's folder, or absolute. Labels are names or numbers, and sorted as such.
"""

import csv
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from jaxzoo.errors import UsageError
from train.data import HELD_OUT, TRAINING, Data, stratified_split
from train.data.folder import ImageFiles


@dataclasses.dataclass(frozen=True)
class Line:
    number: int
    path: str  # as it is written
    label: str
    split: str | None


def load(path: str | Path, *, val_fraction: float, seed: int) -> Data:
    """Reads the list, and looks that all its files are there; none is opened before its turn.

    Raises:
      UsageError: no such list, or not of that form; files that are not there or come twice, by the numbers of their
        lines; fewer than two classes; a class that is only held out.
    """
    file = Path(path).expanduser()
    lines = _lines(file)
    files = [file.parent / Path(line.path).expanduser() for line in lines]
    _check(file, lines, files)
    classes = _sorted({line.label for line in lines})
    if len(classes) < 2:
        raise UsageError(f"{file} needs images of at least two classes; all are of {classes[0]!r}")
    number = {name: index for index, name in enumerate(classes)}
    labelled = [(path, number[line.label]) for path, line in zip(files, lines, strict=True)]

    drawn = lines[0].split is None
    if drawn:
        labels, names = [label for _, label in labelled], [line.path for line in lines]
        train, held_out = (part.tolist() for part in stratified_split(labels, val_fraction, seed, names))
    else:
        found = {line.split for line in lines}
        sides = (next((name for name in names if name in found), None) for names in (TRAINING, HELD_OUT))
        train, held_out = ([i for i, line in enumerate(lines) if line.split == side] for side in sides)
    if not held_out:
        why = "every class has a single image" if drawn else "no line has the split val"
        raise UsageError(f"{file} leaves nothing to hold out: {why}")
    learnt = {lines[i].label for i in train}
    if train and (missing := [name for name in classes if name not in learnt]):
        raise UsageError(f"{file} has classes that are only held out: {', '.join(missing)}")
    return Data(*(ImageFiles([labelled[i] for i in part]) for part in (train, held_out)), classes, drawn=drawn)


def _lines(file: Path) -> list[Line]:
    try:
        # utf-8-sig, since spreadsheets put a mark before the first letter
        with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as opened:
            rows = csv.reader(opened)
            columns = [name.strip().lower() for name in next(rows, [])]
            for name in ("path", "label"):
                if columns.count(name) != 1:
                    found = f"it begins with: {','.join(columns)}" if columns else "it is empty"
                    raise UsageError(f"{file} needs a header with the columns path,label[,split]; {found}")
            lines = [_line(file, rows.line_num, columns, row) for row in rows if any(map(str.strip, row))]
    except FileNotFoundError:
        raise UsageError(f"there is no list {file}") from None
    except (OSError, csv.Error) as error:
        raise UsageError(f"{file} cannot be read as a list of images: {error}") from None
    if not lines:
        raise UsageError(f"{file} lists no images below its header")
    return lines


def _line(file: Path, number: int, columns: Sequence[str], row: Sequence[str]) -> Line:
    values = dict(zip(columns, map(str.strip, row), strict=False))
    for name in {"path", "label", "split"} & set(columns):
        if not values.get(name):
            raise UsageError(f"{file}, line {number}, has no {name}")
    if len(row) > len(columns):
        raise UsageError(f"{file}, line {number}, has {len(row)} columns, but the header {len(columns)}; quote commas")
    split = values["split"].lower() if "split" in values else None
    if split not in (None, *TRAINING, *HELD_OUT):
        raise UsageError(f"{file}, line {number}, has the split {values['split']!r}; it is train, val or test")
    return Line(number, values["path"], values["label"], split)


def _check(file: Path, lines: Sequence[Line], files: Sequence[Path]) -> None:
    """Refuses files that are not there, and files that come twice, since both sides of a split might have them."""
    missing = [line for line, path in zip(lines, files, strict=True) if not path.is_file()]
    if missing:
        named = ", ".join(f"{line.path} (line {line.number})" for line in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UsageError(f"{file} lists images that are not there, seen from {file.parent.absolute()}: {named}{more}")
    first: dict[str, int] = {}
    for line, path in zip(lines, files, strict=True):
        before = first.setdefault(os.path.normpath(path), line.number)
        if before != line.number:
            raise UsageError(f"{file}, line {line.number}, lists {line.path} again, after line {before}; remove one")


def _sorted(labels: set[str]) -> list[str]:
    """By number if all are whole numbers, else as names."""
    numbers = all(label.removeprefix("-").isdecimal() for label in labels)
    return sorted(labels, key=lambda label: (int(label) if numbers else 0, label))
