"""Class activation maps: the places in an image that speak for an output.

Equal to the package grad-cam (https://github.com/jacobgil/pytorch-grad-cam), whose choices of layers hold here.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.tree_util import Partial

from jaxzoo.errors import UsageError, nearest
from jaxzoo.inspect.intercept import around_calls, called
from jaxzoo.inspect.maps import arguments_of, as_map, calls_of, described, grid_of, last_layer, maps_before
from jaxzoo.nn.resize import resize
from jaxzoo.outputs import class_logits

Score = Callable[[Any], jax.Array]  # of a model's outputs, for each image (N,)
Method = Literal["grad-cam", "grad-cam++", "layer-cam", "eigen-cam"]
EPSILON = 1e-6  # grad-cam's, in the denominators of Grad-CAM++


def cam(
    model: nnx.Module,
    inputs: Any,
    target: int | Sequence[int] | jax.Array | Score | None = None,
    *,
    layer: str | None = None,
    method: Method = "grad-cam",
) -> jax.Array:
    """How much each place of a layer's map speaks for an output: (N, h, w), 0 or more.

    >>> maps = cam(model, images, 281)  # of a class, such as ImageNet's tabby
    >>> heatmap(maps, images.shape[1:3]).shape
    (1, 224, 224)

    Works for any NNX module, inside `jax.jit`, and in several threads. A program is compiled for each architecture,
    shape, layer and method; models of other weights, and other targets, use it again.

    Args:
      model: it is run in the mode it is in, which should be that of evaluation, and left as it is.
      inputs: a batch of images (N, H, W, C), prepared for the model, or a tuple of arguments that begins with it.
      target: a class, one for all images or one for each; by default the likeliest. Or a function that makes a score
        (N,) of the outputs, such as `jax.tree_util.Partial(pixel_score, label=15)` for segmentation. A `Partial`'s
        arguments can change without compiling anew.
      layer: path of a module that gives a map (N, h, w, C), or tokens (N, L, C) of a grid, a class token before them
        left out. One that runs several times counts for its first run; `path_1` is its second. Default: `cam_layer`.
      method: "grad-cam" (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391), "grad-cam++" (Chattopadhay et al.
        2018, https://arxiv.org/abs/1710.11063), "layer-cam" (Jiang et al. 2021,
        https://ieeexplore.ieee.org/document/9462463), or "eigen-cam" (Muhammad and Yeasin 2020,
        https://arxiv.org/abs/2008.00299), which knows no target: it is what stands out in the map.

    Raises:
      UsageError: unknown method, layer or class; a layer that gives no map.
    """
    if method not in get_args(Method):
        raise UsageError(f"unknown method {method!r}{nearest(method, get_args(Method))}; {', '.join(get_args(Method))}")
    if callable(target):
        score, classes = target if isinstance(target, Partial) else Partial(target), None
    else:
        classes = None if target is None else jnp.asarray(target)
        score = Partial(class_score, label=classes)
    maps, scores = _cam(model, inputs, score, layer, method)
    if classes is not None and not isinstance(scores, jax.core.Tracer) and not np.isfinite(scores).all():
        raise UsageError(f"class {target} has no score: there are fewer classes, or weights or images are not finite")
    return maps


@partial(jax.jit, static_argnums=(3, 4))
def _cam(model: nnx.Module, inputs: Any, score: Score, layer: str | None, method: str) -> tuple[jax.Array, jax.Array]:
    layer = cam_layer(model, inputs) if layer is None else layer
    activations, gradients, scores = activations_and_gradients(model, inputs, layer, score)
    return jnp.maximum(METHODS[method](activations, gradients), 0), scores


def activations_and_gradients(
    model: nnx.Module, inputs: Any, layer: str, score: Score
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A layer's map (N, h, w, C), the gradient of each image's score for it, of the same shape, and the scores (N,).

    Args and errors: see `cam`.
    """
    graph, state = nnx.split(model)
    arguments = arguments_of(inputs)
    path, number = called(model, layer)

    def run(change: jax.Array | None) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        copy, calls, found = nnx.merge(graph, state, copy=True), itertools.count(), []

        def perturb(at: str, call: Callable[[], Any]) -> Any:
            result = call()
            if at == path and next(calls) == number:
                result = result if change is None else result + change
                found.append(result)
            return result

        with around_calls(copy, perturb):
            scores = score(copy(*arguments))
        if not found:
            raise UsageError(f"{layer} did not run in {type(model).__name__}: it may run in train mode only")
        return scores.sum(), (found[0], scores)

    shape = jax.eval_shape(lambda: run(None)[1][0])
    grid = grid_of(shape, arguments[0].shape)
    if grid is None:
        raise UsageError(
            f"{layer} has no map: it returns {described(shape)}, not (N, h, w, C) or tokens (N, L, C) of a grid"
        )
    (_, (activations, scores)), gradients = jax.value_and_grad(run, has_aux=True)(jnp.zeros(shape.shape, shape.dtype))
    return as_map(activations, grid), as_map(gradients, grid), scores


# Each method makes (N, h, w) of a map and its gradient, both (N, h, w, C).
def _grad_cam(activations: jax.Array, gradients: jax.Array) -> jax.Array:
    return (gradients.mean((1, 2), keepdims=True) * activations).sum(-1)


def _grad_cam_plus_plus(activations: jax.Array, gradients: jax.Array) -> jax.Array:
    square = gradients**2
    total = activations.sum((1, 2), keepdims=True)
    alpha = square / (2 * square + total * square * gradients + EPSILON)  # equation 19
    weights = (jnp.maximum(gradients, 0) * alpha).sum((1, 2), keepdims=True)
    return (weights * activations).sum(-1)


def _layer_cam(activations: jax.Array, gradients: jax.Array) -> jax.Array:
    return (jnp.maximum(gradients, 0) * activations).sum(-1)


def _eigen_cam(activations: jax.Array, gradients: jax.Array) -> jax.Array:
    """The first principal component. Its sign, which is arbitrary in the package, makes the largest deviation positive
    (Chung and Ying 2025, https://doi.org/10.3390/app15137562, equation 13)."""
    n, rows, columns, channels = activations.shape
    x = activations.reshape(n, rows * columns, channels)
    u, s, _ = jnp.linalg.svd(x - x.mean(1, keepdims=True), full_matrices=False)
    y = u[..., 0] * s[..., :1]
    y = jnp.where(-y.min(1, keepdims=True) > y.max(1, keepdims=True), -y, y)
    return y.reshape(n, rows, columns)


METHODS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "grad-cam": _grad_cam,
    "grad-cam++": _grad_cam_plus_plus,
    "layer-cam": _layer_cam,
    "eigen-cam": _eigen_cam,
}


def heatmap(maps: jax.Array, size: Sequence[int]) -> jax.Array:
    """Maps (N, h, w) as grad-cam shows them: from 0 to 1 each, and resized to height and width (N, H, W), bilinearly.

    A map of one value becomes 0.
    """

    def scaled(x: jax.Array) -> jax.Array:
        x = x - x.min((1, 2), keepdims=True)
        return x / (1e-7 + x.max((1, 2), keepdims=True))

    return scaled(resize(scaled(maps)[..., None], tuple(size), mode="bilinear")[..., 0])


def class_score(outputs: Any, label: jax.Array | None = None) -> jax.Array:
    """The logit of a class: of (N, C) one for all images or one for each (N,); by default the likeliest.

    Of several outputs the first counts. A class that there is not has the score NaN.
    """
    logits = class_logits(outputs[0] if isinstance(outputs, tuple | list) else outputs)
    label = logits.argmax(-1) if label is None else jnp.broadcast_to(label, logits.shape[:1])
    label = jnp.where(label < 0, logits.shape[-1], label)  # no counting from the end
    return jnp.take_along_axis(logits, label[:, None], 1, mode="fill", fill_value=jnp.nan)[:, 0]


def pixel_score(outputs: Any, label: jax.Array | None = None, region: jax.Array | None = None) -> jax.Array:
    """For segmentation: the sum of a class's logits over a region (H, W) or (N, H, W), or all pixels.

    By default the class is that of most of these pixels. Of a dictionary of outputs (N, h, w, C) the first counts.
    """
    logits = class_logits(next(iter(outputs.values())) if isinstance(outputs, dict) else outputs)
    region = jnp.ones(logits.shape[:3], logits.dtype) if region is None else jnp.asarray(region, logits.dtype)
    region = jnp.broadcast_to(region, (len(logits), *region.shape[-2:]))
    if region.shape != logits.shape[:3]:
        region = resize(region[..., None], logits.shape[1:3])[..., 0]
    if label is None:
        counts = jax.nn.one_hot(logits.argmax(-1), logits.shape[-1], dtype=logits.dtype) * region[..., None]
        label = counts.sum((1, 2)).argmax(-1)
    chosen = jax.nn.one_hot(jnp.broadcast_to(label, len(logits)), logits.shape[-1], dtype=logits.dtype)
    return jnp.einsum("nhwc,nc,nhw->n", logits, chosen, region)


def box_score(outputs: Any, box: jax.Array, label: jax.Array | None = None) -> jax.Array:
    """For detection: the score of the object whose box is nearest (by IoU) to `box`, of its class.

    Args:
      outputs: `boxes` (N, D, 4), `labels`, `scores` and `valid` (N, D), as the zoo's detectors give them.
      box: (x1, y1, x2, y2) in pixels of the network's input, for all images or for each (N, 4).
      label: of the objects to choose from; any unless given.
    """
    box = jnp.broadcast_to(box, (len(outputs["boxes"]), 4))[:, None]
    boxes = outputs["boxes"]
    overlap = jnp.maximum(jnp.minimum(box, boxes)[..., 2:] - jnp.maximum(box, boxes)[..., :2], 0).prod(-1)
    areas = (boxes[..., 2:] - boxes[..., :2]).prod(-1) + (box[..., 2:] - box[..., :2]).prod(-1)
    known = outputs["valid"] if label is None else outputs["valid"] & (outputs["labels"] == label)
    nearness = jnp.where(known, overlap / jnp.maximum(areas - overlap, 1e-9), -1)
    place = jax.lax.stop_gradient(nearness).argmax(-1)[:, None]
    return jnp.take_along_axis(jnp.where(known, outputs["scores"], 0), place, 1)[:, 0]


def cam_layer(model: nnx.Module, inputs: Any) -> str:
    """The path of the layer that `cam` looks at: the last one whose output is a map, as grad-cam recommends.

    That is the last module with parameters that gives a map (N, h, w, C), of more than one place, before the model's
    last layer: `layer4` in a ResNet, `features` in a VGG; in a `backbone` or an `encoder`, if there is one. If the last
    attention directly follows a norm, and no convolution comes later, it is that norm: after it a ViT looks at the
    class token alone.

    Args:
      model: it may be abstract.
      inputs: as for `cam`, or their shapes and dtypes.

    Raises:
      UsageError: there is no such layer.
    """
    calls = calls_of(model, inputs)
    images = arguments_of(inputs)[0].shape
    # Of segmentation's outputs the first has the logits, and layers may have some at other sizes.
    logits = next(iter(jax.tree.leaves(calls[-1].result, is_leaf=lambda x: hasattr(x, "shape"))), None)
    classes = logits.shape[-1] if logits is not None and logits.ndim == 4 else None
    maps = [call for call in maps_before(calls, images, last_layer(calls).start) if call.result.shape[-1] != classes]
    attention = max((c.start for c in calls if "Attention" in c.kind), default=0)
    if attention > max((c.start for c in calls if "Conv" in c.kind), default=0):
        maps = [c for c in maps if c.end == attention - 1] or maps
    else:
        for part in ("backbone.body", "backbone", "encoder"):
            maps = [c for c in maps if c.path == part or c.path.startswith(f"{part}.")] or maps
    if not maps:
        raise UsageError(f"{type(model).__name__} has no layer that gives a map of its images")
    return maps[-1].path


@jax.jit
def attention_rollout(model: nnx.Module, inputs: Any) -> jax.Array:
    """How much of each image token reaches the class token: (N, h, w) of a ViT (Abnar and Zuidema 2020, §4,
    https://arxiv.org/abs/2005.00928).

    The product over all blocks of their attention, averaged over heads, half of it that of the shortcut. Attention is
    what the dropout in `jaxzoo.nn.MultiHeadAttention` is given; in train mode it drops some.

    Args:
      model: whose attention is between all tokens, the class token before them; any mode.
      inputs: as for `cam`.

    Raises:
      UsageError: a model without such attention; one of windows, as Swin's, has tokens that do not see each other.
    """
    graph, state = nnx.split(model)
    copy = nnx.merge(graph, state, copy=True)
    modules = {".".join(map(str, path)): module for path, module in nnx.iter_modules(copy)}
    within = {path: path.rpartition(".")[0] for path in modules if path.rpartition(".")[2].endswith("dropout")}
    within = {path: outer for path, outer in within.items() if "Attention" in type(modules[outer]).__name__}
    found = []

    def record(path: str, call: Callable[[], Any]) -> Any:
        result = call()
        if path in within and result.ndim > 3:  # the attention, not the result of it
            found.append(result)
        return result

    arguments = arguments_of(inputs)
    with around_calls(copy, record):
        copy(*arguments)
    n, height, width, _ = arguments[0].shape
    length = found[0].shape[-1] if found else 0
    grid = grid_of(jax.ShapeDtypeStruct((n, length, 1), jnp.float32), arguments[0].shape)
    if not grid or math.prod(grid) != length - 1 or any(w.shape != (n, w.shape[1], length, length) for w in found):
        shapes = ", ".join(sorted({str(w.shape) for w in found})) or "none"
        raise UsageError(
            f"attention rollout needs attention of a class token and all others, (N, heads, 1 + h · w, 1 + h · w) in "
            f"every block, as a ViT has; {type(model).__name__} has {shapes} for images of {height} × {width}"
        )
    reach = jnp.eye(length, dtype=found[0].dtype)
    for weights in found:
        mixed = weights.mean(1) + jnp.eye(length, dtype=weights.dtype)
        reach = mixed / mixed.sum(-1, keepdims=True) @ reach
    return reach[:, 0, 1:].reshape(n, *grid)
