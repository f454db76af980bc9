"""The order in which an epoch shows the images, with repeated augmentation (Hoffer et al., "Augment your batch", 2019;
`RASampler` of torchvision's reference training)."""

import numpy as np

from jaxzoo.errors import UsageError


def epoch_order(count: int, rng: np.random.Generator, repeats: int = 1) -> np.ndarray:
    """Indices of an epoch's images, int64 (count,): a permutation, each `repeats` times in a row, cut at `count`.

    Position p shows its image for the (p % repeats)-th time: augmentation has to draw from that number too, or all
    repetitions look the same. Raises UsageError if `repeats` is below 1.
    """
    if repeats < 1:
        raise UsageError(f"--repeats is {repeats}; it must be a whole number of at least 1")
    return np.repeat(rng.permutation(count), repeats)[:count]


def apart(positions: np.ndarray, repeats: int) -> np.ndarray:
    """A batch's positions in the order of an epoch, rearranged so that repetitions of an image do not stand together.

    Mixup and cutmix mix neighbours, which must be different images; and each process or device, which takes consecutive
    rows, sees an image once where it can, as with RASampler.
    """
    return np.concatenate([positions[first::repeats] for first in range(repeats)])
