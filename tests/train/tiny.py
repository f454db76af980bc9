"""A model named tiny, which compiles fast."""

import jax
from flax import nnx

from jaxzoo import nn


class Tiny(nnx.Module):
    """Every kind of variable that a step must carry: parameters, running statistics, a counter, a random stream."""

    def __init__(self, num_classes: int = 1000, dropout: float = 0.1, *, rngs: nnx.Rngs):
        self.conv = nn.Conv(3, 8, 4, 4, bias=False, rngs=rngs)
        self.bn = nn.BatchNorm(8, rngs=rngs)
        self.dropout = nn.Dropout(dropout, rngs=rngs)
        self.fc = nn.Linear(8 * 64, num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = jax.nn.relu(self.bn(self.conv(x)))  # (N, 8, 8, 8)
        return self.fc(self.dropout(x.reshape(len(x), -1)))


def tiny(*, rngs: nnx.Rngs, **arguments) -> Tiny:
    return Tiny(rngs=rngs, **arguments)
