"""Autoencoders: plain, sparse, denoising and contractive.

Hinton and Salakhutdinov 2006, Reducing the Dimensionality of Data with Neural Networks; Ng 2011, Sparse Autoencoder
(CS294A); Vincent et al. 2010, Stacked Denoising Autoencoders; Rifai et al. 2011, Contractive Auto-Encoders. Reference:
convert/twins/autoencoder.py. Weight decay, the oldest way to keep the weights small, is the optimizer's.
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from jaxzoo.errors import UsageError
from jaxzoo.generative.pixels import (
    bernoulli_kl,
    check_corruption,
    corrupted,
    corruption_noise,
    cross_entropy,
    pixel_error,
    squared_error,
)
from jaxzoo.generative.registration import register_reconstruction
from jaxzoo.nn import Conv, ConvTranspose, Flatten, Linear, ReLU, Sequential, Sigmoid, Unflatten, unflatten
from jaxzoo.nn.dropout import Stream

Arrays = dict[str, jax.Array]
Shape = tuple[int, int, int]


class Autoencoder(nnx.Module):
    """An encoder and a decoder, whose outputs are logits of the pixels.

    Args:
      shape: of images, (H, W, C).
      encoder: images (N, H, W, C) to codes (N, K).
      decoder: codes to logits (N, H, W, C).
    """

    measures: Mapping[str, str] = {"error": ""}

    def __init__(self, shape: Shape, encoder: Sequential, decoder: Sequential):
        self.shape, self.encoder, self.decoder = tuple(shape), encoder, decoder

    def __call__(self, images: jax.Array) -> Arrays:
        code = self.encoder(images)
        return {"images": jax.nn.sigmoid(self.decoder(code)), "code": code}

    def losses(self, images: jax.Array, noise: None = None) -> Arrays:
        """The cross-entropy of the pixels in nats, added up over each image; the mean of a batch."""
        return {"reconstruction": cross_entropy(self.decoder(self.encoder(images)), images).mean()}

    def scores(self, images: jax.Array, keys: jax.Array) -> Arrays:
        return {"error": pixel_error(self(images)["images"], images)}

    def filters(self) -> jax.Array:
        """The weights of each unit of the first layer as images (units, h, w, C)."""
        return first_filters(self.encoder, self.shape)


def first_filters(encoder: Sequential, shape: Shape) -> jax.Array:
    """Of an encoder that begins with a convolution, or with a linear layer on flat images of this shape."""
    first = next(layer for layer in encoder if isinstance(layer, Conv | Linear))
    kernel = first.kernel[...]
    return jnp.moveaxis(kernel, -1, 0) if isinstance(first, Conv) else unflatten(kernel.T, shape)


class SparseAutoencoder(Autoencoder):
    """A wide code of sigmoid units of which few are active (Ng 2011, §3); the decoder is linear.

    Args:
      shape: of images, (H, W, C).
      code: number of units.
      penalty: "kl", of the units' mean activations over a batch from `rho`; or "l1", the sum of activations.
      weight: of the penalty, β.
    """

    def __init__(
        self, shape: Shape, code: int = 256, penalty: str = "kl", rho: float = 0.05, weight: float = 3.0, *, rngs
    ):
        if penalty not in ("kl", "l1"):
            raise UsageError(f"penalty is {penalty!r}; it must be one of: kl, l1")
        if not 0 < rho < 1:
            raise UsageError(f"rho is {rho}; it must lie between 0 and 1")
        pixels = math.prod(shape)
        super().__init__(
            shape,
            Sequential(Flatten(), Linear(pixels, code, rngs=rngs), Sigmoid()),
            Sequential(Linear(code, pixels, rngs=rngs), Unflatten(shape)),
        )
        self.penalty, self.rho, self.weight = penalty, rho, weight

    def __call__(self, images: jax.Array) -> Arrays:
        code = self.encoder(images)
        return {"images": self.decoder(code), "code": code}

    def losses(self, images: jax.Array, noise: None = None) -> Arrays:
        """Half the squared distance of each image, and the penalty times its weight; the mean of a batch."""
        code = self.encoder(images)
        sparsity = bernoulli_kl(self.rho, code.mean(0)).sum() if self.penalty == "kl" else code.sum(1).mean()
        return {
            "reconstruction": squared_error(self.decoder(code), images).mean(),
            "sparsity": self.weight * sparsity,
        }


class DenoisingAutoencoder(Autoencoder):
    """Reconstructs images from what is left of them; see `jaxzoo.generative.pixels.corrupted`.

    Args:
      corruption: "gaussian", "masking" or "salt_and_pepper".
      level: standard deviation of the noise, or share of the pixels.
    """

    measures = {"denoised_error": "", "noisy_error": "", "error": ""}

    def __init__(
        self,
        shape: Shape,
        encoder: Sequential,
        decoder: Sequential,
        corruption: str = "gaussian",
        level: float = 0.3,
        *,
        rngs: nnx.Rngs,
    ):
        check_corruption(corruption, level)
        super().__init__(shape, encoder, decoder)
        self.corruption, self.level = corruption, level
        self.sampling = Stream(rngs.sampling(), tag="sampling")

    def corrupted(self, images: jax.Array, noise: jax.Array) -> jax.Array:
        return corrupted(self.corruption, images, noise, self.level)

    def noise(self, key: jax.Array, images: jax.Array) -> jax.Array:
        return corruption_noise(self.corruption, key, images.shape, images.dtype)

    def losses(self, images: jax.Array, noise: jax.Array | None = None) -> Arrays:
        """The cross-entropy of the clean pixels, given corrupted ones; `noise` as `corrupted` takes it."""
        noise = self.noise(self.sampling(), images) if noise is None else noise
        logits = self.decoder(self.encoder(self.corrupted(images, noise)))
        return {"reconstruction": cross_entropy(logits, images).mean()}

    def scores(self, images: jax.Array, keys: jax.Array) -> Arrays:
        """Errors of noisy images, before and after, and of clean ones after."""
        noise = jax.vmap(self.noise)(keys, images)
        noisy = self.corrupted(images, noise)
        return {
            "denoised_error": pixel_error(self(noisy)["images"], images),
            "noisy_error": pixel_error(noisy, images),
        } | super().scores(images, keys)


class ContractiveAutoencoder(nnx.Module):
    """A sigmoid layer, its transpose as decoder, and a penalty on the code's derivatives (Rifai et al. 2011).

    Leaves: those of `encoder`, a Linear, and decoder_bias (pixels,).

    Args:
      shape: of images, (H, W, C).
      code: number of units.
      weight: of the penalty, λ.
    """

    measures: Mapping[str, str] = {"error": ""}

    def __init__(self, shape: Shape, code: int = 128, weight: float = 0.1, *, rngs: nnx.Rngs):
        self.shape, self.weight = tuple(shape), weight
        self.encoder = Sequential(Flatten(), Linear(math.prod(shape), code, rngs=rngs), Sigmoid())
        self.decoder_bias = nnx.Param(jnp.zeros(math.prod(shape), jnp.float32))

    def decode(self, code: jax.Array) -> jax.Array:
        """Logits of the pixels (N, H, W, C)."""
        return unflatten(code @ self.encoder[1].kernel[...].T + self.decoder_bias[...], self.shape)

    def __call__(self, images: jax.Array) -> Arrays:
        code = self.encoder(images)
        return {"images": jax.nn.sigmoid(self.decode(code)), "code": code}

    def losses(self, images: jax.Array, noise: None = None) -> Arrays:
        """The cross-entropy of the pixels, and the squared Frobenius norm of the code's Jacobian times its weight."""
        code = self.encoder(images)
        return {
            "reconstruction": cross_entropy(self.decode(code), images).mean(),
            "contraction": self.weight * self.squared_jacobian(code).mean(),
        }

    def squared_jacobian(self, code: jax.Array) -> jax.Array:
        """‖∂code / ∂image‖² (N,): of a unit h its weights' squares times (h (1 - h))²."""
        slopes = jnp.square(code * (1 - code))
        return slopes @ jnp.square(self.encoder[1].kernel[...]).sum(0)

    scores = Autoencoder.scores
    filters = Autoencoder.filters


def dense(shape: Shape, hidden: int, code: int, rngs: nnx.Rngs) -> tuple[Sequential, Sequential]:
    """An encoder and a decoder of two linear layers each."""
    pixels = math.prod(shape)
    encoder = (Flatten(), Linear(pixels, hidden, rngs=rngs), ReLU(), Linear(hidden, code, rngs=rngs))
    decoder = (Linear(code, hidden, rngs=rngs), ReLU(), Linear(hidden, pixels, rngs=rngs), Unflatten(shape))
    return Sequential(*encoder), Sequential(*decoder)


def convolutional_encoder(channels: int, width: int, rngs: nnx.Rngs) -> list[nnx.Module]:
    """Two convolutions, each halving height and width: (N, H, W, C) to (N, H / 4 · W / 4 · 2 width)."""
    first = Conv(channels, width, 3, 2, 1, rngs=rngs)
    return [first, ReLU(), Conv(width, 2 * width, 3, 2, 1, rngs=rngs), ReLU(), Flatten()]


def convolutional_decoder(shape: Shape, width: int, code: int, rngs: nnx.Rngs) -> Sequential:
    """The way back: (N, code) to (N, H, W, C)."""
    height, small_width, channels = shape[0] // 4, shape[1] // 4, shape[2]
    return Sequential(
        Linear(code, features(shape, width), rngs=rngs),
        ReLU(),
        Unflatten((height, small_width, 2 * width)),
        ConvTranspose(2 * width, width, 4, 2, 1, rngs=rngs),
        ReLU(),
        ConvTranspose(width, channels, 4, 2, 1, rngs=rngs),
    )


def features(shape: Shape, width: int) -> int:
    """What the convolutions leave of an image. Raises UsageError unless 4 divides its height and width."""
    if shape[0] % 4 or shape[1] % 4:
        raise UsageError(f"image_size is {shape[0]}; convolutional autoencoders need a multiple of 4")
    return shape[0] // 4 * (shape[1] // 4) * 2 * width


HINTON = "Hinton and Salakhutdinov 2006, doi:10.1126/science.1127647"


@register_reconstruction(paper=HINTON, twin="convert.twins.autoencoder:autoencoder")
def autoencoder(
    *, hidden: int = 400, code: int = 32, image_size: int = 28, in_channels: int = 1, rngs: nnx.Rngs
) -> Autoencoder:
    shape = (image_size, image_size, in_channels)
    return Autoencoder(shape, *dense(shape, hidden, code, rngs))


@register_reconstruction(paper=HINTON, twin="convert.twins.autoencoder:conv_autoencoder")
def conv_autoencoder(
    *, width: int = 32, code: int = 32, image_size: int = 28, in_channels: int = 1, rngs: nnx.Rngs
) -> Autoencoder:
    shape = (image_size, image_size, in_channels)
    encoder = convolutional_encoder(in_channels, width, rngs)
    encoder += [Linear(features(shape, width), code, rngs=rngs)]
    return Autoencoder(shape, Sequential(*encoder), convolutional_decoder(shape, width, code, rngs))


@register_reconstruction(
    paper="Ng 2011, Sparse Autoencoder, CS294A lecture notes", twin="convert.twins.autoencoder:sparse_autoencoder"
)
def sparse_autoencoder(
    *,
    code: int = 256,
    penalty: str = "kl",
    rho: float = 0.05,
    weight: float = 3.0,
    image_size: int = 28,
    in_channels: int = 1,
    rngs: nnx.Rngs,
) -> SparseAutoencoder:
    return SparseAutoencoder((image_size, image_size, in_channels), code, penalty, rho, weight, rngs=rngs)


@register_reconstruction(
    paper="Vincent et al. 2010, JMLR 11, 3371-3408", twin="convert.twins.autoencoder:denoising_autoencoder"
)
def denoising_autoencoder(
    *,
    hidden: int = 400,
    code: int = 64,
    corruption: str = "gaussian",
    level: float = 0.3,
    image_size: int = 28,
    in_channels: int = 1,
    rngs: nnx.Rngs,
) -> DenoisingAutoencoder:
    shape = (image_size, image_size, in_channels)
    return DenoisingAutoencoder(shape, *dense(shape, hidden, code, rngs), corruption, level, rngs=rngs)


@register_reconstruction(
    paper="Rifai et al. 2011, ICML, 833-840", twin="convert.twins.autoencoder:contractive_autoencoder"
)
def contractive_autoencoder(
    *, code: int = 128, weight: float = 0.1, image_size: int = 28, in_channels: int = 1, rngs: nnx.Rngs
) -> ContractiveAutoencoder:
    return ContractiveAutoencoder((image_size, image_size, in_channels), code, weight, rngs=rngs)
