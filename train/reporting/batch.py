"""Images as the model sees them, with their labels: for train_batch.png and val_batch.png."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from train.reporting.contact_sheet import Tile

LEAST = 0.05  # smaller parts of a label, such as those of label smoothing, are not written below a picture


def batch_tiles(
    images: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> list[Tile]:
    """The images of a batch with their labels.

    Args:
      images: (N, H, W, 3), as they go into the model: of any float dtype, normalised by `mean` and `std`.
      labels: (N,) indices of classes, or (N, C) parts of each class, as mixup and cutmix make them.
      mean, std: of the eval transform, by RGB channel, for values of 0 to 1.
    """
    return [
        Tile(Image.fromarray(picture), [label_text(label, classes)])
        for picture, label in zip(denormalised(images, mean, std), np.asarray(labels), strict=True)
    ]


def denormalised(images: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Normalised images (…, 3) of any float dtype as uint8 RGB; what is beyond black or white is cut off."""
    values = np.asarray(images).astype(np.float32) * np.asarray(std, np.float32) + np.asarray(mean, np.float32)
    return np.clip(np.nan_to_num(values) * 255 + 0.5, 0, 255).astype(np.uint8)


def label_text(label: np.ndarray, classes: Sequence[str]) -> str:
    """`cat` for an index or a whole class; `cat 0.7 + dog 0.3` for parts (C,), the largest first."""
    if np.ndim(label) == 0:
        return classes[int(label)]
    label = np.asarray(label).astype(np.float32)
    order = [int(i) for i in np.argsort(-label, kind="stable")[:4] if label[i] >= LEAST]
    if order and label[order[0]] >= 1 - LEAST / 10:
        return classes[order[0]]
    return " + ".join(f"{classes[i]} {label[i]:.2g}" for i in order) or "nothing"
