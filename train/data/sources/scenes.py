"""`scenes`: pictures to segment or to find digits in, made of the real ones in digits.npz, which come with jaxzoo.

Every scene shows a few digits as stickers on a blotched and noisy ground: each cut out with a margin, at its own size,
angle and colours, the later ones over parts of the earlier. A sticker's pixels, margin and holes included, are of its
digit's class; its box is that of the pixels to be seen. Training scenes have digits of `digits`' training part only,
held-out scenes those that it holds out.
"""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from train.data import Data
from train.data.sources import digits

TRAINING, HELD_OUT = 2400, 150
CLASSES = ["background", *map(str, range(10))]
PLACES = 60  # tries to find one
KEPT = 7200  # scenes that are drawn once, of 64 kB each


@dataclasses.dataclass(frozen=True)
class Kind:
    """How scenes look: the side of one in pixels, how many digits it has, at least and at most, how high a digit is, in
    parts of the scene's side, the part of a sticker that others may cover, by how many degrees it is turned either way
    (beyond 15, 6 and 9 would be hard to tell apart), and the least difference of luminance between digit and margin."""

    side: int = 128
    stickers: tuple[int, int] = (2, 3)
    sides: tuple[float, float] = (0.45, 0.7)
    hidden: float = 0.25
    tilt: float = 15.0
    contrast: float = 90.0


class Scene(NamedTuple):
    """Pixels (S, S, 3) uint8; whose sticker shows (S, S), -1 where none; each sticker's digit (M,); and the highest,
    rightmost, lowest and leftmost place of its ink (M, 4, 2), as (x, y)."""

    pixels: np.ndarray
    owner: np.ndarray
    digits: np.ndarray
    ends: np.ndarray


class Scenes:
    """Scenes of some digits; each is a function of (`seed`, index) alone."""

    def __init__(self, source: digits.Digits, count: int, seed: int, title: str, kind: Kind = Kind()):
        self.images, self.labels, self.count, self.seed, self.title = source.images, source.labels, count, seed, title
        self.kind = kind
        self.scene = functools.lru_cache(maxsize=KEPT)(self._scene)
        self.filled = functools.cache(lambda chosen: _filled(self.images[chosen]))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Image.Image, np.ndarray]:
        if not 0 <= index < self.count:
            raise IndexError(index)
        scene = self.scene(index)
        classes = np.append(scene.digits + 1, 0).astype(np.uint8)  # the last is where none is
        return Image.fromarray(scene.pixels), classes[scene.owner]

    def name(self, index: int) -> str:
        return f"{self.title} {index}"

    def size(self, index: int) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.kind.side, self.kind.side

    def _scene(self, index: int) -> Scene:
        rng, side = np.random.default_rng((self.seed, index)), self.kind.side
        canvas, owner = ground(rng, side), np.full((side, side), -1, np.int8)
        areas, seen, found, ends = [], np.zeros(0, int), [], []
        for number in range(rng.integers(self.kind.stickers[0], self.kind.stickers[1] + 1)):
            chosen = int(rng.integers(len(self.labels)))
            colors, ink, inside = sticker(self.images[chosen], self.filled(chosen), rng, self.kind)
            for _ in range(PLACES):
                down, across = (int(rng.integers(0, side - length + 1)) for length in inside.shape)
                place = (slice(down, down + inside.shape[0]), slice(across, across + inside.shape[1]))
                covered = np.bincount(owner[place][inside] + 1, minlength=number + 1)[1:]
                if all(seen - covered >= (1 - self.kind.hidden) * np.array(areas)):
                    break
            else:
                break
            owner[place][inside] = number
            areas.append(inside.sum())
            seen = np.append(seen - covered, areas[-1])
            drawn = colors[0] + ink[..., None] * (colors[1] - colors[0])
            canvas[place][inside] = drawn[inside]
            found.append(self.labels[chosen])
            ends.append(ends_of(ink * inside) + np.array([across, down]))
        grain = rng.normal(0, rng.uniform(4, 12), canvas.shape)
        return Scene(np.clip(canvas + grain, 0, 255).astype(np.uint8), owner, np.array(found), np.array(ends))


def load(place: str = "", *, val_fraction: float = 0.2, seed: int = 0) -> Data:
    """2,400 scenes to train on and 150 held out, always the same ones."""
    source = digits.load()
    return Data(
        Scenes(source.train, TRAINING, 1, "scene"),
        Scenes(source.held_out, HELD_OUT, 2, "held-out scene"),
        classes=list(CLASSES),
        image_size=Kind.side,
        photographs=False,
    )


def ground(rng: np.random.Generator, side: int) -> np.ndarray:
    """A blotched background of pale colours, float64 (side, side, 3) of 0 to 255."""
    shade = rng.uniform(60, 195) + rng.normal(0, 12, 3)
    blotches = rng.normal(0, 20, (8, 8, 1)) + rng.normal(0, 8, (8, 8, 3))
    blotches = Image.fromarray(np.clip(shade + blotches, 0, 255).astype(np.uint8))
    return np.asarray(blotches.resize((side, side), Image.Resampling.BICUBIC), np.float64)


def sticker(
    digit: np.ndarray, filled: np.ndarray, rng: np.random.Generator, kind: Kind
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A digit (8, 8) of 0 to 16, with the holes of its loops filled too, cut out.

    Returns:
      Colours of margin and digit (2, 3), 0 to 255; how much of a pixel is ink (h, w), 0 to 1; which belong to the
      sticker (h, w).
    """
    side = round(kind.side * rng.uniform(*kind.sides))
    tilt = rng.uniform(-kind.tilt, kind.tilt)
    line, whole = (_enlarged(values, side, tilt) for values in (digit, filled))
    blurred = Image.fromarray((255 * (whole > 0.35)).astype(np.uint8)).filter(ImageFilter.GaussianBlur(side / 12))
    inside = np.asarray(blurred) > 48
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    ink = np.clip((line - 0.3) / 0.3, 0, 1)
    return _colors(rng, kind.contrast), ink[box][: kind.side, : kind.side], inside[box][: kind.side, : kind.side]


def ends_of(ink: np.ndarray) -> np.ndarray:
    """The highest, rightmost, lowest and leftmost place of what is more than half ink, in the middle of the pixels that
    are as far out, as (x, y): (4, 2)."""
    y, x = np.nonzero(ink > 0.5)
    far = [y == y.min(), x == x.max(), y == y.max(), x == x.min()]
    return np.array([[x[at].mean() + 0.5, y[at].mean() + 0.5] for at in far])


def _colors(rng: np.random.Generator, contrast: float) -> np.ndarray:
    """A light colour, and a dark one that can be read on it."""
    while True:
        colors = rng.uniform(0, 255, (2, 3))
        light, dark = colors @ [0.299, 0.587, 0.114]
        if light - dark > contrast:
            return colors


def _enlarged(values: np.ndarray, side: int, tilt: float) -> np.ndarray:
    """(8, 8) of 0 to 16 as (2 side, 2 side) of 0 to 1, the digit `side` pixels high in the middle, turned."""
    image = Image.fromarray(np.pad(values.astype(np.float32) / 16, 4))
    image = image.resize((2 * side, 2 * side), Image.Resampling.BICUBIC)
    return np.asarray(image.rotate(tilt, Image.Resampling.BICUBIC))


def _filled(digit: np.ndarray) -> np.ndarray:
    """The digit with the holes of its loops filled: all that no path outside its strokes reaches."""
    free = np.pad(digit < 5, 1, constant_values=True)
    outside = np.zeros_like(free)
    outside[0] = True
    while True:
        grown = outside.copy()
        for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
            grown |= np.roll(outside, step, axis)
        grown &= free
        if (grown == outside).all():
            return np.where(outside[1:-1, 1:-1], digit, 16)
        outside = grown
