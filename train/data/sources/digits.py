"""scikit-learn's handwritten digits, the data set that comes with jaxzoo.

1,797 grayscale images of 8 x 8 pixels with values 0 to 16: the test half of E. Alpaydin and C. Kaynak, "Optical
Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998, https://doi.org/10.24432/C50P49, licensed
CC BY 4.0, as `sklearn.datasets.load_digits` (BSD-3-Clause) ships it. digits.npz holds the same numbers as uint8.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from train.data import Data, stratified_split

SIZE, OWN_SIZE = 32, 8


class Digits:
    """Some of the digits, as RGB images of `size` x `size` pixels; `numbers` are their places in scikit-learn's
    order."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, numbers: np.ndarray, size: int = SIZE):
        self.images, self.labels, self.numbers, self.size = images, labels, numbers, size

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        gray = Image.fromarray((self.images[index] * (255 / 16)).round().astype(np.uint8))
        return gray.resize((self.size, self.size), Image.Resampling.BICUBIC).convert("RGB"), int(self.labels[index])

    def name(self, index: int) -> str:
        return f"digit {self.numbers[index]}"


def load(size: int = SIZE) -> Data:
    """All digits, a fifth of each held out; the split is always the same. Images have `size` x `size` pixels."""
    with np.load(Path(__file__).with_name("digits.npz")) as file:
        images, labels = file["images"], file["labels"]
    train, held_out = stratified_split(labels, 0.2, seed=0)
    return Data(
        *(Digits(images[part], labels[part], part, size) for part in (train, held_out)),
        classes=[str(digit) for digit in range(10)],
        image_size=size,
        photographs=False,
    )
