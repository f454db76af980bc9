"""Data whose classes are numbered as the weights have them, which know them by name."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxzoo.errors import UsageError
from train.data import Data, Source
from train.data.objects import Objects, Problem
from train.reporting.progress import say


class Relabelled:
    """A source in which class `numbers[label]` stands for class `label`, in labels, masks or objects."""

    def __init__(self, source: Source, numbers: Sequence[int]):
        self.source, self.numbers = source, np.arange(max(256, len(numbers)))  # 255, no class of a mask, stays
        self.numbers[: len(numbers)] = numbers

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, label = self.source[index]
        if isinstance(label, Objects):
            return image, self._renumbered(label)
        if isinstance(label, np.ndarray):
            return image, self.numbers[label].astype(np.uint8)
        return image, int(self.numbers[label])

    def name(self, index: int) -> str:
        return self.source.name(index)

    def size(self, index: int) -> tuple[int, int]:
        return self.source.size(index)

    def objects(self, index: int) -> Objects:
        return self._renumbered(self.source.objects(index))

    def _renumbered(self, objects: Objects) -> Objects:
        return dataclasses.replace(objects, labels=self.numbers[objects.labels].astype(np.int32))

    @property
    def problems(self) -> list[Problem]:
        return self.source.problems

    def with_parts(self, *, masks: bool = False, keypoints: bool = False) -> "Relabelled":
        return Relabelled(self.source.with_parts(masks=masks, keypoints=keypoints), self.numbers)

    @property
    def labels(self) -> np.ndarray:
        return self.numbers[self.source.labels]


def relabelled(data: Data, classes: Sequence[str], title: str, whose: str, *, evaluated: bool) -> Data:
    """`data` with these classes, those of weights, if it has the same by name; who is only `evaluated` may lack some.

    Classes of equal number that have no name in common, or that only where they stand at the same place, are the same
    in their order. Weights that learn on other classes get a new head, so their data stays as it is.

    Args:
      title, whose: what data and weights are called.

    Raises:
      UsageError: the data has classes that weights, which are only `evaluated`, do not know.
    """
    classes, numbers = list(classes), {name: number for number, name in enumerate(classes)}
    if classes == data.classes:
        return data
    unknown = [name for name in data.classes if name not in numbers]
    if not unknown and (evaluated or len(classes) == len(data.classes)):
        order = [numbers[name] for name in data.classes]
        sources = (Relabelled(source, order) if len(source) else source for source in (data.train, data.held_out))
        return Data(*sources, classes, *[getattr(data, field.name) for field in dataclasses.fields(Data)[3:]])
    if len(classes) == len(data.classes) and all(
        ours == theirs for ours, theirs in zip(data.classes, classes, strict=True) if ours in numbers
    ):
        if evaluated:
            say(f"{whose} calls its classes {_few(classes)}, and {title} {_few(data.classes)}: matched by their order")
        return data
    if not evaluated:
        return data
    raise UsageError(f"{title} has classes that {whose} does not know: {_few(unknown)}; it knows {_few(classes)}")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
