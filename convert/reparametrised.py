"""Weights that torch keeps in pieces and computes anew: normalised ones, and pruned ones.

`torch.nn.utils.weight_norm`, `spectral_norm` and `prune`, and the first two of `torch.nn.utils.parametrizations`.
"""

from collections.abc import Callable, Mapping

import numpy as np

Tensors = Mapping[str, np.ndarray]


def _weight_norm(length: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """g·v/‖v‖, the norm over those axes along which g has one value."""
    axes = tuple(axis for axis in range(direction.ndim) if length.ndim == 0 or length.shape[axis] == 1)
    return length * direction / np.sqrt(np.square(direction).sum(axes, keepdims=length.ndim > 0))


def _spectral_norm(weight: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """W/(u·Wv), of the matrix whose rows are one axis: the first, or of a transposed convolution the second.

    u is the direction of Wv as it was before the last step, which tells the axis.
    """

    def matrix(axis: int) -> np.ndarray:
        return np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)

    axes = [axis for axis in range(min(weight.ndim, 2)) if matrix(axis).shape == (left.size, right.size)]
    products = [matrix(axis) @ right for axis in axes]
    product = max(products, key=lambda product: abs(left @ product) / np.linalg.norm(product))
    return weight / (left @ product)


# By the ends of the names of the pieces, of which the first begins with the name of the weight.
_KINDS: dict[tuple[str, ...], Callable[..., np.ndarray]] = {
    ("{}_orig", "{}_mask"): np.multiply,
    ("{}_g", "{}_v"): _weight_norm,
    ("{}_orig", "{}_u", "{}_v"): _spectral_norm,
    ("parametrizations.{}.original0", "parametrizations.{}.original1"): _weight_norm,
    ("parametrizations.{}.original", "parametrizations.{}.0._u", "parametrizations.{}.0._v"): _spectral_norm,
}


def computed(tensors: Tensors) -> dict[str, np.ndarray]:
    """The tensors, with those that torch computes from others in the place of these."""
    found = dict(tensors)
    for templates, compute in _KINDS.items():
        begin, end = templates[-1].split("{}")
        for name in [name for name in found if name.endswith(end)]:
            path, _, leaf = name.removesuffix(end).rpartition(".")
            if begin and not path.endswith(begin.rstrip(".")):
                continue
            path = path.removesuffix(begin.rstrip("."))
            prefix = path if not path or path.endswith(".") else f"{path}."
            pieces = [prefix + template.format(leaf) for template in templates]
            if all(piece in found for piece in pieces) and prefix + leaf not in found:
                arrays = [found[piece] for piece in pieces]
                wide = np.result_type(arrays[0].dtype, np.float32)
                weight = compute(*(array.astype(wide) for array in arrays)).astype(arrays[0].dtype)
                items = [(prefix + leaf, weight) if key == pieces[0] else (key, a) for key, a in found.items()]
                found = {key: array for key, array in items if key not in pieces}
    return found
