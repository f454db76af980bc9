"""Likelihoods of pixels, divergences, and corruptions of images."""

import math

import jax
import jax.numpy as jnp

from jaxzoo.errors import UsageError


def per_image(values: jax.Array) -> jax.Array:
    """(N, ...) added up to (N,)."""
    return values.sum(tuple(range(1, values.ndim)))


def cross_entropy(logits: jax.Array, images: jax.Array) -> jax.Array:
    """-log p(images) in nats (N,), pixels being Bernoulli variables; images from 0 to 1 count as probabilities, so this
    is the mean over all ways to make them black and white."""
    return per_image(jnp.logaddexp(0, logits) - images * logits)


def squared_error(outputs: jax.Array, images: jax.Array) -> jax.Array:
    """Half the squared distance (N,)."""
    return per_image(jnp.square(outputs - images)) / 2


def gaussian_nll(means: jax.Array, images: jax.Array, sigma: float) -> jax.Array:
    """-log p(images) in nats (N,), pixels being normal variables with standard deviation `sigma`."""
    normaliser = math.log(sigma * math.sqrt(2 * math.pi)) * math.prod(images.shape[1:])
    return squared_error(means, images) / sigma**2 + normaliser


def pixel_error(found: jax.Array, images: jax.Array) -> jax.Array:
    """Mean squared error of a pixel (N,)."""
    return jnp.square(found - images).mean(tuple(range(1, images.ndim)))


def kl_from_standard_normal(mean: jax.Array, logvar: jax.Array) -> jax.Array:
    """KL(N(mean, exp(logvar)) ‖ N(0, 1)) in nats, added up over the last axis (Kingma and Welling 2014, appendix B)."""
    return (jnp.exp(logvar) + jnp.square(mean) - 1 - logvar).sum(-1) / 2


def bernoulli_kl(rho: float, rates: jax.Array) -> jax.Array:
    """KL(ρ ‖ rate) of Bernoulli variables in nats, elementwise."""
    return rho * (math.log(rho) - jnp.log(rates)) + (1 - rho) * (math.log1p(-rho) - jnp.log1p(-rates))


CORRUPTIONS = ("gaussian", "masking", "salt_and_pepper")


def check_corruption(corruption: str, level: float) -> None:
    """Raises UsageError for an unknown corruption, or a level that it cannot have."""
    if corruption not in CORRUPTIONS:
        raise UsageError(f"corruption is {corruption!r}; it must be one of: {', '.join(CORRUPTIONS)}")
    if level < 0 or (level > 1 and corruption != "gaussian"):
        raise UsageError(f"the level of corruption is {level}; it must be between 0 and 1")


def corruption_noise(corruption: str, key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """What `corrupted` takes: standard normal for "gaussian", else uniform in [0, 1)."""
    return (jax.random.normal if corruption == "gaussian" else jax.random.uniform)(key, shape, dtype)


def corrupted(corruption: str, images: jax.Array, noise: jax.Array, level: float) -> jax.Array:
    """Noisy images (Vincent et al. 2010, §3.3), for `noise` of their shape.

    "gaussian" adds noise of standard deviation `level`; "masking" makes that share of the pixels black;
    "salt_and_pepper" makes one half of that share black and the other half white.
    """
    if corruption == "gaussian":
        return images + level * noise
    if corruption == "masking":
        return jnp.where(noise < level, 0, images)
    return jnp.where(noise < level / 2, 0, jnp.where(noise >= 1 - level / 2, 1, images)).astype(images.dtype)
