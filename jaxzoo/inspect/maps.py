"""The maps inside a network: which of its modules give some, and what they show."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxzoo.errors import UsageError
from jaxzoo.inspect.intercept import around_calls, called

FINE = 16  # places
STAGES = 6  # of a network whose maps are all of one or two sizes


class Call:
    """The first run of a module: when it started and ended, and the shape and dtype of its result."""

    def __init__(self, path: str, kind: str, has_parameters: bool, is_layer: bool, start: int):
        self.path, self.kind, self.has_parameters, self.is_layer = path, kind, has_parameters, is_layer
        self.start, self.end, self.result = start, 0, None


def calls_of(model: nnx.Module, inputs: Any) -> list[Call]:
    """The modules that run, in the order in which they end; the model itself is the last."""
    modules = {".".join(map(str, path)): module for path, module in nnx.iter_modules(model)}
    leaves = [path for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))]
    layers = {".".join(map(str, path[:-1])) for path in leaves}
    inside = {".".join(map(str, path[:depth])) for path in leaves for depth in range(len(path))}
    clock, calls = itertools.count(1), {}

    def record(path: str, call: Callable[[], Any]) -> Any:
        this = Call(path, type(modules[path]).__name__, path in inside, path in layers, next(clock))
        result = call()
        if path not in calls:
            this.end, this.result = next(clock), jax.tree.map(lambda x: x if hasattr(x, "shape") else None, result)
            calls[path] = this
        return result

    graph, state = nnx.split(model)

    def run(state: nnx.State, *inputs: Any) -> None:
        copy = nnx.merge(graph, state, copy=True)
        with around_calls(copy, record):
            copy(*inputs)

    jax.eval_shape(run, state, *arguments_of(inputs))
    return list(calls.values())


def arguments_of(inputs: Any) -> tuple[Any, ...]:
    return inputs if isinstance(inputs, tuple) else (inputs,)


def grid_of(result: Any, images: Sequence[int]) -> tuple[int, int] | None:
    """Rows and columns of the map that a module returned for images (N, H, W, C); None if it is no map.

    A map's sides are in proportion to the images'; of tokens (N, L, C) one in front may be the class token.
    """
    if not hasattr(result, "shape") or len(images) != 4 or result.shape[:1] != images[:1]:
        return None
    height, width = images[1:3]
    if result.ndim == 4:
        rows, columns = result.shape[1:3]
        # Each side is rounded to whole places.
        return (rows, columns) if abs(rows * width - columns * height) <= height + width else None
    if result.ndim == 3:
        for length in (result.shape[1], result.shape[1] - 1):
            rows = math.isqrt(max(0, length) * height // width)
            if rows and length % rows == 0 and rows * width == length // rows * height:
                return rows, length // rows
    return None


def as_map(x: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """A map (N, h, w, C), or tokens (N, L, C), of which the last h · w are the grid's, as a map."""
    return x if x.ndim == 4 else x[:, x.shape[1] - math.prod(grid) :].reshape(len(x), *grid, -1)


def described(result: Any) -> str:
    """The shapes of what a module returned, in words."""
    shapes = [str(tuple(leaf.shape)) for leaf in jax.tree.leaves(result)]
    return "nothing" if not shapes else shapes[0] if len(shapes) == 1 else f"several arrays, {', '.join(shapes)}"


def maps_before(calls: Sequence[Call], images: Sequence[int], end: int) -> list[Call]:
    """The modules with parameters that give a map of more than one place and end before `end`, in that order."""
    return [
        call
        for call in calls
        if call.has_parameters and call.end < end and math.prod(grid_of(call.result, images) or (1,)) > 1
    ]


def last_layer(calls: Sequence[Call]) -> Call:
    """The module with parameters of its own that starts last: the classifier's last layer, in most networks."""
    layers = [call for call in calls if call.is_layer]
    if not layers:
        raise UsageError(f"no layer with parameters runs in {calls[-1].kind}")
    return max(layers, key=lambda call: call.start)


def first_kernel(model: nnx.Module, calls: Sequence[Call]) -> str | None:
    """The path of the first layer to run that has a kernel over places, if there is one."""
    modules = {".".join(map(str, path)): module for path, module in nnx.iter_modules(model)}
    for call in sorted(calls, key=lambda call: call.start):
        kernel = getattr(modules[call.path], "kernel", None)
        if isinstance(kernel, nnx.Variable) and kernel.get_value().ndim == 4:
            return call.path
    return None


def stages(model: nnx.Module, inputs: Any) -> list[str]:
    """The paths of the modules that end a network's stages: the outermost that gives the last map of each size.

    Where there are fewer than three sizes, as in a ViT, some of its blocks.

    Args:
      model: any NNX module of images; it may be abstract.
      inputs: as for `jaxzoo.inspect.cam`, or their shapes and dtypes.

    Raises:
      UsageError: no module gives a map.
    """
    calls = calls_of(model, inputs)
    images = arguments_of(inputs)[0].shape
    maps = maps_before(calls, images, last_layer(calls).start)
    if not maps:
        raise UsageError(f"{type(model).__name__} has no layer that gives a map of its images")
    groups = [list(group) for _, group in itertools.groupby(maps, lambda call: grid_of(call.result, images))]
    if len(groups) < 3:
        beside = max((_siblings(call, maps) for call in maps), key=len)
        places = np.linspace(0, len(beside) - 1, min(STAGES, len(beside))).round().astype(int)
        return [beside[place].path for place in dict.fromkeys(places.tolist())]
    return [min(reversed(group), key=lambda call: call.path.count(".")).path for group in groups]


def fine_layer(model: nnx.Module, inputs: Any, layer: str) -> str:
    """The layer, if its map has at least 4 × 4 places, or else the last one in `stages` of which that is true: small
    images leave little of a deep network's last map."""
    images = arguments_of(inputs)[0].shape
    maps = {call.path: grid_of(call.result, images) or (1,) for call in calls_of(model, inputs)}
    fine = (path for path in (layer, *reversed(stages(model, inputs))) if math.prod(maps[path]) >= FINE)
    return next(fine, layer)


def _siblings(call: Call, maps: Sequence[Call]) -> list[Call]:
    parent = call.path.rpartition(".")[0]
    return [other for other in maps if other.path.rpartition(".")[0] == parent and other.kind == call.kind]


def strongest(maps: jax.Array, count: int) -> np.ndarray:
    """The channels of a map (h, w, C) that vary most over it, `count` at most: by standard deviation, largest first."""
    return np.argsort(-np.asarray(maps, np.float64).std((0, 1)), kind="stable")[:count]


def embed(model: nnx.Module, inputs: Any, layer: str | None = None) -> jax.Array:
    """A feature vector for each image: (N, D), of what the last layer is given, averaged over places.

    That of a classifier is what its head sees: 512 numbers of a ResNet-18, the class token of a ViT. Traceable.

    Args:
      model: any NNX module of images, in eval mode.
      inputs: as for `jaxzoo.inspect.cam`.
      layer: path of a module whose output to average instead.

    Raises:
      UsageError: no such layer, or one that gives several arrays.
    """
    graph, state = nnx.split(model)
    path, number = called(model, layer) if layer else (last_layer(calls_of(model, inputs)).path, 0)
    copy, runs, found = nnx.merge(graph, state, copy=True), itertools.count(), []

    def record(at: str, call: Callable[[], Any]) -> Any:
        result = call()
        if at == path and next(runs) == number:
            found.append(result if layer else call.args[1])  # of the module's `__call__`: itself, and its input
        return result

    arguments = arguments_of(inputs)
    with around_calls(copy, record):
        copy(*arguments)
    if not found or not hasattr(found[0], "ndim") or found[0].shape[:1] != arguments[0].shape[:1]:
        what = described(found[0]) if found else "nothing, as it does not run"
        raise UsageError(f"{path} gives no vector for each image: it returns {what}")
    (x,) = found
    return x.reshape(len(x), -1, x.shape[-1]).mean(1, dtype=jnp.promote_types(x.dtype, jnp.float32))
