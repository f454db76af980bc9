"""Which pixels of the input reach an output, and which are skipped between those that do."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxzoo.errors import Remedy, UsageError, nearest
from jaxzoo.inspect.intercept import around_calls
from jaxzoo.nn import AdaptiveAvgPool

SCALE = 1e30  # of the gradient at the output: it shrinks below what float32 holds on its way through deep networks


@dataclasses.dataclass(frozen=True)
class ReceptiveField:
    """How strongly the input's pixels reach an output, `influence` (H, W): 0 where none does, else relative to the
    strongest.
    """

    influence: np.ndarray

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Top, left, bottom and right (exclusive) of all that is reached, in pixels."""
        rows, columns = (np.flatnonzero(self.influence.any(axis)) for axis in (1, 0))
        return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1

    @property
    def share(self) -> float:
        """Of the pixels in the box, how many are reached, 0–1; less than 1 where dilation leaves a grid of holes."""
        top, left, bottom, right = self.box
        return float((self.influence[top:bottom, left:right] > 0).mean())


def receptive_field(
    model: nnx.Module,
    size: int | tuple[int, int],
    *,
    layer: str = "",
    inputs: int = 3,
    channels: int = 3,
    whole: bool = False,
) -> ReceptiveField:
    """Which input pixels reach the central position of an output, by the gradient of the output there.

    So that no two paths cancel, the model runs with random positive kernels, which average, instead of its own, and its
    batch norms are identities; the result depends on the architecture alone. The model itself is not changed.

    >>> receptive_field(create_model("fcn_resnet50"), 512, layer="backbone.layer3").share

    Args:
      model: any NNX module of images (N, H, W, channels), in eval mode, with values.
      size: of the image, in pixels; a field that is larger than the image is cut off at its border.
      layer: the submodule whose output is meant, by its dotted path; the model's own, or its first, unless given.
      inputs: random kernels and images to try; where a maximum is taken, each shows one of several paths.
      channels: of the images.
      whole: whether averages of the whole image (`AdaptiveAvgPool`), which reach everything, count too.

    Raises:
      UsageError: no such layer, or one that does not run, or whose output is nowhere.
    """
    height, width = (size, size) if isinstance(size, int) else size
    graph, state = nnx.split(model)
    flat = nnx.to_flat_state(state)

    @jax.jit
    def influence(key: jax.Array) -> jax.Array:
        keys = iter(jax.random.split(key, len(flat) + 1))
        filled = nnx.from_flat_state([(path, _averaging(path[-1], leaf, next(keys))) for path, leaf in flat])
        network = nnx.merge(graph, filled, copy=True)
        x = jax.random.uniform(next(keys), (1, height, width, channels), jnp.float32)
        y, backward = jax.vjp(lambda x: _output(network, x, layer, whole), x)
        (gradient,) = backward(_middle(y))
        return jnp.abs(gradient[0]).sum(-1)

    with jax.default_device(jax.local_devices(backend="cpu")[0]):  # other devices' convolutions may round zeros away
        found = sum(np.asarray(influence(jax.random.key(i)), np.float64) for i in range(inputs))
    if not found.any():
        raise UsageError(
            f"{layer or 'the output'} gets nothing but averages of the whole image",
            Remedy("whole", True, "counts them"),
        )
    return ReceptiveField(found / found.max())


def _averaging(name: str, leaf: nnx.Variable, key: jax.Array) -> nnx.Variable:
    value = leaf.get_value()
    if not isinstance(leaf, nnx.Param | nnx.BatchStat) or not jnp.issubdtype(value.dtype, jnp.floating):
        return leaf
    if value.ndim > 1:
        new = jnp.exp(2 * jax.random.normal(key, value.shape, value.dtype))  # unlike enough that maxima differ
        new /= new.sum(range(value.ndim - 1), keepdims=True)
    else:
        new = jnp.full(value.shape, 0 if name in ("bias", "mean") else 1, value.dtype)
    return leaf.replace(new)


def _output(model: nnx.Module, x: jax.Array, layer: str, whole: bool) -> jax.Array:
    """The output of a layer; averages of the whole image pass no gradient, unless `whole`."""
    modules = {".".join(map(str, path)): module for path, module in nnx.iter_modules(model)}
    if layer not in modules:
        raise UsageError(f"there is no layer {layer!r}{nearest(layer, modules)}")
    found: list[Any] = []

    def around(path: str, call: Callable[[], Any]) -> Any:
        y = call()
        module = modules[path]
        if not whole and isinstance(module, AdaptiveAvgPool) and set(np.ravel(module.output_size).tolist()) == {1}:
            y = jax.lax.stop_gradient(y)
        if path == layer:
            found[:] = [y]
        return y

    with around_calls(model, around):
        model(x)
    y = found[0] if found else None
    y = next(iter(y.values())) if isinstance(y, dict) and y else y  # the output itself comes first
    if not isinstance(y, jax.Array):
        raise UsageError(f"{layer or 'the model'} returns no single array in eval mode; choose another layer")
    if y.ndim != 4:
        where = f"{layer or 'the model'} returns {y.shape}, which has no height and width"
        raise UsageError(f"{where}: choose a layer that has, such as the last before the average")
    return y


def _middle(y: jax.Array) -> jax.Array:
    return jnp.zeros_like(y).at[:, y.shape[1] // 2, y.shape[2] // 2].set(SCALE)


class HybridDilation(NamedTuple):
    """Whether layers that dilate leave no holes, and the largest distance M₂ between inputs of the second one."""

    distance: int
    passes: bool


def hybrid_dilation(rates: Sequence[int], kernel_size: int = 3) -> HybridDilation:
    """The rule for dilations of successive layers whose field shall have no holes.

    With M_n = r_n and M_i = max(M_{i+1} − 2 r_i, M_{i+1} − 2 (M_{i+1} − r_i), r_i), M₂ may be at most the kernel's
    size, and the rates may have no factor in common. Wang et al. 2018, Understanding Convolution for Semantic
    Segmentation, https://arxiv.org/abs/1702.08502, §3.2.

    >>> hybrid_dilation([1, 2, 5]), hybrid_dilation([1, 2, 9])
    (HybridDilation(distance=2, passes=True), HybridDilation(distance=5, passes=False))

    Args:
      rates: of two layers or more, the first first, in pixels.
      kernel_size: of all of them.

    Raises:
      UsageError: fewer than two rates, or rates that are no positive whole numbers.
    """
    if len(rates) < 2 or not all(isinstance(rate, int | np.integer) and rate >= 1 for rate in rates):
        raise UsageError(f"rates are {rates}; they must be two positive whole numbers or more")
    distance = rates[-1]
    for rate in rates[-2:0:-1]:
        distance = max(distance - 2 * rate, distance - 2 * (distance - rate), rate)
    return HybridDilation(distance, distance <= kernel_size and math.gcd(*rates) == 1)
