"""Boxes on a grid for every level of a feature pyramid, from which detectors regress: torchvision's `anchor_utils`.

Both generators take the height and width of the canvas, padding included, and those of every level's map, and give for
each level an array (h · w · anchors per location, 4) of (x1, y1, x2, y2) in pixels, by rows, columns, then anchors.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxzoo.nn.ops.static import Static

Sizes = Sequence[tuple[int, int]]


def _per_level(values: Sequence, levels: int) -> tuple[tuple, ...]:
    """One list for every level, or a list for each."""
    each = values if isinstance(values[0], Sequence) else (values,) * levels
    return tuple(tuple(v) for v in each)


class AnchorGenerator(Static):
    """Anchors of several sizes and shapes around the upper left corner of every cell (Faster R-CNN §3.1.1).

    As torchvision's `AnchorGenerator`: sides are rounded to whole pixels (halves to even), centres are at multiples of
    the stride, without half a stride of offset, and the stride is canvas // map. So the padding of a canvas moves its
    anchors. FCOS takes one square per location, as large as the stride: `AnchorGenerator((8, 16, 32), (1.0,))`.

    >>> anchors, = AnchorGenerator(((8,),), (1.0,))((32, 32), [(2, 2)])
    >>> anchors
    Array([[-4., -4.,  4.,  4.],
           [12., -4., 20.,  4.],
           [-4., 12.,  4., 20.],
           [12., 12., 20., 20.]], dtype=float32)

    Args:
      sizes: square roots of areas in pixels, for each level a list; or one for each level.
      aspect_ratios: heights by widths, for each level a list; or one list for all.
    """

    def __init__(
        self,
        sizes: Sequence = ((128, 256, 512),),
        aspect_ratios: Sequence = ((0.5, 1.0, 2.0),),
    ):
        self.sizes = tuple(tuple(s) if isinstance(s, Sequence) else (s,) for s in sizes)
        self.aspect_ratios = _per_level(aspect_ratios, len(self.sizes))
        if len(self.sizes) != len(self.aspect_ratios):
            raise ValueError(f"{len(self.sizes)} levels of sizes and {len(self.aspect_ratios)} of aspect_ratios")

    def num_anchors_per_location(self) -> list[int]:
        """How many anchors a cell of each level has."""
        return [len(s) * len(a) for s, a in zip(self.sizes, self.aspect_ratios, strict=True)]

    def cell_anchors(self) -> list[np.ndarray]:
        """For each level those around (0, 0), by aspect ratio, then size."""
        cells = []
        for sizes, ratios in zip(self.sizes, self.aspect_ratios, strict=True):
            tall = np.sqrt(np.asarray(ratios, np.float32))[:, None]
            size = np.asarray(sizes, np.float32)
            w, h = (1 / tall * size).ravel(), (tall * size).ravel()
            cells.append(np.round(np.stack([-w, -h, w, h], 1) / 2))
        return cells

    def __call__(
        self, image_size: tuple[int, int], grid_sizes: Sizes, dtype: DTypeLike = jnp.float32
    ) -> tuple[jax.Array, ...]:
        """The anchors of each level, (h · w · anchors, 4), for a canvas of `image_size` (height, width)."""
        _check_levels(grid_sizes, self.sizes)
        exact = jnp.promote_types(dtype, jnp.float32)  # whole pixels of large images
        levels = []
        for (h, w), cell in zip(grid_sizes, self.cell_anchors(), strict=True):
            y, x = jnp.arange(h) * (image_size[0] // h), jnp.arange(w) * (image_size[1] // w)
            corner = jnp.stack(jnp.broadcast_arrays(x[None], y[:, None]) * 2, -1).astype(exact)
            levels.append((corner[:, :, None] + cell.astype(exact)).reshape(-1, 4).astype(dtype))
        return tuple(levels)


class DefaultBoxGenerator(Static):
    """SSD's default boxes (Liu et al. 2016, §2.2), as torchvision's `DefaultBoxGenerator`, quirks included.

    Centres and sides are computed in float32 whatever `dtype` is, and then cast.

    >>> boxes, = DefaultBoxGenerator([[2]])((300, 300), [(1, 1)])
    >>> boxes.round(0)[:2]
    Array([[128., 128., 172., 172.],
           [ 95.,  95., 205., 205.]], dtype=float32)

    Args:
      aspect_ratios: for each level, beside 1; each also stands for its inverse.
      min_ratio, max_ratio: the scale of the first and the last level, by the image's side, if no `scales` are given.
      scales: for each level, and one more.
      steps: distance of the centres of each level in pixels; by the size of its map unless given.
      clip: sides are at most those of the image.
    """

    def __init__(
        self,
        aspect_ratios: Sequence[Sequence[float]],
        min_ratio: float = 0.15,
        max_ratio: float = 0.9,
        scales: Sequence[float] | None = None,
        steps: Sequence[int] | None = None,
        clip: bool = True,
    ):
        levels = len(aspect_ratios)
        if steps is not None and len(steps) != levels:
            raise ValueError(f"{levels} levels of aspect_ratios and {len(steps)} of steps")
        if scales is None:
            scales = [min_ratio, max_ratio]
            if levels > 1:
                scales = [*(min_ratio + (max_ratio - min_ratio) * k / (levels - 1.0) for k in range(levels)), 1.0]
        if len(scales) <= levels:
            raise ValueError(f"{levels} levels need {levels + 1} scales, and {len(scales)} are given")
        self.aspect_ratios = tuple(tuple(ratios) for ratios in aspect_ratios)
        self.scales, self.steps, self.clip = tuple(scales), None if steps is None else tuple(steps), clip

    def num_anchors_per_location(self) -> list[int]:
        """How many boxes a cell of each level has."""
        return [2 + 2 * len(ratios) for ratios in self.aspect_ratios]

    def _sides(self, level: int) -> np.ndarray:
        """Widths and heights of a level's boxes by the image's, (boxes, 2)."""
        scale = self.scales[level]
        between = math.sqrt(scale * self.scales[level + 1])
        pairs = [(scale, scale), (between, between)]
        for ratio in self.aspect_ratios[level]:
            long, short = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
            pairs += [(long, short), (short, long)]
        sides = np.array(pairs, np.float32)
        return np.clip(sides, 0, 1) if self.clip else sides

    def __call__(
        self, image_size: tuple[int, int], grid_sizes: Sizes, dtype: DTypeLike = jnp.float32
    ) -> tuple[jax.Array, ...]:
        """The boxes of each level, (h · w · boxes, 4), for an image of `image_size` (height, width)."""
        _check_levels(grid_sizes, self.aspect_ratios)
        exact = np.promote_types(np.float32, jnp.promote_types(dtype, jnp.float32))
        levels = []
        for level, (h, w) in enumerate(grid_sizes):
            rows, columns = (h, w) if self.steps is None else (side / self.steps[level] for side in image_size)
            y = (np.arange(h, dtype=np.float32) + np.float32(0.5)) / np.float32(rows)
            x = (np.arange(w, dtype=np.float32) + np.float32(0.5)) / np.float32(columns)
            centre = np.stack(np.broadcast_arrays(x[None], y[:, None]), -1)[:, :, None].astype(exact)
            half = exact.type(0.5) * self._sides(level).astype(exact)
            whole = np.array(image_size[::-1], exact)
            corners = np.concatenate([(centre - half) * whole, (centre + half) * whole], -1)
            levels.append(jnp.asarray(corners.reshape(-1, 4), dtype))
        return tuple(levels)


def _check_levels(grid_sizes: Sizes, levels: Sequence) -> None:
    if len(grid_sizes) != len(levels):
        raise ValueError(f"anchors of {len(levels)} levels for {len(grid_sizes)} feature maps")
