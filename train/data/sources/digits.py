"""scikit-learn's handwritten digits, the data set that comes with jaxzoo.

1,797 grayscale images of 8 x 8 pixels with values 0 to 16: the test half of E. Alpaydin and C. Kaynak, "Optical
Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998, https://doi.org/10.24432/C50P49, licensed
CC BY 4.0, as `sklearn.datasets.load_digits` (BSD-3-Clause) ships it. digits.npz holds the same numbers as uint8.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from train.data import Data, stratified_split

SIZE = 32


class Digits:
    """Some of the digits, as RGB images of 32 x 32 pixels; `numbers` are their places in scikit-learn's order."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, numbers: np.ndarray):
        self.images, self.labels, self.numbers = images, labels, numbers

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        gray = Image.fromarray((self.images[index] * (255 / 16)).round().astype(np.uint8))
        return gray.resize((SIZE, SIZE), Image.Resampling.BICUBIC).convert("RGB"), int(self.labels[index])

    def name(self, index: int) -> str:
        return f"digit {self.numbers[index]}"


def load() -> Data:
    """All digits, a fifth of each held out; the split is always the same."""
    with np.load(Path(__file__).with_name("digits.npz")) as file:
        images, labels = file["images"], file["labels"]
    train, held_out = stratified_split(labels, 0.2, seed=0)
    return Data(
        *(Digits(images[part], labels[part], part) for part in (train, held_out)),
        classes=[str(digit) for digit in range(10)],
        image_size=SIZE,
        photographs=False,
    )
