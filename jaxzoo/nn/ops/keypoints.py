"""Keypoints between an image and the heatmaps that Keypoint R-CNN predicts: torchvision's roi_heads."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxzoo.nn.ops.boxes import as_float
from jaxzoo.nn.precision import wide


def keypoints_to_heatmap(keypoints: jax.Array, rois: jax.Array, heatmap_size: int) -> tuple[jax.Array, jax.Array]:
    """Where keypoints are in the heatmaps of regions, which is what is learned: torchvision's function of this name.

    Args:
      keypoints: (K, N, 3) as (x, y, visibility) in pixels; what is not above 0 is not visible.
      rois: (K, 4), the region of each.
      heatmap_size: side of the heatmap, 56 in Keypoint R-CNN.

    Returns:
      y · heatmap_size + x (K, N) int32, 0 where it does not count, and a mask (K, N) of those that do: visible and
      inside; the far edges of a region belong to the last cell.
    """
    low, high = rois[:, None, :2], rois[:, None, 2:]
    place = keypoints[..., :2]
    cell = jnp.floor((place - low) * (heatmap_size / (high - low)))
    cell = jnp.where(place == high, heatmap_size - 1, cell)
    valid = ((cell >= 0) & (cell < heatmap_size)).all(-1) & (keypoints[..., 2] > 0)
    x, y = jnp.moveaxis(jnp.where(valid[..., None], cell, 0).astype(jnp.int32), -1, 0)
    return y * heatmap_size + x, valid


def heatmaps_to_keypoints(maps: jax.Array, rois: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The places where heatmaps, resized to their regions, are highest: torchvision's function of this name.

    A map is resized by cubic interpolation to its region's sides, rounded up. Of equal maxima the first, by rows,
    counts.

    Args:
      maps: (K, H, W, N), channels last.
      rois: (K, 4) in pixels.

    Returns:
      Keypoints (K, N, 3) as (x, y, 1) and the height of the map there (K, N), in float32 at least.
    """
    maps, rois = wide(maps), as_float(rois)

    def one(given: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        heatmap, roi = given
        sides = jnp.maximum(roi[2:] - roi[:2], 1)[::-1]  # height, width
        rows, columns = counts = jnp.ceil(sides)
        across_all = jnp.ceil(columns / _BLOCK).astype(jnp.int32)
        blocks = jnp.ceil(rows / _BLOCK).astype(jnp.int32) * across_all

        def look_at_block(number: jax.Array, best: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            y, x = (i * _BLOCK + lax.iota(jnp.int32, _BLOCK) for i in jnp.divmod(number, across_all))
            down, across = (
                _cubic_weights(length, pixels, count)
                for length, pixels, count in zip(heatmap.shape, (y, x), counts, strict=False)
            )
            resized = jnp.einsum("ih,hwn,jw->nij", down, heatmap, across, precision=lax.Precision.HIGHEST)
            inside = (y[:, None] < rows) & (x < columns)
            flat = jnp.where(inside, resized, -jnp.inf).reshape(len(resized), -1)
            highest = flat.argmax(1)
            found = flat.max(1), (y[:, None] * columns.astype(jnp.int32) + x).ravel()[highest]
            better = (found[0] > best[0]) | (found[0] == best[0]) & (found[1] < best[1])
            return tuple(jnp.where(better, f, b) for f, b in zip(found, best, strict=True))

        points = heatmap.shape[-1]
        start = jnp.full(points, -jnp.inf, heatmap.dtype), jnp.zeros(points, jnp.int32)
        score, place = lax.fori_loop(0, blocks, look_at_block, start)
        y, x = (
            (i + 0.5) * (s / c)
            for i, s, c in zip(jnp.divmod(place, columns.astype(jnp.int32)), sides, counts, strict=True)
        )
        return jnp.stack([x + roi[0], y + roi[1], jnp.ones_like(x)], -1), score

    return lax.map(one, (maps, rois))


_BLOCK = 128  # pixels, the side of the squares that a region is looked at in, whatever its size


def _cubic_weights(length: int, pixel: jax.Array, count: jax.Array) -> jax.Array:
    """(P, length): the share of every cell in pixels (P,), where the cells are resized to `count` pixels.

    Cubic convolution with A = -0.75 (Keys 1981), the border repeated, as `jaxzoo.nn.resize` has it, for a size that is
    known in the program only.
    """
    source = (pixel.astype(count.dtype) + 0.5) * (length / count) - 0.5
    first = jnp.floor(source) - 1
    weights = jnp.zeros((len(pixel), length), count.dtype)
    for tap in range(4):
        away = jnp.abs(source - (first + tap))
        near = (1.25 * away - 2.25) * away**2 + 1
        far = ((-0.75 * away + 3.75) * away - 6) * away + 3
        cell = jnp.clip(first + tap, 0, length - 1).astype(jnp.int32)
        weights = weights.at[jnp.arange(len(pixel)), cell].add(jnp.where(away <= 1, near, far))
    return weights
