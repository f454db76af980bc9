"""Outlines of objects as masks: polygons, and COCO's run lengths, compressed or not."""

from collections.abc import Sequence

import numpy as np

UPSAMPLED = 5  # pycocotools follows edges on a grid so many times finer than the pixels
FARTHEST = 1e6  # pixels; what is drawn of an edge is held in memory


def filled(polygon: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Which pixels (H, W) a polygon covers, exactly as pycocotools has it (maskApi, rleFrPoly).

    Edges are followed on the finer grid; where one enters another column of it that is the middle of a column of
    pixels, what is inside and outside changes places from there down.

    Args:
      polygon: corners (n, 2) as x and y in pixels; pixel (row, column) spans from (column, row) to one more of each.
      size: height and width.

    Raises:
      ValueError: fewer than three corners, or one that is no number, or farther away than images are large.
    """
    if len(polygon) < 3 or not (np.abs(polygon) < FARTHEST).all():
        raise ValueError("a polygon needs three corners or more, each a place in the image")
    height, width = size
    corners = (UPSAMPLED * polygon + 0.5).astype(np.int64)  # towards zero, as in C
    start, end = corners, np.roll(corners, -1, 0)
    across, down = np.abs(end - start).T
    flat = across >= down
    backwards = np.where(flat, start[:, 0] > end[:, 0], start[:, 1] > end[:, 1])
    first, last = np.where(backwards[:, None], (end, start), (start, end))
    slope = (last - first)[np.arange(len(corners)), flat.astype(int)] / np.maximum(np.maximum(across, down), 1)

    steps = np.maximum(across, down) + 1
    edge = np.repeat(np.arange(len(corners)), steps)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(steps) - steps, steps)
    along = np.where(backwards[edge], steps[edge] - 1 - step, step)
    flat, first, drift = flat[edge], first[edge], slope[edge] * along
    x = np.where(flat, first[:, 0] + along, (first[:, 0] + drift + 0.5).astype(np.int64))
    y = np.where(flat, (first[:, 1] + drift + 0.5).astype(np.int64), first[:, 1] + along)

    moved = np.flatnonzero(x[1:] != x[:-1]) + 1
    column = (np.where(x[moved] < x[moved - 1], x[moved], x[moved] - 1) + 0.5) / UPSAMPLED - 0.5
    row = np.ceil(np.clip((np.minimum(y[moved], y[moved - 1]) + 0.5) / UPSAMPLED - 0.5, 0, height))
    kept = (np.floor(column) == column) & (column >= 0) & (column <= width - 1)
    changes = np.zeros(height * width + 1, np.int64)
    np.add.at(changes, (column[kept] * height + row[kept]).astype(np.int64), 1)
    return (np.cumsum(changes[:-1]) % 2 == 1).reshape(width, height).T


def run_lengths(counts: Sequence[int] | str, size: tuple[int, int]) -> np.ndarray:
    """Which pixels (H, W) run lengths cover, column by column: free and covered ones in turn, beginning with free.

    Args:
      counts: the lengths, or COCO's string of them, see `decompressed`.

    Raises:
      ValueError: the lengths do not make as many pixels as there are.
    """
    lengths = np.asarray(decompressed(counts) if isinstance(counts, str | bytes) else counts, np.int64)
    if lengths.sum() != size[0] * size[1] or (lengths < 0).any():
        raise ValueError(f"run lengths of {lengths.sum()} pixels for {size[0] * size[1]}")
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(size[::-1]).T


def decompressed(text: str | bytes) -> list[int]:
    """COCO's string of run lengths: from the fourth on each is told by its difference to the one before the last.

    A number comes in groups of five bits, the lowest first; each is a character from "0" on, its sixth bit says that
    more follow, and the highest bit of the last is the sign (pycocotools' maskApi, rleFrString).

    Raises:
      ValueError: the text ends within a number, or has other characters.
    """
    values, number, shift = [], 0, 0
    for code in text if isinstance(text, bytes) else text.encode("ascii"):
        group = code - 48
        if not 0 <= group < 64:
            raise ValueError(f"{chr(code)!r} is no part of run lengths")
        number |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            number -= 1 << shift
        values.append(number + (values[-2] if len(values) > 2 else 0))
        number, shift = 0, 0
    if shift:
        raise ValueError("run lengths end within a number")
    return values
