"""Variational autoencoders.

Kingma and Welling 2014, Auto-Encoding Variational Bayes, arXiv:1312.6114; Higgins et al. 2017, β-VAE; Burda, Grosse and
Salakhutdinov 2016, Importance Weighted Autoencoders, arXiv:1509.00519. Reference: convert/twins/vae.py, with the names
and sizes of PyTorch's example.
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from jaxzoo.errors import UsageError
from jaxzoo.generative.autoencoder import (
    Shape,
    convolutional_decoder,
    convolutional_encoder,
    features,
    first_filters,
)
from jaxzoo.generative.pixels import cross_entropy, gaussian_nll, kl_from_standard_normal, pixel_error
from jaxzoo.generative.registration import register_reconstruction
from jaxzoo.nn import Linear, Sequential, flatten, relu, unflatten
from jaxzoo.nn.dropout import Stream

Arrays = dict[str, jax.Array]
LIKELIHOODS = ("bernoulli", "gaussian")
SAMPLES = 50  # of the importance-weighted bound in an evaluation


class VAE(nnx.Module):
    """Codes are normal: q(z | x) = N(mean, exp(logvar)), with the prior N(0, 1).

    Args:
      shape: of images, (H, W, C).
      beta: weight of the divergence from the prior in the loss; 1 makes it a bound of -log p(x).
      likelihood: "bernoulli", of logits; or "gaussian", of means and the standard deviation `sigma`.
    """

    measures: Mapping[str, str] = {"nll": "nats", "nll_iw": "nats", "kl": "nats", "error": ""}

    def __init__(
        self,
        shape: Shape,
        hidden: int = 400,
        code: int = 20,
        beta: float = 1.0,
        likelihood: str = "bernoulli",
        sigma: float = 0.1,
        *,
        rngs: nnx.Rngs,
    ):
        self._configure(shape, code, beta, likelihood, sigma, rngs)
        pixels = math.prod(shape)
        self.fc1 = Linear(pixels, hidden, rngs=rngs)
        self.fc21, self.fc22 = (Linear(hidden, code, rngs=rngs) for _ in range(2))
        self.fc3 = Linear(code, hidden, rngs=rngs)
        self.fc4 = Linear(hidden, pixels, rngs=rngs)

    def _configure(self, shape: Shape, code: int, beta: float, likelihood: str, sigma: float, rngs: nnx.Rngs) -> None:
        if likelihood not in LIKELIHOODS:
            raise UsageError(f"likelihood is {likelihood!r}; it must be one of: {', '.join(LIKELIHOODS)}")
        if beta < 0 or sigma <= 0:
            raise UsageError(f"beta is {beta} and sigma {sigma}; they must be at least 0, and above 0")
        self.shape, self.code, self.beta, self.likelihood, self.sigma = tuple(shape), code, beta, likelihood, sigma
        self.sampling = Stream(rngs.sampling(), tag="sampling")

    def posterior(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and logarithm of the variance of q(z | x), (N, code) each."""
        hidden = relu(self.fc1(flatten(images)))
        return self.fc21(hidden), self.fc22(hidden)

    def decode(self, code: jax.Array) -> jax.Array:
        """Codes (N, code) to the likelihood's parameters (N, H, W, C): logits or means."""
        return unflatten(self.fc4(relu(self.fc3(code))), self.shape)

    def means(self, code: jax.Array) -> jax.Array:
        """Images that codes stand for."""
        outputs = self.decode(code)
        return jax.nn.sigmoid(outputs) if self.likelihood == "bernoulli" else outputs

    def __call__(self, images: jax.Array) -> Arrays:
        """Reconstructions from the mean codes."""
        code, logvar = self.posterior(images)
        return {"images": self.means(code), "code": code, "logvar": logvar}

    def nll(self, code: jax.Array, images: jax.Array) -> jax.Array:
        """-log p(x | z) in nats (N,)."""
        outputs = self.decode(code)
        if self.likelihood == "bernoulli":
            return cross_entropy(outputs, images)
        return gaussian_nll(outputs, images, self.sigma)

    def losses(self, images: jax.Array, noise: jax.Array | None = None) -> Arrays:
        """The two parts of -ELBO in nats, the mean of a batch; `noise` (N, code) is standard normal."""
        mean, logvar = self.posterior(images)
        noise = jax.random.normal(self.sampling(), mean.shape, mean.dtype) if noise is None else noise
        return {
            "reconstruction": self.nll(mean + noise * jnp.exp(logvar / 2), images).mean(),
            "kl": self.beta * kl_from_standard_normal(mean, logvar).mean(),
        }

    def elbo(self, images: jax.Array, noise: jax.Array) -> jax.Array:
        """The evidence lower bound in nats (N,), whatever β is, by one sample and the analytic divergence."""
        mean, logvar = self.posterior(images)
        return -self.nll(mean + noise * jnp.exp(logvar / 2), images) - kl_from_standard_normal(mean, logvar)

    def importance_weighted_bound(self, images: jax.Array, noise: jax.Array) -> jax.Array:
        """log Σ_k p(x, z_k) / q(z_k | x) / K in nats (N,), a tighter bound of log p(x); `noise` is (K, N, code)."""
        mean, logvar = self.posterior(images)

        def log_weight(noise: jax.Array) -> jax.Array:
            code = mean + noise * jnp.exp(logvar / 2)
            prior, posterior = -jnp.square(code) / 2, -(jnp.square(noise) + logvar) / 2  # without the same constants
            return -self.nll(code, images) + (prior - posterior).sum(-1)

        return jax.nn.logsumexp(jax.lax.map(log_weight, noise), axis=0) - math.log(len(noise))

    def scores(self, images: jax.Array, keys: jax.Array) -> Arrays:
        """-ELBO, -log p(x) bounded by 50 importance-weighted samples, the divergence, the error of reconstructions."""
        draw = jax.vmap(lambda key: jax.random.normal(key, (SAMPLES, self.code), images.dtype), out_axes=1)
        noise, found = draw(keys), self(images)
        return {
            "nll": -self.elbo(images, noise[0]),
            "nll_iw": -self.importance_weighted_bound(images, noise),
            "kl": kl_from_standard_normal(found["code"], found["logvar"]),
            "error": pixel_error(found["images"], images),
        }

    def sample(self, key: jax.Array, count: int) -> jax.Array:
        """Images that codes from the prior stand for."""
        return self.means(jax.random.normal(key, (count, self.code)))

    def filters(self) -> jax.Array:
        """The weights of each unit of the first layer, as images (units, H, W, C)."""
        return unflatten(self.fc1.kernel[...].T, self.shape)


class ConvVAE(VAE):
    """The same with convolutions of stride 2; `width` is the number of channels after the first."""

    def __init__(
        self,
        shape: Shape,
        width: int = 32,
        code: int = 20,
        beta: float = 1.0,
        likelihood: str = "bernoulli",
        sigma: float = 0.1,
        *,
        rngs: nnx.Rngs,
    ):
        self._configure(shape, code, beta, likelihood, sigma, rngs)
        self.encoder = Sequential(*convolutional_encoder(shape[-1], width, rngs))
        self.fc21, self.fc22 = (Linear(features(shape, width), code, rngs=rngs) for _ in range(2))
        self.decoder = convolutional_decoder(shape, width, code, rngs)

    def posterior(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        hidden = self.encoder(images)
        return self.fc21(hidden), self.fc22(hidden)

    def decode(self, code: jax.Array) -> jax.Array:
        return self.decoder(code)

    def filters(self) -> jax.Array:
        return first_filters(self.encoder, self.shape)


KINGMA = "Kingma and Welling 2014, arXiv:1312.6114"


@register_reconstruction(paper=KINGMA, twin="convert.twins.vae:vae")
def vae(
    *,
    hidden: int = 400,
    code: int = 20,
    beta: float = 1.0,
    likelihood: str = "bernoulli",
    sigma: float = 0.1,
    image_size: int = 28,
    in_channels: int = 1,
    rngs: nnx.Rngs,
) -> VAE:
    return VAE((image_size, image_size, in_channels), hidden, code, beta, likelihood, sigma, rngs=rngs)


@register_reconstruction(paper=KINGMA, twin="convert.twins.vae:conv_vae")
def conv_vae(
    *,
    width: int = 32,
    code: int = 20,
    beta: float = 1.0,
    likelihood: str = "bernoulli",
    sigma: float = 0.1,
    image_size: int = 28,
    in_channels: int = 1,
    rngs: nnx.Rngs,
) -> ConvVAE:
    return ConvVAE((image_size, image_size, in_channels), width, code, beta, likelihood, sigma, rngs=rngs)
