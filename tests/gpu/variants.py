"""Stage `variants`: a training step as it is, and with a part of it as XLA or cuDNN would have it, or as we would."""

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from unittest.mock import patch

import jax
import jax.numpy as jnp
from jax import lax

from jaxzoo.nn import attention, linear, norm, pool
from jaxzoo.nn.precision import wide
from tests.gpu.child import Conditions
from tests.gpu.speed import MODELS, measured, our_side

Array = jax.Array


def names(dry_run: bool, *slowest: str) -> list[str]:
    """Each variant with the slowest of the models that have what it changes; the slowest of all models first."""
    order = [*slowest, *MODELS]
    chosen = [
        (order.index(next(m for m in order if dry_run or m in models)), v) for v, (models, _, _) in VARIANTS.items()
    ]
    return [f"{variant}:{order[place]}" for place, variant in sorted(chosen, key=lambda each: each[0])]


def run(name: str, conditions: Conditions) -> Iterator[dict]:
    variant, model = name.split(":")
    _, changed, options = VARIANTS[variant]
    before = _as_it_is(model, conditions)
    with changed():
        after = measured(lambda: our_side(model, conditions, options), conditions)
    yield {
        "as it is ms": before["p50 ms"],
        "otherwise ms": after["p50 ms"],
        "as fast": before["p50 ms"] / after["p50 ms"],
        "as it is MiB": before["peak MiB"],
        "otherwise MiB": after["peak MiB"],
    }


@functools.cache
def _as_it_is(model: str, conditions: Conditions) -> dict:
    return measured(lambda: our_side(model, conditions), conditions)


def _by_batch(x: Array, scale: Array | None, bias: Array | None, epsilon: float) -> tuple[Array, Array, Array]:
    y, axes = wide(x), tuple(range(x.ndim - 1))
    mean, var = y.mean(axes), y.var(axes)
    return _scaled((y - mean) * lax.rsqrt(var + epsilon), x, scale, bias), mean, var


def _by_position(x: Array, scale: Array | None, bias: Array | None, epsilon: float) -> Array:
    y = wide(x)
    y = (y - y.mean(-1, keepdims=True)) * lax.rsqrt(y.var(-1, keepdims=True) + epsilon)
    return _scaled(y, x, scale, bias)


def _scaled(y: Array, x: Array, scale: Array | None, bias: Array | None) -> Array:
    y = y if scale is None else y * scale
    return (y if bias is None else y + bias).astype(x.dtype if scale is None else jnp.result_type(x, scale))


def _fused(
    q: Array, k: Array, v: Array, *, scale: float | None = None, dropout: object = None, **rest: object
) -> Array:
    if any(value is not None for value in rest.values()):
        raise ValueError(f"cuDNN's attention is tried without {', '.join(rest)}")
    implementation = "cudnn" if jax.default_backend() == "gpu" else "xla"
    return jax.nn.dot_product_attention(q, k, v, scale=scale, implementation=implementation)


def _as_on_a_cpu(module: object) -> AbstractContextManager:
    """Has a module choose, for every platform, what it has for the CPU."""
    chosen = SimpleNamespace(**{**vars(lax), "platform_dependent": lambda *arrays, cpu, default: cpu(*arrays)})
    return patch.object(module, "lax", chosen)


CONVOLUTIONAL = ("resnet50", "efficientnet_b0", "regnet_y_1_6gf", "mobilenet_v3_large")
ATTENTIVE = ("swin_t", "vit_b_16", "convnext_tiny")
# What it is: models that it makes a difference to, the change, and XLA's options.
VARIANTS: dict[str, tuple[tuple[str, ...], Callable[[], AbstractContextManager], dict | None]] = {
    "BatchNorm's gradient by XLA": (CONVOLUTIONAL, lambda: patch.object(norm, "_by_batch", _by_batch), None),
    "LayerNorm's gradient by XLA": (ATTENTIVE, lambda: patch.object(norm, "_by_position", _by_position), None),
    "attention by cuDNN": (("vit_b_16",), lambda: patch.object(attention, "attend", _fused), None),
    "no barrier in linear layers' gradients": (ATTENTIVE, lambda: patch.object(linear, "_settled", lambda x: x), None),
    "max pooling by our rule": (("resnet50",), lambda: _as_on_a_cpu(pool), None),
    "autotune level 0": (tuple(MODELS), nullcontext, {"xla_gpu_autotune_level": 0}),
    "autotune level 2": (tuple(MODELS), nullcontext, {"xla_gpu_autotune_level": 2}),
}
