"""Computing in float32 at least, and going back."""

import jax
import jax.numpy as jnp


def wide(x: jax.Array) -> jax.Array:
    """In float32 at least, for sums."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def narrow(y: jax.Array, x: jax.Array) -> jax.Array:
    """Back to the dtype of `x`, unless that is one of whole numbers."""
    return y.astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else y
