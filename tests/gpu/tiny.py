"""A network with every kind of layer that a variant changes, in our words and in torch's, for `--dry-run`."""

import jax
import torch
from flax import nnx

from jaxzoo import nn
from jaxzoo.registry import register_model

WIDTH, HEADS = 16, 2


class Tiny(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.conv = nn.Conv(3, WIDTH, 3, 2, padding=1, rngs=rngs)
        self.bn = nn.BatchNorm(WIDTH, rngs=rngs)
        self.pool = nn.MaxPool(3, 2, 1)
        self.norm = nn.LayerNorm(WIDTH, rngs=rngs)
        self.attention = nn.MultiHeadAttention(WIDTH, HEADS, rngs=rngs)
        self.head = nn.Linear(WIDTH, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.pool(jax.nn.relu(self.bn(self.conv(x))))
        x = x.reshape(len(x), -1, WIDTH)
        return self.head(self.attention(self.norm(x)).mean(1))


class TorchTiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, WIDTH, 3, 2, padding=1)
        self.bn = torch.nn.BatchNorm2d(WIDTH)
        self.pool = torch.nn.MaxPool2d(3, 2, 1)
        self.norm = torch.nn.LayerNorm(WIDTH)
        self.attention = torch.nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.head = torch.nn.Linear(WIDTH, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.pool(self.bn(self.conv(x)).relu()).flatten(2).mT)
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


@register_model(paper="", twin="tests.gpu.tiny:TorchTiny", input_size=32)
def tiny(*, rngs: nnx.Rngs) -> Tiny:
    return Tiny(rngs=rngs)
