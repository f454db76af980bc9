"""The digits that come with jaxzoo in their own size, 8 x 8 pixels, in black and white: likelihoods count points."""

import numpy as np

from train.data import Data
from train.data.sources import digits

INK = 8  # of a pixel's 16 points, from which it is white


def load() -> Data:
    """All digits, split as in `digits`."""
    data = digits.load(size=digits.OWN_SIZE)
    for side in (data.train, data.held_out):
        side.images = np.where(side.images >= INK, 16, 0)
    return data
