"""Modules that run others in order, and the trivial ones that hold a place."""

import math
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx


def attributes(module: nnx.Module) -> dict[str, Any]:
    """A module's attributes in the order of their assignment; copies that Flax makes have `vars` sorted by name."""
    held = vars(module)
    return {name: held[name] for name in (*getattr(module, "_pytree__nodes", ()), *held) if name in held}


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


class IntermediateLayers(nnx.Module):
    """The first layers of a model that runs its children in order, and the outputs of some of them, by other names.

    `torchvision.models._utils.IntermediateLayerGetter`: (N, H, W, C) to `{name: (N, h, w, c)}`.

    >>> IntermediateLayers(resnet, {"layer3": "aux", "layer4": "out"})

    Args:
      model: its children move here, up to the last that is asked for.
      return_layers: the name of each output, by the name of the child that makes it.
    """

    def __init__(self, model: nnx.Module, return_layers: Mapping[str, str]):
        children = {name: child for name, child in attributes(model).items() if isinstance(child, nnx.Module)}
        if unknown := return_layers.keys() - children.keys():
            raise ValueError(f"{type(model).__name__} has no layers {sorted(unknown)}; it has {', '.join(children)}")
        last = max(list(children).index(name) for name in return_layers)
        self.order = tuple(children)[: last + 1]
        self.return_layers = tuple(return_layers.items())
        for name in self.order:
            setattr(self, name, children[name])

    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        wanted, found = dict(self.return_layers), {}
        for name in self.order:
            x = getattr(self, name)(x)
            if name in wanted:
                found[wanted[name]] = x
        return found


class Identity(nnx.Module):
    """`torch.nn.Identity`."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return x


def flatten(x: jax.Array) -> jax.Array:
    """(N, H, W, C) to (N, C·H·W) in torch's order, so that the weights of the next layer need no permuting."""
    return x.transpose(0, -1, *range(1, x.ndim - 1)).reshape(x.shape[0], math.prod(x.shape[1:]))


def unflatten(x: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
    """The inverse of `flatten`: (N, C·H·W) to (N, H, W, C), for `shape` (H, W, C)."""
    height, width, channels = shape
    return x.reshape(x.shape[0], channels, height, width).transpose(0, 2, 3, 1)


class Flatten(nnx.Module):
    """`torch.nn.Flatten` of a feature map; see `flatten`."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return flatten(x)


class Unflatten(nnx.Module):
    """`torch.nn.Unflatten(1, (C, H, W))`, for `shape` (H, W, C); see `unflatten`."""

    def __init__(self, shape: tuple[int, int, int]):
        self.shape = tuple(shape)

    def __call__(self, x: jax.Array) -> jax.Array:
        return unflatten(x, self.shape)


class Buffer(nnx.Variable):
    """A table that belongs to the checkpoint and is never trained: torch's `register_buffer`."""
