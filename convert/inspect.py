"""`python -m convert inspect`: what is in a weights file, and which models it fits."""

import collections
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

if TYPE_CHECKING:
    from convert.weights import Shapes

SHOWN = 20


def inspect(file: tyro.conf.Positional[str], /, all: Annotated[bool, tyro.conf.arg(name="all")] = False) -> None:
    """Says what a file of weights holds: tensors, shapes, dtypes, where they lay, and the registered models it fits.

    Args:
        file: a .pth, .pt or .safetensors file, a converted directory, or the folder of a training run.
        all: list every tensor.
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
    names = [f"{name} ({', '.join(f'{k}={v}' for k, v in arguments.items())})" for name, arguments in found.items()]
    console.print(f"[bold]fits[/]: {', '.join(names) or f'none of the registered models{nearest}'}")


def fitting(tensors: Mapping[str, Any]) -> tuple[dict[str, dict[str, int]], str]:
    """The registered models whose state_dict has these names and shapes, with the arguments that shapes tell.

    Building every abstract model takes a minute, so one model of every family file is looked at first, and the others
    only where names look alike.

    Returns:
      The models that fit; and where there is none, text about the nearest.
    """
    from jaxzoo import card, list_models

    families = collections.defaultdict(list)
    for name in list_models():
        families[card(name).builder.__module__].append(name)
    shapes = {name: tuple(array.shape) for name, array in tensors.items()}
    found, nearest, best = {}, "", 0
    for first, *others in families.values():
        if not _alike(shapes, _shapes(first)):
            continue
        for name in (first, *others):
            arguments = _fit(name, tensors, shapes)
            if arguments is not None:
                found[name] = arguments
            same = len(shapes.items() & _shapes(name).items())
            if same > best:
                best, nearest = same, f"; nearest is {name}, {same} of {len(shapes)} tensors alike in name and shape"
    return found, nearest


def _alike(shapes: "Shapes", others: "Shapes") -> bool:
    """Whether more than half of the names occur on both sides, whatever their numbers."""
    a, b = ({re.sub(r"\d+", "#", key) for key in keys} for keys in (shapes, others))
    return 2 * len(a & b) > min(len(a), len(b))


def _fit(name: str, tensors: Mapping[str, Any], shapes: "Shapes") -> dict[str, int] | None:
    """The arguments with which a model fits, None if with none; what differs may be the head and a table or two."""
    from convert.weights import Weights, fit, head_of, shapes_of

    if len(_differing(shapes, _shapes(name))) > len(shapes) / 3:
        return None
    model, arguments, _ = fit(name, Weights(Path(name), dict(tensors)))
    if _differing(shapes, shapes_of(model)):
        return None
    if "num_classes" not in arguments and (classes := head_of(name, shapes, arguments)[1]):
        return {"num_classes": classes} | arguments
    return arguments


def _differing(shapes: "Shapes", others: "Shapes") -> set[str]:
    return {key for key, _ in shapes.items() ^ others.items() if not key.endswith("num_batches_tracked")}


@functools.cache
def _shapes(name: str) -> "Shapes":
    from convert.weights import abstract, shapes_of

    return shapes_of(abstract(name))


def _open(file: str) -> tuple[dict, dict[str, str]]:
    from convert import files, store
    from convert.weights import checkpoint_in, find

    if Path(file).is_dir():
        directory = checkpoint_in(Path(file))
        manifest = store.read_manifest(directory)
        facts = {"checkpoint": f"{directory}: {manifest['model']} {manifest['arguments'] or ''}"}
        return find(manifest["model"], directory).tensors, facts
    found = files.contents(file)
    facts = {"file": f"{found.path}, {found.path.stat().st_size / 1e6:.1f} MB"}
    if found.nesting:
        facts["weights under"] = found.nesting
    if found.prefix:
        facts["prefix taken off"] = found.prefix
    if found.dropped:
        facts["no weights"] = ", ".join(found.dropped)
    return found.tensors, facts
