"""`python -m convert inspect`: the content of a weights file, and the models that it fits."""

import collections
import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from jaxzoo.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from convert.dialects import Reading
    from convert.shapes import Shapes

SHOWN = 20
CLOSEST = 5  # models that are also tried by the order of tensors
FACTOR = 4  # models of so many times more or fewer parameters are passed over
SHARE = 3  # of this many parts of the tensors, one has to lie below a prefix to be a network
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def identify(file: tyro.conf.Positional[str], /, all: Annotated[bool, tyro.conf.arg(name="all")] = False) -> None:
    """Shows the content of a weights file: tensors, shapes, dtypes, their place in it, and the models that it fits.

    Args:
        file: A .pth, .pt or .safetensors file, a converted directory, or the folder of a training run.
        all: List every tensor.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    console = Console(highlight=False)
    tensors, facts = _open(file)
    dtypes = collections.Counter(array.dtype.name for array in tensors.values())
    facts["tensors"] = f"{len(tensors)}, {sum(array.size for array in tensors.values()):,} numbers"
    facts["dtypes"] = ", ".join(f"{name} × {count}" for name, count in dtypes.most_common())
    for name, fact in facts.items():
        console.print(f"[bold]{name}[/]: ", end="")
        console.print(fact, markup=False)
    table = Table(Column("tensor", overflow="fold"), "shape", "dtype")
    rows = [(name, str(array.shape), array.dtype.name) for name, array in tensors.items()]
    hidden = 0 if all else len(rows) - SHOWN
    if hidden > 0:
        rows[SHOWN // 2 : -SHOWN // 2] = [(f"… {hidden} more (--all)", "", "")]
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)
    found, nearest = fitting(tensors)
    names = [f"{name} ({', '.join(words)})" if words else name for name, words in found.items()]
    console.print(f"[bold]fits[/]: {', '.join(names) or f'none of the registered models{nearest}'}")


def fitting(tensors: dict[str, "np.ndarray"]) -> tuple[dict[str, list[str]], str]:
    """The registered models that these tensors fill, under whatever names and prefix.

    Building every abstract model takes a minute. So the nearest in size come first, until one fits; of the others, the
    smallest of a family tells whether its names are like these, and only such families are built.

    Returns:
      For each, remarks: the arguments that shapes tell, the project whose names these are, and objections. And where
      there is none, text about the nearest.
    """
    from convert import dialects
    from convert.shapes import default_shapes
    from jaxzoo import card

    if reason := dialects.refusal(tensors):
        return {}, f": {reason}"
    readings = list(_readings(tensors))
    models = _by_size(tensors)
    smallest: dict[str, tuple[int, str]] = {}
    for name, parameters in models:
        family = card(name).builder.__module__
        smallest[family] = min(smallest.get(family, (parameters, name)), (parameters, name))
    families: dict[str, list[tuple[str, dialects.Reading]]] = {}
    found, size, nearest, best = {}, None, "", 0
    count = sum(array.size for array in tensors.values()) or 1
    for i, (name, parameters) in enumerate(models):
        if i == CLOSEST and not found:
            found = _in_order(tensors, [name for name, _ in models[:CLOSEST]])
        if found and parameters != size:  # what fills one model fills none of another size
            break
        family = card(name).builder.__module__
        if i < CLOSEST:  # a family may have networks of several kinds of names
            likely = _those_alike(readings, default_shapes(name))
        elif parameters and max(count / parameters, parameters / count) > FACTOR:
            continue
        else:
            if family not in families:
                families[family] = _those_alike(readings, default_shapes(smallest[family][1]))
            likely = families[family]
        for prefix, reading in likely:
            if (words := _fit(name, reading)) is not None:
                found[name], size = words + [f"below {prefix}"] * bool(prefix), parameters
            shapes = {key: array.shape for key, array in reading.tensors.items()}
            if (same := len(shapes.items() & default_shapes(name).items())) > best:
                best, nearest = same, f"; nearest is {name}, {same} of {len(shapes)} tensors alike in name and shape"
    return found, nearest


def _readings(tensors: dict[str, "np.ndarray"]) -> Iterator[tuple[str, "Reading"]]:
    """Possible networks: the tensors below each prefix that many of them share, by the names of each dialect."""
    from convert.dialects import Reading, Table, all_tables, readings

    counts = collections.Counter(key[: i + 1] for key in tensors for i, letter in enumerate(key) if letter == ".")
    for prefix in ["", *(prefix for prefix, count in counts.items() if SHARE * count > len(tensors))]:
        below = {key.removeprefix(prefix): array for key, array in tensors.items() if key.startswith(prefix)}
        yield prefix, Reading("", Table(()), below)
        yield from ((prefix, reading) for reading in readings(below, all_tables()))


def _in_order(tensors: dict[str, "np.ndarray"], models: Iterable[str]) -> dict[str, list[str]]:
    """Those of these models that the same tensors in the same order fill."""
    from convert.dialects import Reading, Table
    from convert.names import match_by_order

    found = {}
    for name in models:
        with contextlib.suppress(UsageError):
            words = _fit(name, Reading("", Table(()), match_by_order(name, Path(), tensors).tensors))
            if words is not None:
                found[name] = [*words, "with --match order"]
    return found


def _by_size(tensors: Mapping[str, "np.ndarray"]) -> list[tuple[str, int]]:
    """The registered models and their numbers of parameters, the likeliest for these tensors first.

    These are models that differ from them in the number of classes alone, then those of about as many parameters. A
    file may lack heads that only training runs.
    """
    from jaxzoo import list_models
    from jaxzoo.model_size import ModelSize, stored

    sizes = {name: stored().get(name, ModelSize(0, 0)) for name in list_models()}
    parameters = [array for name, array in tensors.items() if not name.endswith(BUFFERS) and array.dtype.kind != "i"]
    count = sum(array.size for array in parameters)
    # Any matrix may be the classifier.
    with_1000_classes = {count + (1000 - len(a)) * (a.shape[1] + 1) for a in parameters if a.ndim == 2}

    def unlikely(name: str) -> tuple[bool, int]:
        size = sizes[name]
        counts = {size.parameters + n * size.auxiliary for n in (-1, 0, 1)}  # with those heads or without
        return counts.isdisjoint(with_1000_classes), min(abs(n - count) for n in counts)

    return [(name, sizes[name].parameters) for name in sorted(sizes, key=unlikely)]


def _those_alike(readings: Iterable[tuple[str, "Reading"]], known: Iterable[str]) -> list[tuple[str, "Reading"]]:
    return [(prefix, reading) for prefix, reading in readings if _alike(reading.tensors, known)]


def _alike(names: Iterable[str], others: Iterable[str]) -> bool:
    """Whether more than half of the names occur on both sides, whatever their numbers."""
    a, b = ({re.sub(r"\d+", "#", key) for key in keys} for keys in (names, others))
    return 2 * len(a & b) > min(len(a), len(b))


def _fit(name: str, reading: "Reading") -> list[str] | None:
    """Remarks on a model that these tensors fill; None if they do not."""
    from convert.fitting import fit_weights
    from convert.heads import heads_of
    from convert.leftovers import leftovers
    from convert.names import check_dialect
    from convert.shapes import default_shapes
    from convert.weights import Weights

    wanted = default_shapes(name)
    tensors = reading.tensors | reading.table.placeholders(wanted)
    _, idle = leftovers(tensors, wanted)
    shapes = {key: array.shape for key, array in tensors.items() if key not in idle}
    arguments, differing = {}, _differing(shapes, wanted)
    if len(differing) > len(shapes) / 3:  # more than head, tables, heads for training
        return None
    if differing:
        try:
            arguments = fit_weights(name, Weights(Path(name), tensors)).arguments
        except UsageError:
            return None
    if "num_classes" not in arguments and (classes := heads_of(name, shapes, arguments).classes):
        arguments = {"num_classes": classes} | arguments
    words = [f"{key}={value}" for key, value in arguments.items()]
    if reading.dialect:
        words.append(f"by {reading.dialect}'s names")
        words += filter(None, [reading.table.caution])
        try:
            check_dialect(name, reading)
        except UsageError as error:
            words.append(f"but {error}")
    return words


def _differing(shapes: "Shapes", others: "Shapes") -> set[str]:
    return {key for key, _ in shapes.items() ^ others.items() if not key.endswith("num_batches_tracked")}


def _open(file: str) -> tuple[dict, dict[str, str]]:
    from convert import files, store
    from convert.differences import listed
    from convert.sources import read_weights

    directory, _ = store.part_of(Path(file))
    if directory.is_dir():
        manifest = store.read_manifest(store.checkpoint_in(directory))
        weights = read_weights(manifest["model"], file)
        facts = {"checkpoint": f"{weights.path}: {manifest['model']} {manifest['arguments'] or ''}"}
        return weights.tensors, facts
    found = files.contents(file)
    facts = {"file": f"{found.path}, {found.path.stat().st_size / 1e6:.1f} MB"}
    if found.nesting:
        facts["weights under"] = found.nesting
    if found.prefix:
        facts["prefix taken off"] = found.prefix
    if found.dropped:
        facts["no weights"] = listed(found.dropped)
    return found.tensors, facts
