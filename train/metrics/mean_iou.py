"""Scores of pixels: their mean loss, accuracies and intersections over unions, and the images that have the lowest.

Confusions are counted as low and high parts (2, …), each of which may be added up in int32 for long.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxzoo.voc import IGNORED
from train.metrics import add

COUNT_BASE = 4096
MAX_INDEX = 2**30

Arrays = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class PixelScores:
    """Of `losses` (N, H, W), 0 where a pixel does not count, and `counts`, the `confusions` of each image.

    Losses are added up in `dtype`.
    """

    classes: int
    dtype: jnp.dtype = jnp.float32

    def init(self) -> Arrays:
        counts = jnp.zeros((2, self.classes, self.classes), jnp.int32)
        return {"loss": jnp.zeros((), self.dtype), "confusion": counts}

    def update(self, state: Arrays, *, losses: jax.Array, counts: jax.Array, **outputs: jax.Array) -> Arrays:
        return add(state, {"loss": losses.sum().astype(self.dtype), "confusion": counts.sum(1, dtype=jnp.int32)})

    def merge(self, state: Arrays, other: Arrays) -> Arrays:
        return add(state, other)

    def compute(self, state: dict[str, np.ndarray]) -> dict[str, float]:
        """Of labelled pixels; see `scores`."""
        matrix = whole(state["confusion"])
        return {"loss": float(state["loss"]) / max(int(matrix.sum()), 1)} | scores(matrix)


@dataclasses.dataclass(frozen=True)
class KeptImages:
    """What was predicted of a few images: of those that come `first`, or of those of the `worst` IoU.

    Arrays have a row for each: `index`, `iou`, `predicted` (H, W) uint8 and `rank`, the highest first, which is 0 in
    free places. Takes `indices`, `iou` and `mask` (N,) and `predicted` (N, h, w), which may be smaller than `size`.
    """

    kind: str
    size: tuple[int, int]
    count: int = 4

    def init(self) -> Arrays:
        free = jnp.zeros(self.count, jnp.int32)
        predicted = jnp.zeros((self.count, *self.size), jnp.uint8)
        return {"index": free, "iou": jnp.zeros(self.count, jnp.float32), "predicted": predicted, "rank": free}

    def update(
        self,
        state: Arrays,
        *,
        indices: jax.Array,
        iou: jax.Array,
        predicted: jax.Array,
        mask: jax.Array,
        **outputs: jax.Array,
    ) -> Arrays:
        earliness = MAX_INDEX - jnp.where(mask, indices, MAX_INDEX)
        badness = jnp.where(mask, 1 + (1e6 * (1 - iou)).astype(jnp.int32), 0)
        rank = earliness if self.kind == "first" else badness
        found = self.highest({"index": indices, "iou": iou, "predicted": predicted, "rank": rank})
        missing = [(0, side - own) for side, own in zip(self.size, predicted.shape[1:], strict=True)]
        return self.merge(state, found | {"predicted": jnp.pad(found["predicted"], [(0, 0), *missing])})

    def merge(self, state: Arrays, other: Arrays) -> Arrays:
        return self.highest({name: jnp.concatenate([values, other[name]]) for name, values in state.items()})

    def highest(self, images: Arrays) -> Arrays:
        """Those of the highest rank, as many as are kept, or all."""
        _, places = jax.lax.top_k(images["rank"], min(self.count, len(images["rank"])))
        return {name: jnp.take(values, places, axis=0) for name, values in images.items()}

    def compute(self, state: dict[str, np.ndarray]) -> dict[str, float]:
        return {}


class Class(NamedTuple):
    """A row of per_class.csv. Parts are NaN where there is nothing to divide by."""

    name: str
    pixels: int
    iou: float
    accuracy: float
    precision: float


def confusions(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """How often each class (rows) was taken for each (columns) in every image, int32 (2, N, C, C): the counts' low and
    high parts, exact under addition for 500,000 batches and 10^13 pixels. Pixels at 255 do not count."""
    n, classes = len(logits), logits.shape[-1]
    cells = targets.astype(jnp.int32) * classes + logits.argmax(-1).astype(jnp.int32)
    cells = jnp.where(targets == IGNORED, classes**2, cells).reshape(n, -1)
    counts = jnp.zeros((n, classes**2 + 1), jnp.int32).at[jnp.arange(n)[:, None], cells].add(1)
    counts = counts[:, :-1].reshape(n, classes, classes)
    return jnp.stack([counts % COUNT_BASE, counts // COUNT_BASE])


def whole(counts: np.ndarray) -> np.ndarray:
    """Low and high parts (2, ...) as int64 (...)."""
    low, high = np.asarray(counts).astype(np.int64)
    return low + COUNT_BASE * high


def mean_iou(counts: jax.Array) -> jax.Array:
    """Of every image (N,) float32, from its `confusions`, over the classes that are or were seen there; 1 if none."""
    matrix = counts[0].astype(jnp.float32) + COUNT_BASE * counts[1].astype(jnp.float32)
    right = jnp.diagonal(matrix, axis1=1, axis2=2)
    union = matrix.sum(1) + matrix.sum(2) - right
    present = union > 0
    iou = jnp.where(present, right / jnp.maximum(union, 1), 0).sum(1) / jnp.maximum(present.sum(1), 1)
    return jnp.where(present.any(1), iou, 1)


def per_class(matrix: np.ndarray, classes: Sequence[str]) -> list[Class]:
    """Intersection over union, the part of a class that was found (accuracy), and of what was found that is right."""
    right, true, predicted = (side.astype(np.float64) for side in (np.diag(matrix), matrix.sum(1), matrix.sum(0)))
    with np.errstate(invalid="ignore"):
        columns = (right / (true + predicted - right), right / true, right / predicted)
    return [Class(*row) for row in zip(classes, matrix.sum(1).tolist(), *map(np.ndarray.tolist, columns), strict=True)]


def scores(matrix: np.ndarray) -> dict[str, float]:
    """Accuracy over pixels and over classes, and IoU over classes, plain and by their part of the pixels (fwiou).

    A class that is neither true nor predicted anywhere has no IoU, one that is nowhere true no accuracy: these are left
    out of the means. VOC's own evaluation has all classes in its pictures. Without labelled pixels all is 0.
    """
    rows = per_class(matrix, [""] * len(matrix))
    iou, accuracy = (np.array([getattr(row, name) for row in rows]) for name in ("iou", "accuracy"))
    parts = matrix.sum(1) / max(matrix.sum(), 1)
    return {
        "pixel_accuracy": float(np.trace(matrix) / max(matrix.sum(), 1)),
        "mean_accuracy": _mean(accuracy),
        "miou": _mean(iou),
        "fwiou": float(np.where(parts > 0, parts * np.nan_to_num(iou), 0).sum()),
    }


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else 0.0
