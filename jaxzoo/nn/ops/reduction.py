"""What losses over many boxes make of their values."""

import jax


def reduce(loss: jax.Array, reduction: str) -> jax.Array:
    """The values themselves ("none"), their "mean", which is 0 for none at all, or their "sum"."""
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction is {reduction!r}; it must be none, mean or sum")
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" or loss.size == 0 else loss.mean()
