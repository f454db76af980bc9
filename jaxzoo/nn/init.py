"""Initialisers under torch.nn.init's names; kernels are (..., in, out), so fans come out as torch's.

One key gives the same numbers eagerly and in a program, on one device and on many. A program computes each number from
its place alone. Outside of programs, one that is compiled once draws `_PIECE` numbers at a time: compiling a generator
for every shape would take half a minute for a network that has its numbers in a tenth of a second.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.random import threefry_2x32
from jax.nn.initializers import Initializer

Shape = tuple[int, ...]
Draw = Callable[[jax.Array], jax.Array]

_PIECE = 1 << 14


def _uniform(bits: jax.Array) -> jax.Array:
    """[-1, 1) in steps of 2⁻²³, which float32 holds exactly."""
    return (bits >> 8).astype(jnp.float32) * np.float32(2**-23) - 1


def _normal(bits: jax.Array) -> jax.Array:
    """N(0, 1/2), by the inverse of the distribution function, in the middle of the steps."""
    return lax.erf_inv(_uniform(bits) + np.float32(2**-24))


def _numbers(draw: Draw, words: jax.Array, first: jax.Array | int, count: int) -> jax.Array:
    """Those at the places `first` and after it of the sequence that a key's two words stand for."""
    place = first + lax.iota(jnp.uint32, count)
    bits = threefry_2x32(words, jnp.concatenate([jnp.zeros_like(place), place]))
    return draw(bits[:count] ^ bits[count:])


# Vectorised whatever XLA_FLAGS say: all numbers come from it.
_piece = jax.jit(_numbers, static_argnums=(0, 3), compiler_options={"xla_backend_optimization_level": 3})


@functools.partial(jax.jit, static_argnums=(0, 1, 3, 4))
def _array(draw: Draw, scale: float, words: jax.Array, shape: Shape, dtype) -> jax.Array:
    return (np.float32(scale) * _numbers(draw, words, 0, math.prod(shape))).reshape(shape).astype(dtype)


def _initializer(draw: Draw, scale: float) -> Initializer:
    def initializer(key: jax.Array, shape: Shape, dtype=jnp.float32, out_sharding=None) -> jax.Array:
        words, count = jax.random.key_data(key), math.prod(shape)
        if isinstance(key, jax.core.Tracer):
            return _array(draw, scale, words.ravel()[-2:], tuple(shape), jnp.dtype(dtype))  # traced once
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            words, firsts = np.asarray(words).ravel()[-2:], range(0, count, _PIECE)
            pieces = [np.asarray(_piece(draw, words, np.uint32(first), _PIECE)) for first in firsts]
        numbers = np.concatenate(pieces or [np.zeros(0, np.float32)])[:count]
        return jnp.asarray((np.float32(scale) * numbers).reshape(shape), dtype)

    return initializer


def constant(value: float) -> Initializer:
    """The same value everywhere."""

    def initializer(key: jax.Array, shape: Shape, dtype=jnp.float32, out_sharding=None) -> jax.Array:
        full = jnp.full if isinstance(key, jax.core.Tracer) else np.full  # which compiles nothing
        return jnp.asarray(full(shape, value, np.float32), dtype)

    return initializer


ones = constant(1.0)
zeros = constant(0.0)


def normal(std: float) -> Initializer:
    """N(0, std²); also for torch's `trunc_normal_(std)`, which cuts at ±2, many standard deviations out."""
    return _initializer(_normal, std * math.sqrt(2))


standard_normal = normal(1.0)


def uniform(bound: float) -> Initializer:
    """U(-bound, bound)."""
    return _initializer(_uniform, bound)


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

# torch's default for Linear and Conv: kaiming_uniform_(a=sqrt(5)), that is U(±1/sqrt(fan_in)).
torch_default = _by_fans(lambda fan_in, _: uniform(1 / math.sqrt(fan_in) if fan_in else 0.0))


def torch_default_bias(fan_in: int) -> Initializer:
    """U(±1/sqrt(fan_in)): the bias that goes with `torch_default`."""
    return uniform(1 / math.sqrt(fan_in) if fan_in else 0.0)
