"""Activations as functions and, where torch has a module at a numbered place, as modules."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

relu = jax.nn.relu
silu = jax.nn.silu
sigmoid = jax.nn.sigmoid


def relu6(x: jax.Array) -> jax.Array:
    """min(max(x, 0), 6); like torch's, flat at both corners."""
    return jnp.where((x > 0) & (x < 6), x, jnp.clip(jax.lax.stop_gradient(x), 0, 6))


def gelu(x: jax.Array) -> jax.Array:
    """x Φ(x) with the exact error function, torch's default."""
    return jax.nn.gelu(x, approximate=False)


def hardsigmoid(x: jax.Array) -> jax.Array:
    """relu6(x + 3) / 6."""
    return relu6(x + 3) / 6


def hardswish(x: jax.Array) -> jax.Array:
    """x relu6(x + 3) / 6 (MobileNetV3)."""
    return x * hardsigmoid(x)


class Activation(nnx.Module):
    """An activation in a module's place."""

    _function: Callable[[jax.Array], jax.Array]

    def __call__(self, x: jax.Array) -> jax.Array:
        return type(self)._function(x)


class ReLU(Activation):
    _function = staticmethod(relu)


class ReLU6(Activation):
    _function = staticmethod(relu6)


class GELU(Activation):
    _function = staticmethod(gelu)


class SiLU(Activation):
    _function = staticmethod(silu)


class Sigmoid(Activation):
    _function = staticmethod(sigmoid)


class Hardsigmoid(Activation):
    _function = staticmethod(hardsigmoid)


class Hardswish(Activation):
    _function = staticmethod(hardswish)
