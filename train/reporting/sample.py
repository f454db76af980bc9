"""Some of many items, for counts and pictures of large data sets."""

import numpy as np


def evenly_spread(count: int, most: int) -> list[int]:
    """Up to `most` of `count` indices."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(int)).tolist()
