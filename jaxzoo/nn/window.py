"""Windows of a feature map, and the offsets between their tokens."""

from collections.abc import Sequence

import jax
import numpy as np


def window_partition(x, window_size: Sequence[int]):
    """(N, H, W, ...) to (N, windows, rows, columns, ...), where rows divide H and columns W."""
    n, height, width, *rest = x.shape
    rows, columns = window_size
    x = x.reshape(n, height // rows, rows, width // columns, columns, *rest)
    return x.swapaxes(2, 3).reshape(n, -1, rows, columns, *rest)


def window_reverse(x: jax.Array, counts: Sequence[int]) -> jax.Array:
    """The inverse of `window_partition`, given the number of windows along each axis."""
    n, _, rows, columns, *rest = x.shape
    x = x.reshape(n, *counts, rows, columns, *rest).swapaxes(2, 3)
    return x.reshape(n, counts[0] * rows, counts[1] * columns, *rest)


def relative_position_index(window_size: Sequence[int]) -> np.ndarray:
    """(L·L,): for every pair of a window's L tokens, the row of their offset in a table of all offsets."""
    tokens = np.indices(window_size).reshape(2, -1)
    offset = tokens[:, :, None] - tokens[:, None] + np.reshape(window_size, (2, 1, 1)) - 1
    return (offset[0] * (2 * window_size[1] - 1) + offset[1]).reshape(-1).astype(np.int32)
