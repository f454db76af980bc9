"""Non-maximum suppression of fixed size, exact: what torchvision keeps, in its order."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxzoo.nn.ops.boxes import as_float, box_area, clamp


def nms(
    boxes: jax.Array,
    scores: jax.Array,
    iou_threshold: float,
    valid: jax.Array | None = None,
    max_output: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """`torchvision.ops.nms` with a fixed number of results: removes what overlaps a box of a higher score too much.

    Boxes of equal scores come in the order given. A box goes if its IoU with one that is kept is greater than the
    threshold, computed in float32 at least and compared with the threshold as it is, as torchvision does on a CPU (on
    CUDA it rounds the threshold to float32, which decides otherwise where the two are equal). NaN scores come first,
    boxes with NaN are kept, as there. No gradient flows.

    >>> boxes = jnp.array([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 3.0], [5.0, 5.0, 9.0, 9.0]])
    >>> nms(boxes, jnp.array([0.8, 0.9, 0.7]), 0.5)
    (Array([1, 2, 0], dtype=int32), Array([ True,  True, False], dtype=bool))

    Args:
      boxes: (N, 4) as (x1, y1, x2, y2).
      scores: (N,).
      valid: (N,) True for boxes that take part; all unless given.
      max_output: how many results to return, at most; N unless given. Fewer take less time on a CPU.

    Returns:
      Indices (max_output,) of the boxes kept, by descending score, and a mask (max_output,) of those that count; where
      it is False the index is 0.
    """
    return batched_nms(boxes, scores, None, iou_threshold, valid, max_output)


def batched_nms(
    boxes: jax.Array,
    scores: jax.Array,
    idxs: jax.Array | None,
    iou_threshold: float,
    valid: jax.Array | None = None,
    max_output: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """`torchvision.ops.batched_nms`: as `nms`, and boxes of different groups (classes, levels) leave each other alone.

    Groups are compared, and not moved apart as torchvision does for few boxes, which costs it some precision. Where
    groups have equal numbers of boxes, `jax.vmap(nms)` over them compares fewer pairs.

    Args:
      idxs: (N,) whole numbers, the group of every box.
    """
    count = len(scores)
    size = count if max_output is None else max_output
    if boxes.shape != (count, 4) or scores.ndim != 1:
        raise ValueError(f"boxes are {boxes.shape} and scores {scores.shape}; they must be (N, 4) and (N,)")
    if not count:
        return jnp.zeros(size, jnp.int32), jnp.zeros(size, bool)
    boxes, scores = lax.stop_gradient((as_float(boxes), as_float(scores)))
    valid = jnp.ones(count, bool) if valid is None else jnp.asarray(valid)
    first = -jnp.where(jnp.isnan(scores), jnp.inf, scores)
    order = lax.sort((~valid, first, lax.iota(jnp.int32, count)), num_keys=2, is_stable=True)[2]
    groups = jnp.zeros(count, jnp.int32) if idxs is None else jnp.asarray(idxs)[order]
    keep, kept = sorted_nms(boxes[order], groups, valid[order], iou_threshold, size)
    counts = lax.iota(jnp.int32, size) < kept
    return jnp.where(counts, order[keep], 0), counts


def sorted_nms(
    boxes: jax.Array, groups: jax.Array, valid: jax.Array, iou_threshold: float, size: int
) -> tuple[jax.Array, jax.Array]:
    """`batched_nms` of boxes (N, 4) in the order in which they are taken: places (size,) and how many of them count.

    Many boxes are taken some at a time, until `size` are kept, which the first ones mostly give.
    """
    threshold, count = _below(iou_threshold, boxes.dtype), len(boxes)

    def keep_of(boxes: jax.Array, groups: jax.Array, valid: jax.Array) -> jax.Array:
        return lax.platform_dependent(
            boxes,
            groups,
            valid,
            cpu=lambda *given: _row_by_row(*given, threshold, size),
            default=lambda *given: _all_at_once(*given, threshold),
        )

    if count <= _AT_ONCE:
        keep = keep_of(boxes, groups, valid)
        return jnp.nonzero(keep, size=size, fill_value=0)[0].astype(jnp.int32), keep.sum(dtype=jnp.int32)

    missing = -count % _AT_ONCE
    boxes, groups, valid = (jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) for x in (boxes, groups, valid))
    end = jnp.where(valid, lax.iota(jnp.int32, len(valid)) + 1, 0).max()

    def take(state: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        start, kept, places = state
        some, group, free = (lax.dynamic_slice_in_dim(x, start, _AT_ONCE) for x in (boxes, groups, valid))
        before = lax.iota(jnp.int32, size) < kept
        removes = _overlapping(boxes[places][:, None], some, threshold) & (groups[places][:, None] == group)
        keep = keep_of(some, group, free & ~(removes & before[:, None]).any(0))
        slot = jnp.where(keep, kept + jnp.cumsum(keep, dtype=jnp.int32) - 1, size)
        places = places.at[slot].set(start + lax.iota(jnp.int32, _AT_ONCE), mode="drop")
        return start + _AT_ONCE, kept + keep.sum(dtype=jnp.int32), places

    zero = jnp.zeros((), jnp.int32)
    start = zero, zero, jnp.zeros(size, jnp.int32)
    _, kept, places = lax.while_loop(lambda state: (state[0] < end) & (state[1] < size), take, start)
    return places, kept


_AT_ONCE = 2048  # boxes, of which all pairs are compared off the CPU


def _below(threshold: ArrayLike, dtype: np.dtype) -> ArrayLike:
    """The largest number of a dtype that is not above the threshold: what exceeds one exceeds the other."""
    if isinstance(threshold, jax.Array):
        return threshold
    rounded = np.asarray(threshold).astype(dtype)
    return np.nextafter(rounded, dtype.type(-np.inf)) if float(rounded) > float(threshold) else rounded


def _overlapping(a: jax.Array, b: jax.Array, threshold: ArrayLike) -> jax.Array:
    """Whether the IoU of boxes (..., 4) is above a threshold, computed in torchvision's order."""
    common = clamp(jnp.minimum(a[..., 2:], b[..., 2:]) - jnp.maximum(a[..., :2], b[..., :2]), 0)
    intersection = common[..., 0] * common[..., 1]
    return intersection / (box_area(a) + box_area(b) - intersection) > threshold


def _all_at_once(boxes: jax.Array, groups: jax.Array, valid: jax.Array, threshold: ArrayLike) -> jax.Array:
    """Which of boxes (N, 4) by descending score are kept: those that no box before them, itself kept, removes.

    That has one solution. Repeated from all boxes, it stands after as many steps as the longest chain of boxes that
    remove each other, about six. Row by row it would be N steps, and a GPU takes as long for a small step as for a
    large one.
    """
    place = lax.iota(jnp.int32, len(boxes))
    removes = _overlapping(boxes[:, None], boxes, threshold) & (place[:, None] < place) & (groups[:, None] == groups)

    def step(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        _, keep = state
        return keep, valid & ~(removes & keep[:, None]).any(0)

    return lax.while_loop(lambda state: (state[0] != state[1]).any(), step, (~valid, valid))[1]


def _row_by_row(boxes: jax.Array, groups: jax.Array, valid: jax.Array, threshold: ArrayLike, size: int) -> jax.Array:
    """The same on a CPU, up to the `size`-th that is kept: each box kept removes boxes after it.

    Without a matrix, which a CPU's caches do not hold: 1,000 boxes in 0.5 ms, where the other takes 1.0 to 1.5 and
    torchvision 2.7 to 5 (two cores, AVX-512).
    """
    place, (x1, y1, x2, y2) = lax.iota(jnp.int32, len(boxes)), boxes.T
    areas, last = (x2 - x1) * (y2 - y1), jnp.where(valid, place + 1, 0).max()

    def step(state: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        i, kept, keep = state
        width = clamp(jnp.minimum(x2[i], x2) - jnp.maximum(x1[i], x1), 0)
        height = clamp(jnp.minimum(y2[i], y2) - jnp.maximum(y1[i], y1), 0)
        common = width * height
        removed = (common / (areas[i] + areas - common) > threshold) & (place > i) & (groups == groups[i])
        return i + 1, kept + keep[i], keep & ~(removed & keep[i])

    start = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), valid
    return lax.while_loop(lambda state: (state[0] < last) & (state[1] < size), step, start)[2]
