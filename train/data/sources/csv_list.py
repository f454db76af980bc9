"""`list:FILE.csv` for classification: your own images, named in a file with a header and a line for each.

path,label            a part of every class is held out, by --val-fraction and --seed
cats/1.jpg,cat
photos/7.png,dog

path,label,split      or split as you like it, into `train` and `val`; all `test`, it can only be evaluated
cats/1.jpg,cat,train
cats/2.jpg,cat,val

Paths are relative to the file's folder, or absolute. Labels are names or numbers, and sorted as such. Columns may be
divided by commas, semicolons or tabs; the text is UTF-8, UTF-16 with its mark, or else Windows-1252.
"""

import codecs
import csv
import dataclasses
import functools
import io
import os
from collections.abc import Sequence
from pathlib import Path

from jaxzoo.errors import UsageError
from jaxzoo.images import as_text, has_hidden_part
from train.data import Data, stratified_split
from train.data.sources.folder import ImageFiles
from train.data.splits import part_named
from train.reporting.progress import say

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclasses.dataclass(frozen=True)
class Line:
    """The line `number` of a list, its values as they are written by column; `split` is None where no line has one."""

    number: int
    values: dict[str, str]

    @property
    def path(self) -> str:
        return self.values["path"]

    @property
    def label(self) -> str:
        return as_text(self.values.get("label", ""))

    @property
    def split(self) -> str | None:
        return self.values.get("split")


def load(path: str | Path, *, val_fraction: float, seed: int) -> Data:
    """Reads the list, and looks that all its files are there; none is opened before its turn.

    Raises:
      UsageError: no such list, or not of that form; files that are not there or come twice, by the numbers of their
        lines; fewer than two classes; a class that is only held out.
    """
    file = Path(os.path.expanduser(path))
    lines = lines_of(file, ("path", "label"), ("split",), ("path", "label", "split"))
    files = [place_of(file, line) for line in lines]
    _check(file, lines, files)
    classes = sorted_labels({line.label for line in lines})
    if len(classes) < 2:
        raise UsageError(f"{file} needs images of at least two classes; all are of {classes[0]!r}")
    number = {name: index for index, name in enumerate(classes)}
    labelled = [(path, number[line.label]) for path, line in zip(files, lines, strict=True)]

    drawn = lines[0].split is None
    if drawn:
        labels, names = [label for _, label in labelled], [line.path for line in lines]
        train, held_out = (part.tolist() for part in stratified_split(labels, val_fraction, seed, names))
    else:
        ours = [part_named(line.split) == "train" for line in lines]
        train, held_out = ([i for i, of_train in enumerate(ours) if of_train is side] for side in (True, False))
    if not held_out:
        why = "every class has a single image" if drawn else "no line has the split val"
        raise UsageError(f"{file} leaves nothing to hold out: {why}")
    learnt = {lines[i].label for i in train}
    if train and (missing := [name for name in classes if name not in learnt]):
        raise UsageError(f"{file} has classes that are only held out: {', '.join(missing)}")
    return Data(*(ImageFiles([labelled[i] for i in part]) for part in (train, held_out)), classes, drawn=drawn)


def lines_of(file: Path, needed: Sequence[str], optional: Sequence[str], filled: Sequence[str]) -> list[Line]:
    """The lines of a list with a header, without those of hidden files, or for test where there are some for val.

    Args:
      needed, optional: names of its columns.
      filled: those that no line may leave empty.

    Raises:
      UsageError: there is no such list, it has other columns, or a line is not as it should be.
    """
    text = _text(file)
    parsed = functools.partial(_parsed, needed=needed, optional=optional, filled=filled)
    lines = parsed(file, text)
    if not _is_text(text) and not any(place_of(file, line).is_file() for line in lines if not _is_text(line.path)):
        # These bytes are not those of file names, which need not be text.
        try:
            text = text.encode(errors="surrogateescape").decode("cp1252")
        except UnicodeDecodeError:
            raise UsageError(f"{file} is neither UTF-8 nor Windows-1252; save it as CSV in UTF-8") from None
        say(f"{file} is not UTF-8: it is read as Windows-1252")
        lines = parsed(file, text)
    shown = [line for line in lines if not has_hidden_part(line.path.replace("\\", "/"))]
    if len(shown) < len(lines):
        say(f"left out: {len(lines) - len(shown)} lines of {file} that name hidden files")
    parts = [part_named(line.split or "") for line in shown]
    if {"val", "test"} <= set(parts):
        say(f"left out: {parts.count('test')} lines of {file} for test, as those for val are what is held out")
        shown = [line for line, part in zip(shown, parts, strict=True) if part != "test"]
    if not shown:
        raise UsageError(f"{file} lists no images but hidden ones")
    return shown


def _text(file: Path) -> str:
    """The file decoded by its mark, or as UTF-8, in which bytes that are none are kept as lone surrogates."""
    try:
        data = file.read_bytes()
        encoding = next((encoding for mark, encoding in MARKS.items() if data.startswith(mark)), "utf-8")
        text = data.decode(encoding, "strict" if encoding == "utf-16" else "surrogateescape")
    except FileNotFoundError:
        raise UsageError(f"there is no list {file}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read as a list of images: {error}") from None
    if "\0" in text:
        raise UsageError(f"{file} is no text; save the list as CSV in UTF-8")
    return text


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _parsed(file: Path, text: str, needed: Sequence[str], optional: Sequence[str], filled: Sequence[str]) -> list[Line]:
    header = next(iter(text.splitlines()), "")
    try:
        delimiter = next((d for d in DELIMITERS if set(needed) <= set(_columns(header, d))), ",")
        columns = _columns(header, delimiter)
        for name in needed:
            if columns.count(name) != 1:
                found = f"it begins with: {header[:100]}" if columns else "it is empty"
                known = ",".join(needed) + "".join(f"[,{name}]" for name in optional)
                raise UsageError(f"{file} needs a header with the columns {known}; {found}")
        rows = csv.reader(io.StringIO(text, newline=None), delimiter=delimiter)  # whatever ends its lines
        next(rows)
        lines = [
            _line(file, rows.line_num, columns, row, DELIMITERS[delimiter], filled)
            for row in rows
            if any(map(str.strip, row))
        ]
    except csv.Error as error:
        raise UsageError(f"{file} cannot be read as a list of images: {error}") from None
    if not lines:
        raise UsageError(f"{file} lists no images below its header")
    return lines


def _columns(header: str, delimiter: str) -> list[str]:
    return [name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter), [])]


def _line(
    file: Path, number: int, columns: Sequence[str], row: Sequence[str], delimiters: str, filled: Sequence[str]
) -> Line:
    values = dict(zip(columns, map(str.strip, row), strict=False))
    for name in set(filled) & set(columns):
        if not values.get(name):
            raise UsageError(f"{file}, line {number}, has no {name}")
    if len(row) > len(columns):
        raise UsageError(
            f"{file}, line {number}, has {len(row)} columns, but the header {len(columns)}; quote {delimiters}"
        )
    split = values.get("split")
    if split and not part_named(split):
        raise UsageError(f"{file}, line {number}, has the split {split!r}; it is train, val or test")
    return Line(number, values)


def place_of(file: Path, line: Line) -> Path:
    """Where an image lies that a line names; a path written on Windows is understood."""
    place = file.parent / os.path.expanduser(line.path)
    return place if "\\" not in line.path or place.is_file() else file.parent / line.path.replace("\\", "/")


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


def sorted_labels(labels: set[str]) -> list[str]:
    """By number if all are whole numbers, else as names."""
    numbers = all(label.removeprefix("-").isdecimal() for label in labels)
    return sorted(labels, key=lambda label: (int(label) if numbers else 0, label))
