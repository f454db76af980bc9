"""Features of regions of interest: RoIAlign and RoIPool over one map and over the levels of a pyramid.

Maps are (N, H, W, C); regions are (K, 5) as (index of the image, x1, y1, x2, y2), or (N, L, 4) for L regions of every
image, which give (N, L, height, width, C). Features are pooled in float32 at least and returned in their own dtype.
Gradients flow to the features alone, as in torchvision.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxzoo.nn.ops.boxes import as_float, box_area
from jaxzoo.nn.ops.static import Static
from jaxzoo.nn.precision import narrow, wide
from jaxzoo.nn.size import Size, per_axis


def roi_align(
    features: jax.Array,
    boxes: jax.Array,
    output_size: Size,
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
    max_sampling: Size | None = None,
) -> jax.Array:
    """`torchvision.ops.roi_align` (He et al. 2017, §3): means of points in each of the cells that divide a region.

    Points between pixels are interpolated; those more than a pixel outside the map are zero.

    >>> ramp = jnp.broadcast_to(jnp.arange(8.0)[None, None, :, None], (1, 8, 8, 1))
    >>> roi_align(ramp, jnp.array([[[2.0, 2.0, 6.0, 6.0]]]), 2, sampling_ratio=2)[0, 0, ..., 0]
    Array([[3., 5.],
           [3., 5.]], dtype=float32)

    Args:
      features: (N, H, W, C).
      boxes: (K, 5) or (N, L, 4) in pixels of the image.
      output_size: cells along both axes.
      spatial_scale: size of the map by that of the image.
      sampling_ratio: points of a cell along each axis; below 1 as many as a cell has pixels, rounded up.
      aligned: moves regions by half a pixel, to where pixels' centres are; else a region is one pixel large at least.
      max_sampling: the most points of a cell for which an adaptive program is made; larger regions take so many. The
        default, the map's size by `output_size`, rounded up, is enough for regions that are no larger than the map.

    Returns:
      (K, height, width, C) or (N, L, height, width, C).
    """
    pool = _Align(per_axis(output_size, 2, "output_size"), sampling_ratio, aligned, max_sampling)
    return _by_rows(boxes, lambda rois: pool([features], rois, [spatial_scale], jnp.zeros(rois.shape[0], jnp.int32)))


def roi_pool(features: jax.Array, boxes: jax.Array, output_size: Size, spatial_scale: float = 1.0) -> jax.Array:
    """`torchvision.ops.roi_pool` (Girshick 2015, §2.1): maxima of the pixels in each of the cells that divide a region.

    Arguments and result as of `roi_align`. Corners are rounded to whole pixels, halves away from zero; cells overlap
    where they do not divide evenly, and are zero where they have no pixel. Of equal maxima the first, by rows, takes
    the gradient.
    """
    rows, columns = per_axis(output_size, 2, "output_size")
    _, height, width, _ = features.shape

    def cells(low: jax.Array, high: jax.Array, count: int, length: int) -> jax.Array:
        """Which pixels of an axis are in which cell, (count, length)."""
        low, high = (jnp.trunc(x + jnp.copysign(0.5, x)) for x in (low, high))
        size, i = _divided(jnp.maximum(high - low + 1, 1), count), jnp.arange(count, dtype=low.dtype)
        first, last = (jnp.clip(edge + low, 0, length) for edge in (jnp.floor(i * size), jnp.ceil((i + 1) * size)))
        pixel = jnp.arange(length, dtype=low.dtype)
        return (pixel >= first[:, None]) & (pixel < last[:, None])

    def one(roi: jax.Array) -> jax.Array:
        image = features[roi[0].astype(jnp.int32)]
        box = roi[1:] * spatial_scale
        across, down = cells(box[0], box[2], columns, width), cells(box[1], box[3], rows, height)
        each_row = jnp.where(across[:, None, :, None], image, -jnp.inf)  # (columns, H, W, C)
        x = each_row.argmax(2)
        best = jnp.take_along_axis(each_row, x[:, :, None], 2)[:, :, 0]  # (columns, H, C)
        cell = jnp.where(down[:, None, :, None], best, -jnp.inf)  # (rows, columns, H, C)
        value = jnp.take_along_axis(cell, cell.argmax(2)[:, :, None], 2)[:, :, 0]
        return jnp.where((down.any(1)[:, None] & across.any(1))[..., None], value, 0)

    return _by_rows(boxes, lambda rois: lax.map(one, rois))


def _divided(length: jax.Array, count: int) -> jax.Array:
    """A quotient that is rounded up or down next: XLA would multiply by 1 / count, and miss whole numbers by a bit."""
    return length / lax.optimization_barrier(jnp.asarray(count, length.dtype))


def _by_rows(boxes: jax.Array, pool: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Pools regions of either form as rows (K, 5)."""
    boxes = lax.stop_gradient(as_float(boxes))
    if boxes.ndim == 2 and boxes.shape[1] == 5:
        return pool(boxes)
    if boxes.ndim != 3 or boxes.shape[2] != 4:
        raise ValueError(f"boxes are {boxes.shape}; they must be (K, 5), the image first, or (N, L, 4)")
    images = jnp.broadcast_to(jnp.arange(boxes.shape[0], dtype=boxes.dtype)[:, None, None], (*boxes.shape[:2], 1))
    pooled = pool(jnp.concatenate([images, boxes], 2).reshape(-1, 5))
    return pooled.reshape(*boxes.shape[:2], *pooled.shape[1:])


class _Align(Static):
    """RoIAlign of regions (K, 5), each in the map of its level."""

    def __init__(self, output_size: tuple[int, int], sampling_ratio: int, aligned: bool, max_sampling: Size | None):
        self.output_size, self.sampling_ratio, self.aligned = output_size, sampling_ratio, aligned
        self.max_sampling = None if max_sampling is None else per_axis(max_sampling, 2, "max_sampling")

    def __call__(
        self, maps: Sequence[jax.Array], rois: jax.Array, scales: Sequence[float], levels: jax.Array
    ) -> jax.Array:
        given, maps = maps[0], [wide(m) for m in maps]
        if rois.shape[0] == 0 or any(0 in m.shape for m in maps):
            return jnp.zeros((rois.shape[0], *self.output_size, given.shape[-1]), given.dtype)
        pool = self._read if self.sampling_ratio > 0 else self._weighted
        return narrow(pool(maps, rois.astype(maps[0].dtype), scales, levels), given)

    def _read(self, maps: list[jax.Array], rois: jax.Array, scales: Sequence[float], levels: jax.Array) -> jax.Array:
        """A fixed number of points: on a CPU from windows, and derivatives and other platforms from a table."""

        @jax.custom_jvp
        def read(maps: list[jax.Array], rois: jax.Array, levels: jax.Array) -> jax.Array:
            return lax.platform_dependent(
                maps,
                rois,
                levels,
                cpu=lambda maps, rois, levels: self._windows(maps, rois, scales, levels),
                default=lambda maps, rois, levels: self._gathered(maps, rois, scales, levels),
            )

        @read.defjvp
        def slope(values, slopes):  # the result is linear in the maps; one scatter sums the gradients of many regions
            _, rois, levels = values
            return read(*values), self._gathered(slopes[0], rois, scales, levels)

        return read(maps, rois, levels)

    def _windows(self, maps: list[jax.Array], rois: jax.Array, scales: Sequence[float], levels: jax.Array) -> jax.Array:
        """By products with a window of the map, which a CPU copies and multiplies faster than it gathers pixels.

        Regions are that small on their own level, unless they are long or at the ends of the pyramid: these gather.
        1,000 regions of 7 × 7 × 256 from five levels take 0.3 s, gathered 1 to 2, in torchvision 0.5 (two cores).
        """

        def of_level(m: jax.Array, scale: float) -> Callable[[jax.Array], jax.Array]:
            _, height, width, channels = m.shape
            rows, columns = min(_WINDOW, height), min(_WINDOW, width)

            def one(roi: jax.Array) -> jax.Array:
                image = roi[0].astype(jnp.int32)
                x1, y1, x2, y2 = roi[1:] * scale
                y, down = self._taps(*self._points(y1, y2, 0, self.sampling_ratio), height)
                x, across = self._taps(*self._points(x1, x2, 1, self.sampling_ratio), width)
                top, left = jnp.minimum(y.min(), height - rows), jnp.minimum(x.min(), width - columns)

                def near() -> jax.Array:
                    window = lax.dynamic_slice(m, (image, top, left, np.int32(0)), (1, rows, columns, channels))[0]
                    shares = [
                        (((taps - first)[:, :, None] == jnp.arange(count)) * weights[:, :, None]).sum(1)
                        for taps, first, count, weights in ((y, top, rows, down), (x, left, columns, across))
                    ]
                    return _products(shares[0], window, shares[1])

                def far() -> jax.Array:
                    return _weighted_sum(m[image, y[:, :, None, None], x], down, across)

                return lax.cond((y.max() < top + rows) & (x.max() < left + columns), near, far)

            return one

        ways = [of_level(m, scale) for m, scale in zip(maps, scales, strict=True)]
        return lax.map(lambda given: lax.switch(given[1], ways, given[0]), (rois, levels))

    def _points(self, low: jax.Array, high: jax.Array, axis: int, most: int) -> tuple[jax.Array, jax.Array]:
        """Along one axis where a region's points are, and how much each counts, (cells, points) both."""
        cells = self.output_size[axis]
        if self.aligned:
            low, high = low - 0.5, high - 0.5
        length = high - low if self.aligned else jnp.maximum(high - low, 1)
        size, point = _divided(length, cells), jnp.arange(most, dtype=low.dtype)
        points = jnp.full_like(size, most) if self.sampling_ratio > 0 else jnp.clip(jnp.ceil(size), 0, most)
        step = size / jnp.maximum(points, 1)
        place = low + jnp.arange(cells, dtype=low.dtype)[:, None] * size + (point + 0.5) * step
        return place, jnp.broadcast_to(jnp.where(point < points, 1 / jnp.maximum(points, 1), 0), place.shape)

    def _taps(self, place: jax.Array, weight: jax.Array, length: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Pixels below and above the points of `_points`, and their weights, (cells, 2 · points) both."""
        weight = jnp.where((place < -1) | (place > length), 0, weight)
        place = jnp.clip(place, 0, length - 1)
        below = jnp.floor(place)
        above, share = jnp.minimum(below + 1, length - 1), place - below
        pixels = jnp.concatenate([below, above], 1).astype(jnp.int32)
        return pixels, jnp.concatenate([weight * (1 - share), weight * share], 1)

    def _gathered(
        self, maps: list[jax.Array], rois: jax.Array, scales: Sequence[float], levels: jax.Array
    ) -> jax.Array:
        """From one table of all levels' pixels: a fixed number of points reads few of them."""
        images, *_, channels = maps[0].shape
        table = jnp.concatenate([m.reshape(images, -1, channels) for m in maps], 1).reshape(-1, channels)
        starts = np.cumsum([0, *(m.shape[1] * m.shape[2] for m in maps)])
        heights, widths, first = (
            np.array(x, np.int32) for x in ([m.shape[1] for m in maps], [m.shape[2] for m in maps], starts[:-1])
        )
        scale = jnp.asarray(scales, rois.dtype)

        def one(given: tuple[jax.Array, jax.Array]) -> jax.Array:
            roi, level = given
            height, width = jnp.asarray(heights)[level], jnp.asarray(widths)[level]
            x1, y1, x2, y2 = roi[1:] * scale[level]
            y, down = self._taps(*self._points(y1, y2, 0, self.sampling_ratio), height)
            x, across = self._taps(*self._points(x1, x2, 1, self.sampling_ratio), width)
            image = jnp.asarray(first)[level] + roi[0].astype(jnp.int32) * starts[-1].astype(np.int32)
            pixels = table.at[(image + y * width)[:, :, None, None] + x].get(
                mode="clip"
            )  # (rows, taps, columns, taps, C)
            return _weighted_sum(pixels, down, across)

        if not isinstance(rois.shape[0], int):  # in an exported program for any batch
            return jax.vmap(one)((rois, levels))
        return lax.map(one, (rois, levels), batch_size=_AT_ONCE)

    def _weighted(
        self, maps: list[jax.Array], rois: jax.Array, scales: Sequence[float], levels: jax.Array
    ) -> jax.Array:
        """By the weight of every row and every column in every cell: any number of points costs the same."""

        def of_level(m: jax.Array, scale: float) -> Callable[[jax.Array], jax.Array]:
            _, height, width, _ = m.shape

            def one(roi: jax.Array) -> jax.Array:
                x1, y1, x2, y2 = roi[1:] * scale
                down, across = self._shares(y1, y2, 0, height), self._shares(x1, x2, 1, width)
                return _products(down, m[roi[0].astype(jnp.int32)], across)

            return one

        ways = [of_level(m, scale) for m, scale in zip(maps, scales, strict=True)]
        return lax.map(lambda given: lax.switch(given[1], ways, given[0]), (rois, levels))

    def _shares(self, low: jax.Array, high: jax.Array, axis: int, length: int) -> jax.Array:
        """The weight of every pixel of an axis in every cell of a region, (cells, length)."""
        most = -(-length // self.output_size[axis]) if self.max_sampling is None else self.max_sampling[axis]
        pixels, weights = self._taps(*self._points(low, high, axis, most), length)
        cell = jnp.arange(len(pixels))[:, None]
        return jnp.zeros((len(pixels), length), weights.dtype).at[cell, pixels].add(weights)


def _products(down: jax.Array, window: jax.Array, across: jax.Array) -> jax.Array:
    """(rows, h) and (columns, w) shares of a window (h, w, C): (rows, columns, C)."""
    by_row = jnp.matmul(down, window.reshape(len(window), -1), precision=lax.Precision.HIGHEST)
    by_row = by_row.reshape(len(down), *window.shape[1:])
    return jnp.einsum("jw,iwc->ijc", across, by_row, precision=lax.Precision.HIGHEST)


def _weighted_sum(pixels: jax.Array, down: jax.Array, across: jax.Array) -> jax.Array:
    """Pixels (rows, taps, columns, taps, C) by the weights of their taps: (rows, columns, C)."""
    return (across[:, :, None] * (down[:, :, None, None, None] * pixels).sum(1)).sum(2)


_AT_ONCE = 64  # regions that are gathered together: 51 MB for 7 × 7 cells of four points with 256 channels
_WINDOW = 32  # pixels, at which a CPU's products take as long as its copies


def roi_levels(
    boxes: jax.Array, k_min: int, k_max: int, canonical_scale: int = 224, canonical_level: int = 4
) -> jax.Array:
    """Which level of a pyramid regions (..., 4) are pooled from, counted from `k_min` (Lin et al. 2017, equation 1).

    floor(canonical_level + log2(√area / canonical_scale) + 1e-6), from `k_min` to `k_max`: torchvision's `LevelMapper`.

    >>> roi_levels(jnp.array([[0.0, 0.0, 224.0, 224.0], [0.0, 0.0, 50.0, 50.0]]), 2, 5)
    Array([2, 0], dtype=int32)
    """
    size = jnp.sqrt(box_area(as_float(boxes)))
    level = jnp.floor(canonical_level + jnp.log2(size / canonical_scale) + jnp.asarray(1e-6, size.dtype))
    return jnp.clip(level, k_min, k_max).astype(jnp.int32) - k_min


def infer_scales(heights: Sequence[int], image_height: int) -> list[float]:
    """The scales of maps of some heights, as powers of two, as torchvision's `MultiScaleRoIAlign` finds them.

    torchvision takes the height of the largest image before padding and keeps what the first batch gave: a map of 16
    rows is 1/2 for an image of 40 rows that was padded to 64, not 1/4. Pass scales where that is not meant.

    >>> infer_scales([16, 8], 64), infer_scales([16], 40)
    ([0.25, 0.125], [0.5])
    """
    return [float(2.0 ** np.round(np.log2(np.float32(height / image_height)))) for height in heights]


class MultiScaleRoIAlign(Static):
    """RoIAlign from the level of a pyramid that fits each region's size: torchvision's `MultiScaleRoIAlign`.

    >>> maps = {"0": jnp.ones((1, 16, 16, 8)), "1": jnp.ones((1, 8, 8, 8))}
    >>> pool = MultiScaleRoIAlign(["0", "1"], 7, 2, scales=[1 / 4, 1 / 8])
    >>> pool(maps, jnp.array([[[0.0, 0.0, 40.0, 40.0], [8.0, 8.0, 16.0, 24.0]]])).shape
    (1, 2, 7, 7, 8)

    Args:
      featmap_names: the levels, finest first; other maps are left out.
      output_size, sampling_ratio: as of `roi_align`.
      canonical_scale, canonical_level: as of `roi_levels`.
      scales: size of each map by that of the image.
    """

    def __init__(
        self,
        featmap_names: Sequence[str],
        output_size: Size,
        sampling_ratio: int,
        *,
        canonical_scale: int = 224,
        canonical_level: int = 4,
        scales: Sequence[float] | None = None,
    ):
        self.featmap_names, self.scales = tuple(featmap_names), None if scales is None else tuple(scales)
        self.canonical_scale, self.canonical_level = canonical_scale, canonical_level
        self.output_size = per_axis(output_size, 2, "output_size")
        self.align = _Align(self.output_size, sampling_ratio, False, None)

    def __call__(
        self, features: Mapping[str, jax.Array], boxes: jax.Array, image_height: int | None = None
    ) -> jax.Array:
        """Regions (K, 5) or (N, L, 4) of maps (N, h, w, C) as (K, height, width, C) or (N, L, height, width, C).

        Args:
          image_height: of the largest image of the batch, from which scales are inferred that were not given.
        """
        maps = [features[name] for name in self.featmap_names if name in features]
        if self.scales is None and image_height is None:
            raise ValueError("MultiScaleRoIAlign needs scales, or the height of the largest image to infer them from")
        scales = self.scales or infer_scales([m.shape[1] for m in maps], image_height)
        if len(scales) != len(maps):
            raise ValueError(f"{len(scales)} scales for {len(maps)} of the feature maps {', '.join(features)}")
        ends = [int(-np.log2(np.float32(scale))) for scale in (scales[0], scales[-1])]

        def pool(rois: jax.Array) -> jax.Array:
            levels = jnp.zeros(rois.shape[0], jnp.int32)
            if len(maps) > 1:
                levels = roi_levels(rois[:, 1:], *ends, self.canonical_scale, self.canonical_level)
            return self.align(maps, rois, scales, levels)

        return _by_rows(boxes, pool)
