"""Variational autoencoders in PyTorch: the fully connected one has the layers of PyTorch's own example."""

import torch
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from convert.twins.autoencoder import convolutional_decoder, convolutional_encoder, features


class VAE(nn.Module):
    def __init__(self, shape, hidden, code, beta, likelihood, sigma):
        super().__init__()
        self._configure(shape, beta, likelihood, sigma)
        pixels = shape[0] * shape[1] * shape[2]
        self.fc1 = nn.Linear(pixels, hidden)
        self.fc21, self.fc22 = nn.Linear(hidden, code), nn.Linear(hidden, code)
        self.fc3 = nn.Linear(code, hidden)
        self.fc4 = nn.Linear(hidden, pixels)

    def _configure(self, shape, beta, likelihood, sigma):
        self.size, self.beta, self.likelihood, self.sigma = shape, beta, likelihood, sigma

    def posterior(self, images):
        hidden = self.fc1(images.flatten(1)).relu()
        return self.fc21(hidden), self.fc22(hidden)

    def decode(self, code):
        return self.fc4(self.fc3(code).relu()).unflatten(1, self.size)

    def forward(self, images):
        code, logvar = self.posterior(images)
        outputs = self.decode(code)
        return {
            "images": outputs.sigmoid() if self.likelihood == "bernoulli" else outputs,
            "code": code,
            "logvar": logvar,
        }

    def losses(self, images, noise):
        mean, logvar = self.posterior(images)
        outputs = self.decode(mean + noise * (logvar / 2).exp())
        if self.likelihood == "bernoulli":
            nll = F.binary_cross_entropy_with_logits(outputs, images, reduction="sum")
        else:
            nll = -Normal(outputs, self.sigma).log_prob(images).sum()
        prior = Normal(torch.zeros_like(mean), torch.ones_like(mean))
        kl = kl_divergence(Normal(mean, (logvar / 2).exp()), prior).sum()
        return {"reconstruction": nll / len(images), "kl": self.beta * kl / len(images)}


class ConvVAE(VAE):
    def __init__(self, shape, width, code, beta, likelihood, sigma):
        nn.Module.__init__(self)
        self._configure(shape, beta, likelihood, sigma)
        self.encoder = nn.Sequential(*convolutional_encoder(shape[0], width))
        self.fc21, self.fc22 = nn.Linear(features(shape, width), code), nn.Linear(features(shape, width), code)
        self.decoder = convolutional_decoder(shape, width, code)

    def posterior(self, images):
        hidden = self.encoder(images)
        return self.fc21(hidden), self.fc22(hidden)

    def decode(self, code):
        return self.decoder(code)


def vae(hidden=400, code=20, beta=1.0, likelihood="bernoulli", sigma=0.1, image_size=28, in_channels=1):
    return VAE((in_channels, image_size, image_size), hidden, code, beta, likelihood, sigma)


def conv_vae(width=32, code=20, beta=1.0, likelihood="bernoulli", sigma=0.1, image_size=28, in_channels=1):
    return ConvVAE((in_channels, image_size, image_size), width, code, beta, likelihood, sigma)
