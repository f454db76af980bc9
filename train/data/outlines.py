"""Outlines of objects as masks: polygons, and COCO's run lengths, compressed or not."""

from collections.abc import Sequence

import numpy as np


def filled(polygon: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Which pixels (H, W) have their centre inside the polygon, by the even-odd rule.

    Args:
      polygon: corners (n, 2) as x and y in pixels; pixel (row, column) spans from (column, row) to one more of each.
      size: height and width.

    Raises:
      ValueError: fewer than three corners, or one that is not finite.
    """
    if len(polygon) < 3 or not np.isfinite(polygon).all():
        raise ValueError("a polygon needs three corners or more")
    height, width = size
    rows = np.arange(height)[:, None] + 0.5
    (x0, y0), (x1, y1) = polygon.T, np.roll(polygon, -1, 0).T
    crossed = (np.minimum(y0, y1) <= rows) & (rows < np.maximum(y0, y1))  # (H, n)
    row, edge = np.nonzero(crossed)
    x = x0[edge] + (row + 0.5 - y0[edge]) * (x1 - x0)[edge] / (y1 - y0)[edge]
    columns = np.clip(np.ceil(x - 0.5), 0, width).astype(int)  # the first whose centre lies beyond the edge
    changes = np.zeros((height, width + 1), np.uint8)
    np.add.at(changes, (row, columns), 1)
    return np.bitwise_xor.accumulate(changes[:, :width] & 1, axis=1).astype(bool)


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
