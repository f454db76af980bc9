"""Computing in float32 at least, and going back."""

import jax
import jax.numpy as jnp

from jaxzoo.errors import UsageError


def refuse_whole_numbers(layer: object, x: jax.Array) -> None:
    """Raises UsageError for images as they come from files, which nobody has normalised."""
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        raise UsageError(
            f"{type(layer).__name__} was given {x.dtype} and computes with floating-point numbers: normalise images as "
            "jaxzoo.model_info(NAME).preprocess says, or convert what is no image with astype(jnp.float32)"
        )


def wide(x: jax.Array) -> jax.Array:
    """In float32 at least, for sums."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def narrow(y: jax.Array, x: jax.Array) -> jax.Array:
    """Back to the dtype of `x`, unless that is one of whole numbers."""
    return y.astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else y
