"""The numbers that a model has learnt: of each parameter, and between two checkpoints."""

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np
from flax import nnx

from jaxzoo.errors import UsageError, nearest

BINS = 32
DEAD = 1e-3  # of the median kernel's largest weight


@dataclasses.dataclass(frozen=True)
class ParameterStatistics:
    """One parameter: mean and standard deviation of its finite values, the share of zeros among all, 0–1, and a
    histogram: `counts` in equal bins between `edges`, one more."""

    path: str
    shape: tuple[int, ...]
    mean: float
    deviation: float
    zeros: float
    counts: np.ndarray
    edges: np.ndarray
    finite: bool  # whether all values are


def parameters(model: nnx.Module) -> dict[str, np.ndarray]:
    """A model's parameters by their dotted paths, such as `layer1.0.conv1.kernel`, in the order of the paths."""
    leaves = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return {".".join(map(str, path)): np.asarray(jax.device_get(leaf.get_value())) for path, leaf in leaves}


def parameter_statistics(model: nnx.Module) -> list[ParameterStatistics]:
    """What `ParameterStatistics` says of each parameter of a model."""
    found = []
    for path, array in parameters(model).items():
        values = array.astype(np.float64).ravel()
        finite = values[np.isfinite(values)]
        counts, edges = np.histogram(finite, BINS)
        mean, deviation = (float(finite.mean()), float(finite.std())) if finite.size else (np.nan, np.nan)
        zeros = float((values == 0).mean()) if values.size else 0.0
        found.append(
            ParameterStatistics(path, array.shape, mean, deviation, zeros, counts, edges, finite.size == values.size)
        )
    return found


def dead_kernels(model: nnx.Module) -> dict[str, list[int]]:
    """The channels of each depthwise convolution whose kernel is nothing: by its path, those with a largest weight less
    than a thousandth of that of the layer's median kernel. Weight decay makes them so where training has no use for
    them; what they give is the same for every image."""
    found = {}
    for path, module in nnx.iter_modules(model):
        if getattr(module, "feature_group_count", 1) > 1 and (kernel := module.kernel.get_value()).shape[-2] == 1:
            largest = np.abs(np.asarray(kernel, np.float64)).max(tuple(range(kernel.ndim - 1)))
            if dead := np.flatnonzero(largest <= DEAD * np.median(largest)).tolist():
                found[".".join(map(str, path))] = dead
    return found


def kernel_of(model: nnx.Module, layer: str) -> np.ndarray:
    """A layer's kernel in Flax's shape: (kh, kw, in / groups, out) of a convolution, (in, out) of a linear layer.

    Raises:
      UsageError: no such layer, or it has no kernel.
    """
    modules = {".".join(map(str, path)): module for path, module in nnx.iter_modules(model)}
    kernels = {path: m.kernel for path, m in modules.items() if isinstance(getattr(m, "kernel", None), nnx.Variable)}
    if layer not in kernels:
        inside = [path for path in kernels if path.startswith(f"{layer}.")]
        hint = f"; {inside[0]} has one" if inside else nearest(layer, kernels)
        raise UsageError(f"{type(model).__name__} has no kernel at {layer!r}{hint}")
    return np.asarray(kernels[layer].get_value())


@dataclasses.dataclass(frozen=True)
class Change:
    """A tensor of two checkpoints: the norm of the difference relative to that of the first, and the largest change."""

    name: str
    shape: tuple[int, ...]
    relative: float
    largest: float


def changes(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> list[Change]:
    """How each tensor changed that both have in the same shape, such as two state_dicts, or `parameters` of two models.

    A tensor that was 0 has changed infinitely, unless it still is.
    """
    found = []
    for name, first in before.items():
        second = after.get(name)
        if second is None or np.shape(first) != np.shape(second):
            continue
        first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
        moved, size = np.linalg.norm(second - first), np.linalg.norm(first)
        relative = moved / size if size else np.inf if moved else 0.0
        found.append(Change(name, first.shape, float(relative), float(np.abs(second - first).max(initial=0))))
    return found
