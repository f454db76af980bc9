"""Initialisers under torch.nn.init's names; kernels are (..., in, out), so fans come out as torch's.

Outside of `jax.jit` they draw with NumPy, seeded by the key: compiling a random generator for every shape would take
half a minute for a network that draws its numbers in a tenth of a second. Inside, they draw with `jax.random`.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.nn.initializers import Initializer

Shape = tuple[int, ...]


def _initializer(draw: Callable[[np.random.Generator, Shape], np.ndarray], traced: Initializer) -> Initializer:
    def initializer(key: jax.Array, shape: Shape, dtype=jnp.float32, out_sharding=None) -> jax.Array:
        if isinstance(key, jax.core.Tracer):
            return traced(key, shape, dtype)
        generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        return jnp.asarray(draw(generator, shape), dtype)

    return initializer


def constant(value: float) -> Initializer:
    """The same value everywhere."""
    return _initializer(lambda _, shape: np.full(shape, value, np.float32), nnx.initializers.constant(value))


ones = constant(1.0)
zeros = constant(0.0)


def normal(std: float) -> Initializer:
    """N(0, std²); also for torch's `trunc_normal_(std)`, which cuts at ±2, many standard deviations out."""
    return _initializer(
        lambda generator, shape: std * generator.standard_normal(shape, np.float32), nnx.initializers.normal(std)
    )


standard_normal = normal(1.0)


def uniform(bound: float) -> Initializer:
    """U(-bound, bound)."""

    def traced(key: jax.Array, shape: Shape, dtype=jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return _initializer(lambda generator, shape: bound * (2 * generator.random(shape, np.float32) - 1), traced)


def _by_fans(choose: Callable[[float, float], Initializer]) -> Initializer:
    """An initialiser that depends on the numbers of inputs and outputs that one weight connects."""

    def initializer(key: jax.Array, shape: Shape, dtype=jnp.float32, out_sharding=None) -> jax.Array:
        field = math.prod(shape[:-2])
        return choose(shape[-2] * field, shape[-1] * field)(key, shape, dtype)

    return initializer


def kaiming_normal(mode: str = "fan_in") -> Initializer:
    """N(0, 2 / fan): He initialisation for ReLU networks (He et al. 2015); `mode` is "fan_in" or "fan_out"."""
    return _by_fans(lambda fan_in, fan_out: normal(math.sqrt(2 / (fan_in if mode == "fan_in" else fan_out))))


xavier_uniform = _by_fans(lambda fan_in, fan_out: uniform(math.sqrt(6 / (fan_in + fan_out))))

# torch's kaiming_uniform_ for ReLU networks: U(±sqrt(6 / fan_in)).
kaiming_uniform = _by_fans(lambda fan_in, _: uniform(math.sqrt(6 / fan_in)))

# What torch's Linear and Conv do by themselves: kaiming_uniform_(a=sqrt(5)), that is U(±1/sqrt(fan_in)).
torch_default = _by_fans(lambda fan_in, _: uniform(1 / math.sqrt(fan_in) if fan_in else 0.0))


def torch_default_bias(fan_in: int) -> Initializer:
    """U(±1/sqrt(fan_in)): the bias that goes with `torch_default`."""
    return uniform(1 / math.sqrt(fan_in) if fan_in else 0.0)
