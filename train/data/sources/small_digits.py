"""The digits that come with jaxzoo in their own size, 8 x 8 pixels: nothing to reconstruct that was interpolated."""

from train.data import Data
from train.data.sources import digits


def load() -> Data:
    """All digits, split as in `digits`."""
    return digits.load(size=digits.OWN_SIZE)
