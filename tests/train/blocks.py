"""A small network with everything that options of the trainer reach for, for images of any size."""

import jax
from flax import nnx

from jaxzoo import nn


class Block(nnx.Module):
    """A residual block that is left out at random."""

    def __init__(self, width: int, drop: float, *, rngs: nnx.Rngs):
        self.conv = nn.Conv(width, width, 3, padding=1, bias=False, rngs=rngs)
        self.bn = nn.BatchNorm(width, rngs=rngs)
        self.drop = nn.StochasticDepth(drop, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.drop(jax.nn.relu(self.bn(self.conv(x))))


class Blocks(nnx.Module):
    def __init__(
        self,
        num_classes: int = 1000,
        dropout: float = 0.1,
        stochastic_depth_prob: float = 0.1,
        width: int = 8,
        *,
        rngs: nnx.Rngs,
    ):
        self.stem = nn.Conv(3, width, 4, 4, rngs=rngs)
        self.blocks = nn.Sequential(*(Block(width, stochastic_depth_prob * i, rngs=rngs) for i in (0.5, 1)))
        self.norm = nn.LayerNorm(width, rngs=rngs)
        self.dropout = nn.Dropout(dropout, rngs=rngs)
        self.fc = nn.Linear(width, num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.blocks(self.stem(x))  # (N, H / 4, W / 4, C)
        return self.fc(self.dropout(self.norm(x.mean((1, 2)))))


def blocks(*, rngs: nnx.Rngs, **arguments) -> Blocks:
    return Blocks(rngs=rngs, **arguments)
