"""Normalisation in detectors: batch norm that does not learn, and features of unit length."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from jaxzoo.nn.container import Buffer
from jaxzoo.nn.precision import narrow, wide


class FrozenBatchNorm2d(nnx.Module):
    """`torchvision.ops.FrozenBatchNorm2d` on (..., C): batch norm whose statistics, scale and bias never change.

    Leaves, none of them a parameter: scale, bias, mean, var (num_features,). Computed in float32 at least and returned
    in the promoted dtype of input and scale.

    Args:
      eps: torchvision's first published detectors need 0.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, *, rngs: nnx.Rngs | None = None):
        self.num_features, self.eps = num_features, eps
        self.scale, self.bias, self.mean, self.var = (
            Buffer(jnp.full(num_features, value, jnp.float32)) for value in (1, 0, 0, 1)
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        if x.shape[-1] != self.num_features:
            raise ValueError(f"FrozenBatchNorm2d of {self.num_features} channels was given {x.shape}, channels last")
        given = self.scale[...]
        scale = wide(given) * lax.rsqrt(wide(self.var[...]) + self.eps)
        bias = wide(self.bias[...]) - wide(self.mean[...]) * scale
        return (wide(x) * scale + bias).astype(jnp.result_type(x, given))


def l2_normalize(x: jax.Array, eps: float = 1e-12) -> jax.Array:
    """`torch.nn.functional.normalize` over the last axis: x / max(|x|, eps), its gradient finite at zero, as torch's.

    >>> l2_normalize(jnp.array([[3.0, 4.0], [0.0, 0.0]]))
    Array([[0.6, 0.8],
           [0. , 0. ]], dtype=float32)
    """
    y = wide(x)
    square = (y * y).sum(-1, keepdims=True)
    large = square > eps**2
    return narrow(y / jnp.where(large, jnp.sqrt(jnp.where(large, square, 1)), eps), x)


class L2Norm(nnx.Module):
    """Features (..., C) of length 1 at every pixel, times a learned scale per channel (SSD §3.1). Leaf: weight (C,).

    >>> L2Norm(2, scale=10.0)(jnp.array([[3.0, 4.0]]))
    Array([[6., 8.]], dtype=float32)
    """

    def __init__(self, num_features: int, scale: float = 20.0, eps: float = 1e-12):
        self.eps, self.weight = eps, nnx.Param(jnp.full(num_features, scale, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        return l2_normalize(x, self.eps) * self.weight[...]
