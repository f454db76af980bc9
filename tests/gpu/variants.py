"""Stage `variants`: a training step as it is, and with a part of it as XLA or cuDNN would have it, or as we would."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from typing import NamedTuple
from unittest.mock import patch

import jax
import jax.numpy as jnp
from jax import lax

from jaxzoo.nn import attention, linear, norm
from jaxzoo.nn.cpu import max_pooling
from jaxzoo.nn.precision import wide
from tests.gpu.child import Conditions
from tests.gpu.speed import MODELS, measured, our_side

Array = jax.Array


class Variant(NamedTuple):
    models: tuple[str, ...]  # that it makes a difference to
    change: Callable[[], AbstractContextManager] = nullcontext
    options: dict | None = None  # of XLA


def names(dry_run: bool, *slowest: str) -> list[str]:
    """Each variant with the slowest of the models that have what it changes; the slowest of all models first."""
    order = [*slowest, *MODELS]
    models = {name: next(m for m in order if dry_run or m in v.models) for name, v in VARIANTS.items()}
    return [f"{name}:{models[name]}" for name in sorted(VARIANTS, key=lambda name: order.index(models[name]))]


def run(name: str, conditions: Conditions) -> Iterator[dict]:
    which, model = name.split(":")
    variant, before = VARIANTS[which], _as_it_is(model, conditions)
    with variant.change():
        after = measured(lambda: our_side(model, conditions, variant.options), conditions)
    yield {
        "as it is ms": before["p50 ms"],
        "otherwise ms": after["p50 ms"],
        "as fast": before["p50 ms"] / after["p50 ms"],
        "as it is MiB": before["peak MiB"],
        "otherwise MiB": after["peak MiB"],
    }


@cache
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
    """`attend` by cuDNN, which takes even lengths only: with a token more, which nobody sees, where they are odd."""
    if any(value is not None for value in rest.values()):
        raise ValueError(f"cuDNN's attention is tried without {', '.join(rest)}")
    images, length = q.shape[:2]
    q, k, v = (jnp.pad(x, [(0, 0), (0, length % 2), (0, 0), (0, 0)]) for x in (q, k, v))
    seen = jnp.full(images, length, jnp.int32)
    how = "cudnn" if jax.default_backend() == "gpu" else "xla"
    return jax.nn.dot_product_attention(q, k, v, scale=scale, key_value_seq_lengths=seen, implementation=how)[
        :, :length
    ]


@jax.custom_jvp
def _settled(x: Array) -> Array:
    return x


@_settled.defjvp
def _settled_slope(values: tuple[Array], slopes: tuple[Array]) -> tuple[Array, Array]:
    return values[0], lax.optimization_barrier(slopes[0])


CONVOLUTIONAL = ("resnet50", "efficientnet_b0", "regnet_y_1_6gf", "mobilenet_v3_large")
ATTENTIVE = ("swin_t", "vit_b_16", "convnext_tiny")
VARIANTS = {
    "BatchNorm's gradient by XLA": Variant(CONVOLUTIONAL, partial(patch.object, norm, "_by_batch", _by_batch)),
    "LayerNorm's gradient by XLA": Variant(ATTENTIVE, partial(patch.object, norm, "_by_position", _by_position)),
    "attention by cuDNN": Variant(("vit_b_16",), partial(patch.object, attention, "attend", _fused)),
    "linear layers' gradients behind a barrier": Variant(
        ATTENTIVE, partial(patch.object, linear, "_settled", _settled)
    ),
    "max pooling by our rule": Variant(
        ("resnet50",), partial(patch.object, max_pooling, "max_pool", max_pooling._by_windows)
    ),
    "autotune level 0": Variant(tuple(MODELS), options={"xla_gpu_autotune_level": 0}),
    "autotune level 2": Variant(tuple(MODELS), options={"xla_gpu_autotune_level": 2}),
}
