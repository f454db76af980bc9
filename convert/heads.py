"""The parts of a model that depend on the number of classes: which they are, and which of them a file lacks."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from convert.shapes import Shapes, auxiliary, head_of


@dataclasses.dataclass(frozen=True)
class Heads:
    """A model's heads, by the names of their tensors, and the classes that a file's have."""

    main: list[str]
    classes: int | None
    side: list[str]  # of heads that count in training only
    side_classes: int | None
    argument: str | None  # of the builder, that asks for these

    @property
    def disagree(self) -> bool:
        return None not in (self.classes, self.side_classes) and self.classes != self.side_classes


def heads_of(name: str, shapes: Shapes, arguments: Mapping[str, Any]) -> Heads:
    """The heads of a model that is built with these arguments, in a file of these shapes."""
    argument, aside = auxiliary(name, arguments)
    main, classes = head_of(name, shapes, arguments, without=aside)
    side, side_classes = head_of(name, {key: shapes[key] for key in aside & shapes.keys()}, arguments)
    return Heads(main, classes, [key for key in side if key in aside], side_classes, argument)


def replaced(heads: Heads, wanted: Shapes, given: Shapes) -> tuple[str, ...]:
    """How the names of those parts of the model begin that a file lacks, or has otherwise: its heads, each as a whole.

    Where only the last layer differs, it is that one. Where other layers of the same part do too, the whole part was
    replaced.
    """
    wrong = {key for key, shape in wanted.items() if given.get(key) != shape}
    found = []
    for layer in dict.fromkeys(key.rpartition(".")[0] + "." for key in (*heads.main, *heads.side)):
        part = layer.partition(".")[0] + "."
        inside = {key for key in wanted if key.startswith(part)}
        if any(key.startswith(layer) for key in wrong):
            whole = (inside & wrong) - {*heads.main, *heads.side} and 2 * len(inside) < len(wanted)
            found.append(part if whole else layer)
    return tuple(dict.fromkeys(found))
