"""Chance that torch and this package share."""

import numpy as np
import torch


class TorchsChance:
    """A generator that draws what torch draws next."""

    def __init__(self, seed):
        torch.manual_seed(seed)

    def integers(self, low, high, size=()):
        return torch.randint(low, high, np.atleast_1d(np.array(size, int)).tolist()).numpy()

    def random(self, size=()):
        return torch.rand(size).numpy()

    def uniform(self, low, high):
        return torch.empty(1).uniform_(low, high).item()

    def permutation(self, count):
        return torch.randperm(count).numpy()
