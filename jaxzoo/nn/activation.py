"""Activations as functions and, where torch has a module at a numbered place, as modules."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxzoo.nn.precision import wide

relu = jax.jit(jax.nn.relu)  # outside of programs, one for its gradient too
silu = jax.nn.silu
sigmoid = jax.nn.sigmoid


def leaky_relu(x: jax.Array, negative_slope: float = 0.01) -> jax.Array:
    """x where it is positive, else `negative_slope` · x; at 0, where jax.nn's has slope 1, with torch's slope."""
    return jnp.where(x > 0, x, negative_slope * x)


def relu6(x: jax.Array) -> jax.Array:
    """min(max(x, 0), 6); like torch's, flat at both corners."""
    return jnp.where((x > 0) & (x < 6), x, jnp.clip(jax.lax.stop_gradient(x), 0, 6))


@jax.custom_jvp
def gelu(x: jax.Array) -> jax.Array:
    """x Φ(x) with the exact error function, torch's default; in float32 at least, since 1 + erf cancels."""
    return _gelu_and_slope(x)[0]


@gelu.defjvp
def _gelu_slope(x, tangent):
    (x,), (tangent,) = x, tangent
    y, slope = _gelu_and_slope(x)
    return y, tangent * slope  # so that one array is kept for the gradient, not the three of erf's own rule


def _gelu_and_slope(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = wide(x)
    share = 0.5 * (1 + jax.lax.erf(y * math.sqrt(0.5)))
    slope = share + y * jnp.exp(-0.5 * y * y) * (1 / math.sqrt(2 * math.pi))
    return (y * share).astype(x.dtype), slope.astype(x.dtype)


_SIXTH = float(np.float32(1 / 6))  # torch's slope of hardsigmoid, in float64 too


@jax.custom_jvp
def hardsigmoid(x: jax.Array) -> jax.Array:
    """relu6(x + 3) / 6; like torch's, flat at both corners."""
    return jnp.clip(x + 3, 0, 6) / 6


@hardsigmoid.defjvp
def _hardsigmoid_slope(x, tangent):
    (x,), (tangent,) = x, tangent
    return hardsigmoid(x), tangent * jnp.where((x > -3) & (x < 3), _SIXTH, 0.0)


def hardswish(x: jax.Array) -> jax.Array:
    """x relu6(x + 3) / 6 (MobileNetV3); torch's slopes at the corners are 0 and 1."""
    ramp = jnp.where((x > -3) & (x < 3), x + 3, jnp.clip(jax.lax.stop_gradient(x) + 3, 0, 6))
    return x * ramp / 6


class Activation(nnx.Module):
    """An activation in a module's place."""

    _function: Callable[[jax.Array], jax.Array]

    def __call__(self, x: jax.Array) -> jax.Array:
        return type(self)._function(x)


class ReLU(Activation):
    _function = staticmethod(relu)


class ReLU6(Activation):
    _function = staticmethod(relu6)


class LeakyReLU(Activation):
    def __init__(self, negative_slope: float = 0.01):
        self.negative_slope = negative_slope

    def __call__(self, x: jax.Array) -> jax.Array:
        return leaky_relu(x, self.negative_slope)


class GELU(Activation):
    _function = staticmethod(gelu)


class SiLU(Activation):
    _function = staticmethod(silu)


class Sigmoid(Activation):
    _function = staticmethod(sigmoid)


class Tanh(Activation):
    _function = staticmethod(jnp.tanh)


class Hardsigmoid(Activation):
    _function = staticmethod(hardsigmoid)


class Hardswish(Activation):
    _function = staticmethod(hardswish)
