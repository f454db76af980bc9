"""Autoencoders in PyTorch, written from the papers that jaxzoo/generative/autoencoder.py names."""

import torch
from torch import nn
from torch.nn import functional as F


def cross_entropy(logits, images):
    return F.binary_cross_entropy_with_logits(logits, images, reduction="sum") / len(images)


class Autoencoder(nn.Module):
    def __init__(self, encoder, decoder):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, images):
        code = self.encoder(images)
        return {"images": self.decoder(code).sigmoid(), "code": code}

    def losses(self, images, noise=None):
        return {"reconstruction": cross_entropy(self.decoder(self.encoder(images)), images)}


class SparseAutoencoder(Autoencoder):
    def __init__(self, shape, code, penalty, rho, weight):
        channels, height, width = shape
        pixels = channels * height * width
        super().__init__(
            nn.Sequential(nn.Flatten(), nn.Linear(pixels, code), nn.Sigmoid()),
            nn.Sequential(nn.Linear(code, pixels), nn.Unflatten(1, shape)),
        )
        self.penalty, self.rho, self.weight = penalty, rho, weight

    def forward(self, images):
        code = self.encoder(images)
        return {"images": self.decoder(code), "code": code}

    def losses(self, images, noise=None):
        code = self.encoder(images)
        error = F.mse_loss(self.decoder(code), images, reduction="sum") / 2 / len(images)
        if self.penalty == "l1":
            return {"reconstruction": error, "sparsity": self.weight * code.abs().sum(1).mean()}
        rates, rho = (
            torch.distributions.Bernoulli(code.mean(0)),
            torch.distributions.Bernoulli(code.new_tensor(self.rho)),
        )
        return {
            "reconstruction": error,
            "sparsity": self.weight * torch.distributions.kl_divergence(rho, rates).sum(),
        }


class DenoisingAutoencoder(Autoencoder):
    def __init__(self, encoder, decoder, corruption, level):
        super().__init__(encoder, decoder)
        self.corruption, self.level = corruption, level

    def corrupted(self, images, noise):
        if self.corruption == "gaussian":
            return images + self.level * noise
        if self.corruption == "masking":
            return images.masked_fill(noise < self.level, 0)
        return images.masked_fill(noise < self.level / 2, 0).masked_fill(noise >= 1 - self.level / 2, 1)

    def losses(self, images, noise):
        return {"reconstruction": cross_entropy(self.decoder(self.encoder(self.corrupted(images, noise))), images)}


class ContractiveAutoencoder(nn.Module):
    """The penalty comes from torch's own derivatives."""

    def __init__(self, pixels, code, weight):
        super().__init__()
        self.weight = weight
        self.decoder_bias = nn.Parameter(torch.zeros(pixels))
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, code), nn.Sigmoid())

    def decode(self, code, images):
        return F.linear(code, self.encoder[1].weight.t(), self.decoder_bias).view_as(images)

    def forward(self, images):
        code = self.encoder(images)
        return {"images": self.decode(code, images).sigmoid(), "code": code}

    def losses(self, images, noise=None):
        jacobian = torch.autograd.functional.jacobian(lambda x: self.encoder(x).sum(0), images, create_graph=True)
        return {
            "reconstruction": cross_entropy(self.decode(self.encoder(images), images), images),
            "contraction": self.weight * jacobian.square().sum() / len(images),
        }


def dense(shape, hidden, code):
    channels, height, width = shape
    pixels = channels * height * width
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, code))
    decoder = nn.Sequential(nn.Linear(code, hidden), nn.ReLU(), nn.Linear(hidden, pixels), nn.Unflatten(1, shape))
    return encoder, decoder


def convolutional_encoder(channels, width):
    return [
        nn.Conv2d(channels, width, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
    ]


def convolutional_decoder(shape, width, code):
    channels, height, side = shape
    small = (2 * width, height // 4, side // 4)
    return nn.Sequential(
        nn.Linear(code, small[0] * small[1] * small[2]),
        nn.ReLU(),
        nn.Unflatten(1, small),
        nn.ConvTranspose2d(2 * width, width, 4, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(width, channels, 4, 2, 1),
    )


def features(shape, width):
    return 2 * width * (shape[1] // 4) * (shape[2] // 4)


def autoencoder(hidden=400, code=32, image_size=28, in_channels=1):
    return Autoencoder(*dense((in_channels, image_size, image_size), hidden, code))


def conv_autoencoder(width=32, code=32, image_size=28, in_channels=1):
    shape = (in_channels, image_size, image_size)
    encoder = nn.Sequential(*convolutional_encoder(in_channels, width), nn.Linear(features(shape, width), code))
    return Autoencoder(encoder, convolutional_decoder(shape, width, code))


def sparse_autoencoder(code=256, penalty="kl", rho=0.05, weight=3.0, image_size=28, in_channels=1):
    return SparseAutoencoder((in_channels, image_size, image_size), code, penalty, rho, weight)


def denoising_autoencoder(hidden=400, code=64, corruption="gaussian", level=0.3, image_size=28, in_channels=1):
    return DenoisingAutoencoder(*dense((in_channels, image_size, image_size), hidden, code), corruption, level)


def contractive_autoencoder(code=128, weight=0.1, image_size=28, in_channels=1):
    return ContractiveAutoencoder(image_size**2 * in_channels, code, weight)
