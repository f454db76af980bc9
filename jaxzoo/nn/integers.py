"""Whole numbers among a model's variables, kept so that `jax.grad` takes the model as it is."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

from jaxzoo.nn.container import Buffer


class _InBytes(nnx.Variable):
    """A variable of 32-bit numbers, or of keys made of them, that JAX sees as their bytes in float32.

    `jax.grad` refuses arguments that are not floating-point, and with them every model that counts batches or draws
    random numbers. Bytes are exact in every floating-point dtype, so a model may also be cast as a whole; their
    gradient is zero. `get_value` and `set_value`, by which checkpoints are read and written, know the numbers only.
    """

    def create_value(self, value: jax.Array) -> jax.Array:
        return self._applied("_to_bytes", value)

    def get_value(self, **index: Any) -> jax.Array:
        value = self._applied("_from_bytes", self.get_raw_value())
        return value[index["index"]] if index else value

    def set_value(self, value: jax.Array, **index: Any) -> None:
        if index:
            value = self.get_value().at[index["index"]].set(value)
        super().set_value(self._applied("_to_bytes", value))

    def _applied(self, method: str, value: Any) -> Any:
        """Of arrays, and of their shapes; whatever else stands in their place stays."""
        if isinstance(value, jax.ShapeDtypeStruct | jax.Array | np.ndarray):
            apply = _shape if isinstance(value, jax.ShapeDtypeStruct) else _compiled
            return apply(type(self), method, self.get_metadata("impl", None), value)
        return value

    @staticmethod
    def _to_bytes(value: jax.Array, impl: str | None) -> jax.Array:
        return lax.bitcast_convert_type(value, jnp.uint8).astype(jnp.float32)

    @staticmethod
    def _from_bytes(value: jax.Array, impl: str | None) -> jax.Array:
        raise NotImplementedError


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _compiled(kind: type[_InBytes], method: str, impl: str | None, value: jax.Array) -> jax.Array:
    return getattr(kind, method)(value, impl)


@functools.cache
def _shape(kind: type[_InBytes], method: str, impl: str | None, value: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.eval_shape(lambda value: getattr(kind, method)(value, impl), value)


def _number(value: jax.Array, dtype: DTypeLike) -> jax.Array:
    if not jnp.issubdtype(value.dtype, jnp.floating):  # a program was given the number itself
        return value
    return lax.bitcast_convert_type(jnp.round(value).astype(jnp.uint8), dtype)


class _Int32(_InBytes):
    @staticmethod
    def _to_bytes(value: jax.Array, impl: str | None) -> jax.Array:
        return _InBytes._to_bytes(value.astype(jnp.int32), impl)

    @staticmethod
    def _from_bytes(value: jax.Array, impl: str | None) -> jax.Array:
        return _number(value, jnp.int32)


class Count(_Int32, nnx.BatchStat):
    """A statistic that is a whole number, int32."""


class IndexBuffer(_Int32, Buffer):
    """A `Buffer` of whole numbers, int32, such as positions in another table."""


class StreamCount(_InBytes, nnx.RngCount):
    """How many keys a random stream has given, uint32."""

    @staticmethod
    def _from_bytes(value: jax.Array, impl: str | None) -> jax.Array:
        return _number(value, jnp.uint32)


class StreamKey(_InBytes, nnx.RngKey):
    """A random stream's key."""

    @staticmethod
    def _to_bytes(value: jax.Array, impl: str | None) -> jax.Array:
        return _InBytes._to_bytes(jax.random.key_data(value), impl)

    @staticmethod
    def _from_bytes(value: jax.Array, impl: str | None) -> jax.Array:
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            return value
        return jax.random.wrap_key_data(_number(value, jnp.uint32), impl=impl)
