"""Modules that run others in order, and the trivial ones that hold a place."""

import math

import jax
from flax import nnx


class Sequential(nnx.List):
    """`torch.nn.Sequential`: children under the names 0, 1, 2 ..., each applied to the result of the one before."""

    def __init__(self, *layers: nnx.Module):
        super().__init__(layers)

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self:
            x = layer(x)
        return x


class NamedSequential(nnx.Module):
    """`torch.nn.Sequential(OrderedDict(...))`: children under names of their own, applied in the order given."""

    def __init__(self, **layers: nnx.Module):
        self.order = tuple(layers)
        for name, layer in layers.items():
            setattr(self, name, layer)

    def __call__(self, x: jax.Array) -> jax.Array:
        for name in self.order:
            x = getattr(self, name)(x)
        return x


class Identity(nnx.Module):
    """`torch.nn.Identity`."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return x


def flatten(x: jax.Array) -> jax.Array:
    """(N, H, W, C) to (N, C·H·W) in torch's order, so that the weights behind need no permuting."""
    return x.transpose(0, -1, *range(1, x.ndim - 1)).reshape(x.shape[0], math.prod(x.shape[1:]))


class Flatten(nnx.Module):
    """`torch.nn.Flatten` of a feature map; see `flatten`."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return flatten(x)


class Buffer(nnx.Variable):
    """A table that belongs to the checkpoint and is never trained: torch's `register_buffer`."""
