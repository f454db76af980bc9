"""Other names of the same tensors: one table for every family of networks that another project names its own way.

A row pairs two templates, the reference's name (ours) and the other project's (theirs). `{i}` stands for a whole
number, `{2i+1}` for one reckoned from it, `*` for the rest of the name. The first row that fits a name counts, in both
directions. A table goes by names alone and knows no model.
"""

import collections
import dataclasses
import functools
import importlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import NamedTuple

import numpy as np

from jaxzoo.registry import card

Tensors = Mapping[str, np.ndarray]
_PIECES = re.compile(r"(\{\d*[a-z](?:[+-]\d+)?\}|\*)")
_FIELD = re.compile(r"\{(\d*)([a-z])([+-]\d+)?\}")


class Template:
    """A pattern of names that can be filled as well as matched."""

    def __init__(self, text: str):
        self._pieces = _PIECES.split(text)  # text and fields in turn
        text_or_group = [
            re.escape(piece) if i % 2 == 0 else "(.*)" if piece == "*" else r"(\d+)"
            for i, piece in enumerate(self._pieces)
        ]
        self.pattern = "".join(text_or_group)
        self._compiled = re.compile(self.pattern)

    def match(self, name: str) -> dict[str, int | str] | None:
        """The values of the fields in a name, None where it does not fit."""
        found = self._compiled.fullmatch(name)
        values: dict[str, int | str] = {}
        for piece, text in zip(self._pieces[1::2], found.groups() if found else (), strict=bool(found)):
            if piece == "*":
                values["*"] = text
                continue
            factor, letter, offset = _FIELD.fullmatch(piece).groups()
            value, rest = divmod(int(text) - int(offset or 0), int(factor or 1))
            if rest or value < 0 or values.setdefault(letter, value) != value:
                return None
        return values if found else None

    def fill(self, values: Mapping[str, int | str]) -> str:
        """The name with these values in its fields."""

        def number(field: re.Match) -> str:
            return str(int(field[1] or 1) * values[field[2]] + int(field[3] or 0))

        return "".join(values["*"] if piece == "*" else _FIELD.sub(number, piece) for piece in self._pieces)


_template = functools.cache(Template)


@dataclasses.dataclass(frozen=True)
class Row:
    """One tensor of ours, and the one or several of theirs that hold its numbers."""

    ours: str
    theirs: str | tuple[str, ...]
    to_ours: Callable[..., np.ndarray] = lambda a: a
    to_theirs: Callable[[np.ndarray], np.ndarray | tuple[np.ndarray, ...]] = lambda a: a

    @property
    def parts(self) -> tuple[str, ...]:
        return (self.theirs,) if isinstance(self.theirs, str) else self.theirs


@dataclasses.dataclass(frozen=True)
class Table:
    """The names of one family in another project.

    `epsilon` is what their networks of these names normalise with: one of ours with another computes something else.
    `derived` are tensors of ours that follow from the architecture and that they do not store. `caution` is said
    whenever the table is used.
    """

    rows: tuple[Row, ...]
    epsilon: float | None = None
    derived: tuple[str, ...] = ()
    caution: str = ""

    def read(self, theirs: Tensors) -> dict[str, np.ndarray]:
        """By our names; what no row fits keeps its own."""
        found: dict[str, np.ndarray] = {}
        parts: dict[str, dict[str, np.ndarray]] = collections.defaultdict(dict)
        for name, array in theirs.items():
            match = self._reading_row(name)
            if match is None:
                found[name] = array
                continue
            row, part, values = match
            ours = _template(row.ours).fill(values)
            parts[ours][part] = array
            if len(parts[ours]) == len(row.parts):
                found[ours] = row.to_ours(*(parts[ours][part] for part in row.parts))
        return found

    def write(self, ours: Tensors) -> dict[str, np.ndarray] | None:
        """By their names; None if there is a tensor that no row fits."""
        rows = {name: self._writing_row(name) for name in ours if not self.derives(name)}
        if None in rows.values():
            return None
        found = {}
        for name, (row, values) in rows.items():
            arrays = row.to_theirs(ours[name])
            arrays = (arrays,) if isinstance(row.theirs, str) else arrays
            found |= {_template(text).fill(values): a for text, a in zip(row.parts, arrays, strict=True)}
        return found

    def derives(self, name: str) -> bool:
        """Whether our tensor of this name follows from the architecture."""
        return _any(self.derived, name)

    def placeholders(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
        """Those of these tensors of ours that follow from the architecture, without their numbers."""
        return {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items() if self.derives(name)}

    @functools.cached_property
    def _theirs(self) -> re.Pattern:
        return re.compile("|".join(_template(part).pattern for row in self.rows for part in row.parts))

    def knows(self, names: Iterable[str]) -> int:
        """How many of these names of theirs there are rows for."""
        return sum(self._theirs.fullmatch(name) is not None for name in names)

    def _reading_row(self, name: str) -> tuple[Row, str, dict[str, int | str]] | None:
        """The row for a tensor of theirs, its part in that row, and the values of the fields."""
        found = ((row, part, _template(part).match(name)) for row in self.rows for part in row.parts)
        return next((match for match in found if match[2] is not None), None)

    def _writing_row(self, name: str) -> tuple[Row, dict[str, int | str]] | None:
        """The row for a tensor of ours, and the values of the fields."""
        found = ((row, _template(row.ours).match(name)) for row in self.rows)
        return next((match for match in found if match[1] is not None), None)


def _any(templates: tuple[str, ...], name: str) -> bool:
    return any(_template(text).match(name) is not None for text in templates)


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Networks of theirs that look like ours and compute something else, told by names that only they have."""

    marks: tuple[str, ...]
    reason: str


class Reading(NamedTuple):
    """Tensors, and the table of a dialect that they were renamed by."""

    dialect: str
    table: Table
    tensors: dict[str, np.ndarray]
    complete: bool = True  # no name was unknown


MODULES = ("timm", "torchvision", "deeplab_pytorch", "microsoft")


def _modules() -> Iterator[ModuleType]:
    return (importlib.import_module(f"convert.dialects.{module}") for module in MODULES)


def tables_of(name: str) -> list[tuple[str, Table]]:
    """The tables that the card of a model names, each with its dialect."""
    found = (table.partition(".") for table in card(name).tables)
    modules = [(importlib.import_module(f"convert.dialects.{module}"), table) for module, _, table in found]
    return [(module.NAME, getattr(module, table)) for module, table in modules]


def all_tables() -> list[tuple[str, Table]]:
    """Every table, for weights of which nobody knows the model."""
    return [(module.NAME, table) for module in _modules() for table in module.TABLES]


def readings(tensors: Tensors, tables: Iterable[tuple[str, Table]]) -> Iterator[Reading]:
    """These tensors by the names of each table that knows more than half of them, some of them by another."""
    for dialect, table in tables:
        known = table.knows(tensors)
        if 2 * known > len(tensors) and (read := table.read(tensors)).keys() != tensors.keys():
            yield Reading(dialect, table, read, known == len(tensors))


def refusal(tensors: Tensors) -> str:
    """Why no table reads these tensors, where their names tell; "" where they do not."""
    for module in _modules():
        for refused in module.REFUSED:
            if all(any(_any((mark,), name) for name in tensors) for mark in refused.marks):
                return refused.reason
    return ""


def written(dialect: str, name: str, tensors: Tensors) -> Reading | None:
    """A model's tensors by a dialect's names; None if the model's card names no table that has them all."""
    for other, table in tables_of(name):
        if other == dialect and (found := table.write(tensors)) is not None:
            return Reading(dialect, table, found)
    return None
