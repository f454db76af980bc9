"""Restricted Boltzmann machines in PyTorch, written from scikit-learn's `BernoulliRBM` and Hinton 2012.

`losses` is the free energy of the data minus that of the chains after their Gibbs steps, which are no part of the
gradient: so torch's gradient of it is what contrastive divergence descends along.
"""

import itertools

import torch
from torch import nn
from torch.nn import functional as F


class RBM(nn.Module):
    def __init__(self, visible: int, hidden: int = 256, chains: int = 64, sigma: float | None = None):
        super().__init__()
        self.components = nn.Parameter(0.01 * torch.randn(hidden, visible))
        self.intercept_hidden = nn.Parameter(torch.zeros(hidden))
        self.intercept_visible = nn.Parameter(torch.zeros(visible))
        if chains:
            self.register_buffer("chains", torch.zeros(chains, hidden, dtype=torch.int64))
        self.sigma = sigma  # of normal visible units; None for binary ones

    def inputs(self, v):
        return F.linear(v if self.sigma is None else v / self.sigma, self.components, self.intercept_hidden)

    def hidden_means(self, v):
        return self.inputs(v).sigmoid()

    def visible_means(self, h):
        if self.sigma is None:
            return (h @ self.components + self.intercept_visible).sigmoid()
        return self.intercept_visible + self.sigma * (h @ self.components)

    def free_energy(self, v):
        hidden = F.softplus(self.inputs(v)).sum(1)
        if self.sigma is None:
            return -(v @ self.intercept_visible) - hidden
        return (v - self.intercept_visible).square().sum(1) / (2 * self.sigma**2) - hidden

    def forward(self, images):
        code = self.hidden_means(images.flatten(1))
        return {"images": self.visible_means(code).view_as(images), "code": code}

    @torch.no_grad()
    def walk(self, v, noise):
        h = self.chains if hasattr(self, "chains") else noise["start"] < self.hidden_means(v)
        h = h.to(v.dtype)
        for seeing, hiding in zip(noise["visible"], noise["hidden"], strict=True):
            means = self.visible_means(h)
            v = (seeing < means).to(means.dtype) if self.sigma is None else means + self.sigma * seeing
            h = (hiding < self.hidden_means(v)).to(v.dtype)
        if hasattr(self, "chains"):
            self.chains.copy_(h)
        return v

    def losses(self, images, noise):
        v = images.flatten(1)
        return {"gap": self.free_energy(v).mean() - self.free_energy(self.walk(v, noise)).mean()}


class DBN(nn.Module):
    def __init__(self, visible: int, hidden=(256, 256), chains: int = 64):
        super().__init__()
        self.rbms = nn.ModuleList(RBM(*widths, chains) for widths in itertools.pairwise([visible, *hidden]))

    def forward(self, images):
        code = images.flatten(1)
        for rbm in self.rbms:
            code = rbm.hidden_means(code)
        found = code
        for rbm in reversed(self.rbms):
            found = rbm.visible_means(found)
        return {"images": found.view_as(images), "code": code}

    def losses(self, images, noise):
        """Of all machines together, each given what is below it."""
        losses, v = {}, images.flatten(1)
        for i, rbm in enumerate(self.rbms):
            losses[f"gap_{i}"] = rbm.losses(v, noise[i])["gap"]
            v = rbm.hidden_means(v).detach()
        return losses


def rbm(hidden=256, chains=64, image_size=28, in_channels=1):
    return RBM(image_size**2 * in_channels, hidden, chains)


def gaussian_rbm(hidden=256, chains=64, sigma=0.3, image_size=28, in_channels=1):
    return RBM(image_size**2 * in_channels, hidden, chains, sigma)


def dbn(hidden=(256, 256), chains=64, image_size=28, in_channels=1):
    return DBN(image_size**2 * in_channels, hidden, chains)
