"""COCO's run lengths as masks, compressed or not, and masks as run lengths.

Not by pycocotools, which writes beyond its memory, or never ends, where a string is damaged (2.0.11).
"""

from collections.abc import Sequence

import numpy as np


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


def compressed(mask: np.ndarray) -> str:
    """COCO's string of run lengths, see `decompressed`, of the pixels (H, W) that are not 0."""
    flat = np.asarray(mask, bool).ravel("F")
    starts = np.flatnonzero(np.diff(flat, prepend=False))
    counts = np.diff(starts, prepend=0, append=flat.size)
    text = bytearray()
    for number in np.concatenate([counts[:3], counts[3:] - counts[1:-2]]).tolist():
        more = True
        while more:
            group, number = number & 31, number >> 5
            more = number != (-1 if group & 16 else 0)
            text.append(48 + (group | 32 * more))
    return text.decode("ascii")
