"""The meaning of networks' outputs."""

import jax
import jax.numpy as jnp


def class_logits(logits: jax.Array) -> jax.Array:
    """Logits (..., C) of C > 1 classes, of which a softmax makes probabilities; (..., 2) of a single one.

    A single output z is that of a sigmoid: the probability of the second of two classes. As the logits (0, z) their
    softmax is (1 - sigmoid(z), sigmoid(z)), their cross-entropy torch's `binary_cross_entropy_with_logits`, and the
    larger one the class at a threshold of 0.5.
    """
    return jnp.concatenate([jnp.zeros_like(logits), logits], -1) if logits.shape[-1] == 1 else logits
