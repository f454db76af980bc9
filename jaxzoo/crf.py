"""Fully connected CRF: draws the borders of a segmentation along those of the image.

Krähenbühl & Koltun 2011, Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials,
https://arxiv.org/abs/1210.5644. Reference: the authors' densecrf, which pydensecrf wraps.
"""

from functools import partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxzoo import permutohedral
from jaxzoo.errors import UsageError
from jaxzoo.permutohedral import Lattice

Method = Literal["auto", "exact", "lattice"]
SMALL = 96 * 96  # pixels, up to which `auto` is exact
LEAST = 1e-5  # probability; the reference's `unary_from_softmax` raises smaller ones to this
BLOCK = 128  # pixels whose kernel with all others is in memory at a time


def mean_field(
    probabilities: jax.typing.ArrayLike,
    image: jax.typing.ArrayLike,
    *,
    iterations: int = 10,
    bi_w: float = 4.0,
    bi_xy: float = 67.0,
    bi_rgb: float = 3.0,
    pos_w: float = 3.0,
    pos_xy: float = 1.0,
    compatibility: jax.typing.ArrayLike | None = None,
    method: Method = "auto",
) -> jax.Array:
    """Class probabilities (H, W, C) that follow the image, from a network's, by mean-field inference.

    Pixels that are near each other (`pos_*`), or both near and of like colour (`bi_*`), draw each other to the same
    class. Both kernels are normalised symmetrically, and a pixel's message to itself counts, as in the reference.
    The numbers that are the defaults are DeepLab V2's (Chen et al. 2016) as its PyTorch port has them.

    >>> labels = mean_field(jax.nn.softmax(logits), image).argmax(-1)

    Args:
      probabilities: (H, W, C), 0–1; those below 1e-5 count as 1e-5. Computed in their precision, float32 at least.
      image: (H, W, 3), RGB, 0–255.
      iterations: of the mean field; 0 leaves the probabilities as they are.
      bi_w: weight of the bilateral kernel.
      bi_xy: its standard deviation in pixels, and
      bi_rgb: in steps of 0–255 of colour.
      pos_w: weight of the kernel of positions alone.
      pos_xy: its standard deviation in pixels.
      compatibility: (C, C), the penalty for class i beside class j; 1 for each two that differ (Potts) unless given.
      method: of the bilateral kernel: "exact", in time quadratic in the number of pixels; "lattice", the reference's
        approximation in linear time (the permutohedral lattice); "auto" is exact up to 96 × 96 pixels.

    Raises:
      UsageError: shapes that do not fit, no probabilities, or impossible numbers.
    """
    p, picture = np.asarray(probabilities), np.asarray(image)
    _check(p, picture, iterations, method, weights=(bi_w, pos_w), deviations=(bi_xy, bi_rgb, pos_xy))
    dtype = jnp.result_type(p.dtype, jnp.float32)
    height, width, classes = p.shape
    mixing = None
    if compatibility is not None:
        mixing = jnp.asarray(compatibility, dtype)
        if mixing.shape != (classes, classes):
            raise UsageError(
                f"compatibility is of shape {mixing.shape}; for {classes} classes it is ({classes}, {classes})"
            )

    bilateral = places = None
    if bi_w:
        features = _features(picture, bi_xy, bi_rgb)
        lattice = method == "lattice" or (method == "auto" and len(features) > SMALL)
        bilateral = permutohedral.build(features, dtype) if lattice else jnp.asarray(features - features.mean(0), dtype)
    if pos_w:
        places = tuple(jnp.asarray(_gaussian(length, pos_xy), dtype) for length in (height, width))
    weights = jnp.asarray([bi_w, pos_w], dtype)
    return _inference(jnp.asarray(p, dtype), bilateral, places, weights, mixing, iterations)


def _check(p: np.ndarray, image: np.ndarray, iterations: int, method: str, weights: tuple, deviations: tuple) -> None:
    if p.ndim != 3 or 0 in p.shape:
        raise UsageError(f"probabilities are of shape {p.shape}; they must be (height, width, classes)")
    if image.shape != (*p.shape[:2], 3):
        raise UsageError(f"the image is of shape {image.shape}; for these probabilities it must be {(*p.shape[:2], 3)}")
    if not (np.isfinite(p).all() and p.min() >= 0 and p.max() <= 1 + 1e-3):
        raise UsageError("probabilities must lie between 0 and 1: take the softmax of logits first")
    if method not in get_args(Method):
        raise UsageError(f"method is {method!r}; it must be one of: {', '.join(get_args(Method))}")
    if iterations < 0 or min(weights) < 0 or not all(0 < s < float("inf") for s in deviations):
        raise UsageError("iterations and weights must be at least 0, and standard deviations above 0")


def _features(image: np.ndarray, xy: float, rgb: float) -> np.ndarray:
    """(H · W, 5): places and colours, each divided by its standard deviation."""
    y, x = np.indices(image.shape[:2], np.float64)
    return np.concatenate([np.stack([x, y], -1) / xy, np.asarray(image, np.float64) / rgb], -1).reshape(-1, 5)


def _gaussian(length: int, deviation: float) -> np.ndarray:
    """(length, length): the kernel along one axis; that of positions is the product of two of these."""
    distance = np.arange(length)[:, None] - np.arange(length)
    return np.exp(-((distance / deviation) ** 2) / 2)


@partial(jax.jit, static_argnames="iterations")
def _inference(
    p: jax.Array,
    bilateral: Lattice | jax.Array | None,
    places: tuple[jax.Array, jax.Array] | None,
    weights: jax.Array,
    mixing: jax.Array | None,
    iterations: int,
) -> jax.Array:
    """Algorithm 1 of the paper."""
    kernels = []
    if bilateral is not None:
        kernels.append((weights[0], _normalised(partial(_bilateral, bilateral), p)))
    if places is not None:
        kernels.append((weights[1], _normalised(partial(_positions, places), p)))
    likely = jnp.log(jnp.maximum(p, LEAST))

    def step(_: int, q: jax.Array) -> jax.Array:
        drawn = sum((weight * kernel(q) for weight, kernel in kernels), jnp.zeros_like(q))
        if mixing is not None:
            drawn = -jnp.einsum("hwc,dc->hwd", drawn, mixing, precision=lax.Precision.HIGHEST)
        return jax.nn.softmax(likely + drawn)  # Potts' penalty, but for a term that all classes share

    return lax.fori_loop(0, iterations, step, jax.nn.softmax(likely)) if iterations else p


def _normalised(kernel, p: jax.Array):
    """D^-1/2 K D^-1/2, where D is K's sum of each row."""
    norm = lax.rsqrt(kernel(jnp.ones_like(p[..., :1])) + 1e-20)
    return lambda q: norm * kernel(norm * q)


def _positions(places: tuple[jax.Array, jax.Array], q: jax.Array) -> jax.Array:
    rows, columns = places
    return jnp.einsum("yh,hwc,xw->yxc", rows, q, columns, precision=lax.Precision.HIGHEST, optimize="optimal")


def _bilateral(how: Lattice | jax.Array, q: jax.Array) -> jax.Array:
    values = q.reshape(-1, q.shape[-1])
    drawn = permutohedral.blurred(how, values) if isinstance(how, Lattice) else _exact(how, values)
    return drawn.reshape(q.shape)


def _exact(features: jax.Array, values: jax.Array) -> jax.Array:
    def drawn(one: jax.Array) -> jax.Array:
        # One feature at a time: XLA makes a single pass of this, and a sum of squares loses no digits.
        distance = sum((one[i] - features[:, i]) ** 2 for i in range(features.shape[1]))
        return jnp.matmul(jnp.exp(-distance / 2), values, precision=lax.Precision.HIGHEST)

    return lax.map(drawn, features, batch_size=BLOCK)
