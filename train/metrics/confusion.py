"""Confusion matrices (C, C) of whole numbers: rows are the true classes, columns the predicted ones."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Confusion:
    """Counts items by `labels` (N,) and the largest of `logits` (N, C); int32."""

    classes: int

    def init(self) -> jax.Array:
        return jnp.zeros((self.classes, self.classes), jnp.int32)

    def update(self, state: jax.Array, *, logits: jax.Array, labels: jax.Array, mask: jax.Array, **outputs: jax.Array):
        return state + self.init().at[labels, logits.argmax(-1)].add(mask.astype(jnp.int32))

    def merge(self, state: jax.Array, other: jax.Array) -> jax.Array:
        return state + other

    def compute(self, state: np.ndarray) -> dict[str, float]:
        return {}


class Class(NamedTuple):
    """A row of per_class.csv: how many images are of this class, and how well it was told from the others."""

    name: str
    images: int
    precision: float
    recall: float
    f1: float


def per_class(matrix: np.ndarray, classes: Sequence[str]) -> list[Class]:
    """Precision, recall and F1 of every class, 0 where there is nothing to divide by; equal to scikit-learn's."""
    right, true, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    precision, recall = right / np.maximum(predicted, 1), right / np.maximum(true, 1)
    f1 = 2 * right / np.maximum(true + predicted, 1)
    columns = (classes, true.tolist(), precision.tolist(), recall.tolist(), f1.tolist())
    return [Class(*row) for row in zip(*columns, strict=True)]


def most_confused(matrix: np.ndarray, classes: Sequence[str], count: int = 10) -> list[tuple[str, str, int]]:
    """The commonest errors as (true class, predicted class, images), the commonest first."""
    errors = np.array(matrix)
    np.fill_diagonal(errors, 0)
    order = np.argsort(-errors, axis=None, kind="stable")[:count]
    pairs = np.stack(np.unravel_index(order, errors.shape), 1)
    return [(classes[row], classes[column], int(errors[row, column])) for row, column in pairs if errors[row, column]]
