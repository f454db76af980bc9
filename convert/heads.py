"""The parts of a model that depend on the number of classes, and those of them that a file lacks."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from convert.shapes import Shapes, default_shapes, shapes_at, sizes_that_differ
from jaxzoo.registry import argument_defaults, argument_names, card

FEW, MORE = 7, 11  # numbers of classes at which a model is built whose card does not name its head


@dataclasses.dataclass(frozen=True)
class Heads:
    """A model's heads, by the names of their tensors, and the classes that a file's have."""

    main: list[str]
    classes: int | None
    auxiliary: list[str]  # of heads that count in training only
    auxiliary_classes: int | None
    argument: str | None  # of the builder, that asks for these

    @property
    def disagree(self) -> bool:
        return None not in (self.classes, self.auxiliary_classes) and self.classes != self.auxiliary_classes


def heads_of(name: str, shapes: Shapes, arguments: Mapping[str, Any]) -> Heads:
    """The heads of a model that is built with these arguments, in a file of these shapes."""
    argument, prefixes = auxiliary(name)
    begin = head_prefixes(name, arguments)
    keys = [key for key in shapes_at(name, arguments) if key.startswith(begin)]
    main = [key for key in keys if not key.startswith(prefixes)]
    others = [key for key in keys if key.startswith(prefixes)]
    classes = [_classes(name, part, shapes, arguments) for part in (main, others)]
    return Heads(main, classes[0], others, classes[1], argument)


def head_prefixes(name: str, arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """How the names of the tensors begin whose shapes depend on the number of classes."""
    if (modules := card(name).head) is not None:
        return tuple(f"{module}." for module in modules)
    small, large = _few_and_more(name, arguments)
    return tuple(key for key in small if small[key] != large[key])


def auxiliary(name: str) -> tuple[str | None, tuple[str, ...]]:
    """The argument that asks for heads which count in training only, and how the names of their tensors begin."""
    argument = next((known for known in argument_names(name) if known.startswith("aux_")), None)
    if argument is None or card(name).head is not None:
        return argument, tuple(f"{module}." for module in card(name).auxiliary)
    without, having = (shapes_at(name, {argument: wanted}) for wanted in (False, True))
    return argument, tuple(key for key in having if key not in without)


def _few_and_more(name: str, arguments: Mapping[str, Any]) -> list[Shapes]:
    if "num_classes" not in argument_names(name):
        return [{}, {}]
    return [shapes_at(name, {**arguments, "num_classes": count}) for count in (FEW, MORE)]


def _classes(name: str, keys: Iterable[str], shapes: Shapes, arguments: Mapping[str, Any]) -> int | None:
    """The number of classes of the head of these tensors, in a file of these shapes."""
    found = next((key for key in keys if shapes.get(key)), None)
    if card(name).head is not None and (found is None or _counts_classes(name, found)):
        return found and shapes[found][0]
    for at_few, at_more, size in sizes_that_differ(keys, *_few_and_more(name, arguments), shapes):
        classes = FEW + (size - at_few) * (MORE - FEW) / (at_more - at_few)  # sizes grow linearly
        if classes >= 1 and classes.is_integer():
            return int(classes)
    return None


def _counts_classes(name: str, key: str) -> bool:
    """Whether this tensor of a head has as many rows as there are classes, and not several for each."""
    rows = default_shapes(name).get(key)  # of an auxiliary head that is not there by default as of the main one
    return rows is None or rows[0] == argument_defaults(name).get("num_classes")


def replaced(heads: Heads, wanted: Shapes, given: Shapes) -> tuple[str, ...]:
    """How the names of those parts of the model begin that a file lacks, or has otherwise: its heads, each as a whole.

    Where only the last layer differs, it is that one. Where other layers of the same part do too, the whole part was
    replaced.
    """
    wrong = {key for key, shape in wanted.items() if given.get(key) != shape}
    found = []
    for layer in dict.fromkeys(key.rpartition(".")[0] + "." for key in (*heads.main, *heads.auxiliary)):
        part = layer.partition(".")[0] + "."
        inside = {key for key in wanted if key.startswith(part)}
        if any(key.startswith(layer) for key in wrong):
            whole = (inside & wrong) - {*heads.main, *heads.auxiliary} and 2 * len(inside) < len(wanted)
            found.append(part if whole else layer)
    return tuple(dict.fromkeys(found))
