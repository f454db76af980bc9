"""Whole numbers among a model's variables, kept so that `jax.grad` takes the model as it is."""

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
        return _applied(self._to_bytes, value)

    def get_value(self, **index: Any) -> jax.Array:
        value = _applied(self._from_bytes, self.get_raw_value())
        return value[index["index"]] if index else value

    def set_value(self, value: jax.Array, **index: Any) -> None:
        if index:
            value = self.get_value().at[index["index"]].set(value)
        super().set_value(_applied(self._to_bytes, value))

    def _to_bytes(self, value: jax.Array) -> jax.Array:
        return lax.bitcast_convert_type(value, jnp.uint8).astype(jnp.float32)

    def _from_bytes(self, value: jax.Array) -> jax.Array:
        raise NotImplementedError


def _applied(function, value: Any) -> Any:
    """To arrays, and to their shapes; whatever else stands in their place stays."""
    if isinstance(value, jax.ShapeDtypeStruct):
        return jax.eval_shape(function, value)
    return function(value) if isinstance(value, jax.Array | np.ndarray) else value


def _number(value: jax.Array, dtype: DTypeLike) -> jax.Array:
    if not jnp.issubdtype(value.dtype, jnp.floating):  # a program was given the number itself
        return value
    return lax.bitcast_convert_type(jnp.round(value).astype(jnp.uint8), dtype)


class _Int32(_InBytes):
    def _to_bytes(self, value: jax.Array) -> jax.Array:
        return super()._to_bytes(value.astype(jnp.int32))

    def _from_bytes(self, value: jax.Array) -> jax.Array:
        return _number(value, jnp.int32)


class Count(_Int32, nnx.BatchStat):
    """A statistic that is a whole number, int32."""


class IndexBuffer(_Int32, Buffer):
    """A `Buffer` of positions in another table, int32."""


class StreamCount(_InBytes, nnx.RngCount):
    """How many keys a random stream has given, uint32."""

    def _from_bytes(self, value: jax.Array) -> jax.Array:
        return _number(value, jnp.uint32)


class StreamKey(_InBytes, nnx.RngKey):
    """A random stream's key."""

    def _to_bytes(self, value: jax.Array) -> jax.Array:
        return super()._to_bytes(jax.random.key_data(value))

    def _from_bytes(self, value: jax.Array) -> jax.Array:
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            return value
        return jax.random.wrap_key_data(_number(value, jnp.uint32), impl=self.get_metadata("impl"))
