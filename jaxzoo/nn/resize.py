"""Resizing feature maps as `torch.nn.functional.interpolate` does: no antialiasing, `align_corners` both ways."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxzoo.nn.precision import narrow, wide
from jaxzoo.nn.size import Size, per_axis

INTERPOLATION = "interpolation"  # the scope of its operations, which are not counted among a model's products


def _nearest_index(length: int, count: int, scale: float | None) -> np.ndarray:
    if count == 2 * length:  # so does torch, whatever the factor was
        return np.arange(count) // 2
    step = np.float32(1 / scale if scale else length / count)  # torch computes the index in float32
    return np.minimum(np.floor(np.arange(count, dtype=np.float32) * step).astype(int), length - 1)


def linear_weights(length: int, count: int, scale: float | None, align_corners: bool) -> np.ndarray:
    """(count, length): the share of every source element in every result."""
    if align_corners:
        source = np.arange(count) * ((length - 1) / (count - 1) if count > 1 else 0.0)
    else:
        source = np.maximum((np.arange(count) + 0.5) * (1 / scale if scale else length / count) - 0.5, 0)
    low = np.minimum(source.astype(int), length - 1)
    high = np.minimum(low + 1, length - 1)
    weights = np.zeros((count, length))
    np.add.at(weights, (np.arange(count), low), 1 - (source - low))
    np.add.at(weights, (np.arange(count), high), source - low)
    return weights


def _cubic_weights(length: int, count: int, scale: float | None, align_corners: bool) -> np.ndarray:
    """As `linear_weights`, by cubic convolution with A = -0.75 (Keys 1981), the border repeated."""
    if align_corners:
        source = np.arange(count) * ((length - 1) / (count - 1) if count > 1 else 0.0)
    else:
        source = (np.arange(count) + 0.5) * (1 / scale if scale else length / count) - 0.5
    first = np.floor(source).astype(int) - 1
    weights = np.zeros((count, length))
    for tap in range(4):
        away = np.abs(source - (first + tap))
        near = (1.25 * away - 2.25) * away**2 + 1
        far = ((-0.75 * away + 3.75) * away - 6) * away + 3
        np.add.at(weights, (np.arange(count), np.clip(first + tap, 0, length - 1)), np.where(away <= 1, near, far))
    return weights


_WEIGHTS = {"bilinear": linear_weights, "bicubic": _cubic_weights}


def resize(
    x: jax.Array,
    size: Size | None = None,
    scale_factor: float | tuple[float, ...] | None = None,
    mode: str = "nearest",
    align_corners: bool = False,
) -> jax.Array:
    """`torch.nn.functional.interpolate` on (N, H, W, C), modes "nearest", "bilinear" and "bicubic".

    Args:
      size: output height and width in pixels; or give
      scale_factor: output over input size; like torch, the sampling grid then follows the factor, not the rounded size.
    """
    if (size is None) == (scale_factor is None):
        raise ValueError("give either size or scale_factor")
    if mode not in ("nearest", *_WEIGHTS):
        raise ValueError(f"mode is {mode!r}; it must be nearest, bilinear or bicubic")
    n = x.ndim - 2
    if size is None:
        scales = (scale_factor,) * n if isinstance(scale_factor, int | float) else tuple(scale_factor)
        size = tuple(int(length * s) for length, s in zip(x.shape[1:-1], scales, strict=False))
        if len(scales) != n or min(size) < 1:
            raise ValueError(f"scale_factor {scale_factor} leaves nothing of {x.shape}; give one larger number or {n}")
    else:
        scales, size = (None,) * n, per_axis(size, n)
    given, x = x, x if mode == "nearest" else wide(x)
    with jax.named_scope(INTERPOLATION):
        for axis, (count, scale) in enumerate(zip(size, scales, strict=True), start=1):
            length = x.shape[axis]
            if count == length:  # torch copies, also where scale_factor says otherwise
                continue
            if mode == "nearest":
                x = jnp.take(x, _nearest_index(length, count, scale), axis)
            else:
                weights = jnp.asarray(_WEIGHTS[mode](length, count, scale, align_corners), x.dtype)
                x = jnp.moveaxis(jnp.tensordot(x, weights, (axis, 1), precision=lax.Precision.HIGHEST), -1, axis)
    return x if mode == "nearest" else narrow(x, given)


def resized_array(x: np.ndarray, size: tuple[int, int], mode: str, align_corners: bool) -> np.ndarray:
    """`resize` of a NumPy array (N, H, W, C) without JAX, so in its own precision: tables in weights."""
    rows, columns = (_WEIGHTS[mode](old, new, None, align_corners) for old, new in zip(x.shape[1:3], size, strict=True))
    return np.einsum("ih,jw,nhwc->nijc", rows, columns, x.astype(np.float64), optimize=True).astype(x.dtype)
