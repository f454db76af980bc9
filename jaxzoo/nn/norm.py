"""Normalisation as torch computes it: in float32 at least, returned in the promoted dtype of input and scale."""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from jaxzoo.errors import UsageError
from jaxzoo.nn.precision import narrow, wide
from jaxzoo.nn.total import total


def _check_channels(layer: nnx.Module, x: jax.Array) -> None:
    if x.shape[-1] != layer.num_features:
        raise ValueError(f"{type(layer).__name__} of {layer.num_features} channels was given {x.shape}, channels last")


def _scaled(y: jax.Array, x: jax.Array, scale: jax.Array | None, bias: jax.Array | None) -> jax.Array:
    """`y * scale + bias` in the dtype that `x`, of which `y` was computed, has together with them."""
    y = y if scale is None else y * scale.astype(y.dtype)
    y = y if bias is None else y + bias.astype(y.dtype)
    return narrow(y, x) if scale is None else y.astype(jnp.result_type(x, scale))


def _normalise(layer: nnx.Module, x: jax.Array, mean: jax.Array, var: jax.Array) -> jax.Array:
    """`(x - mean) / sqrt(var + epsilon) * scale + bias`."""
    return _scaled((wide(x) - mean) * lax.rsqrt(var + layer.epsilon), x, *_affine(layer))


def _affine(layer: nnx.Module) -> tuple[jax.Array | None, jax.Array | None]:
    return tuple(None if v is None else v[...] for v in (layer.scale, layer.bias))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _by_batch(
    x: jax.Array, scale: jax.Array | None, bias: jax.Array | None, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`x` normalised by its own statistics, and these: mean and biased variance, through which no gradient flows."""
    return _by_batch_forward(x, scale, bias, epsilon)[0]


def _by_batch_forward(x, scale, bias, epsilon):
    n, y = math.prod(x.shape[:-1]), wide(x)
    mean = total(wide, x) / n
    var = total(lambda x: jnp.square(wide(x) - mean), x) / n
    root = lax.rsqrt(var + epsilon)
    return (_scaled((y - mean) * root, x, scale, bias), mean, var), (x, scale, bias, mean, root)


def _by_batch_backward(epsilon, kept, gradients):
    x, scale, bias, mean, root = kept
    n, gradient, y = math.prod(x.shape[:-1]), wide(gradients[0]), wide(x) - mean
    along_bias = total(wide, gradient)
    along_scale = root * total(lambda gradient, x: gradient * (wide(x) - mean), gradient, x)
    factor = root if scale is None else root * scale.astype(y.dtype)
    x_gradient = factor * (gradient - along_bias / n - y * (root * along_scale / n))
    return (
        x_gradient.astype(x.dtype),
        None if scale is None else along_scale.astype(scale.dtype),
        None if bias is None else along_bias.astype(bias.dtype),
    )


_by_batch.defvjp(_by_batch_forward, _by_batch_backward)


class BatchNorm(nnx.BatchNorm):
    """`torch.nn.BatchNorm2d` over the last axis of an input of any rank.

    Training normalises with the biased variance of the batch and keeps the unbiased one, as torch does. Leaves: scale
    and bias, and the running mean and var, each (num_features,), and num_batches_tracked, a whole number.

    Args:
      momentum: torch's, the share of the new batch in the running statistics (torch's 0.1 is Flax's 0.9).
    """

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True, *, rngs: nnx.Rngs
    ):
        super().__init__(num_features, momentum=1 - momentum, epsilon=eps, use_bias=affine, use_scale=affine, rngs=rngs)
        self.share = momentum  # exact, where 1 - (1 - 0.1) is not 0.1
        self.num_batches_tracked = nnx.BatchStat(jnp.zeros((), jnp.int32))

    def __call__(self, x: jax.Array) -> jax.Array:
        _check_channels(self, x)
        if self.use_running_average:
            return _normalise(self, x, self.mean[...], self.var[...])
        n = math.prod(x.shape[:-1])
        if n < 2:
            raise UsageError(
                f"BatchNorm needs more than one value per channel to train, and was given shape {x.shape}: larger "
                "batches or images help"
            )
        y, mean, var = _by_batch(x, *_affine(self), self.epsilon)
        self._track(self.mean, mean)
        self._track(self.var, var * (n / (n - 1)))
        self.num_batches_tracked.set_value(self.num_batches_tracked[...] + 1)
        return y

    def _track(self, running: nnx.BatchStat, batch: jax.Array) -> None:
        old = running[...]
        new = (1 - self.share) * old + self.share * lax.stop_gradient(batch)
        running.set_value(new.astype(old.dtype))  # `running[...] =` traces in time that grows with the program so far


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _by_position(x: jax.Array, scale: jax.Array | None, bias: jax.Array | None, epsilon: float) -> jax.Array:
    """`x` normalised by mean and variance over its last axis."""
    return _by_position_forward(x, scale, bias, epsilon)[0]


def _by_position_forward(x, scale, bias, epsilon):
    y = wide(x)
    mean, root = y.mean(-1, keepdims=True), lax.rsqrt(y.var(-1, keepdims=True) + epsilon)
    return _scaled((y - mean) * root, x, scale, bias), (x, scale, bias, mean, root)


def _by_position_backward(epsilon, kept, gradient):
    x, scale, bias, mean, root = kept
    y, slope = (wide(x) - mean) * root, wide(gradient)
    slope = slope if scale is None else slope * scale.astype(slope.dtype)
    along_y = (slope * y).mean(-1, keepdims=True)
    x_gradient = root * (slope - slope.mean(-1, keepdims=True) - y * along_y)
    return (
        x_gradient.astype(x.dtype),
        None
        if scale is None
        else total(
            lambda gradient, x, mean, root: wide(gradient) * ((wide(x) - mean) * root), gradient, x, mean, root
        ).astype(scale.dtype),
        None if bias is None else total(wide, gradient).astype(bias.dtype),
    )


_by_position.defvjp(_by_position_forward, _by_position_backward)


class LayerNorm(nnx.LayerNorm):
    """`torch.nn.LayerNorm` over the last axis. Leaves: scale and bias (num_features,)."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            num_features,
            epsilon=eps,
            use_scale=elementwise_affine,
            use_bias=elementwise_affine and bias,
            rngs=rngs,
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        _check_channels(self, x)
        return _by_position(x, *_affine(self), self.epsilon)


class GroupNorm(nnx.GroupNorm):
    """`torch.nn.GroupNorm` on (N, ..., C): statistics over space and a group of channels. Leaves: scale, bias (C,)."""

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, *, rngs: nnx.Rngs):
        super().__init__(num_channels, num_groups, epsilon=eps, use_scale=affine, use_bias=affine, rngs=rngs)
        self.num_features = num_channels

    def __call__(self, x: jax.Array) -> jax.Array:
        _check_channels(self, x)
        batch, *space, channels = x.shape
        grouped = wide(x).reshape(batch, *space, self.num_groups, channels // self.num_groups)
        axes = (*range(1, grouped.ndim - 2), grouped.ndim - 1)

        def per_channel(statistic: jax.Array) -> jax.Array:
            return jnp.repeat(statistic.reshape(batch, *[1] * len(space), -1), channels // self.num_groups, -1)

        return _normalise(self, x, per_channel(grouped.mean(axes)), per_channel(grouped.var(axes)))


class LocalResponseNorm(nnx.Module):
    """`torch.nn.LocalResponseNorm` (Krizhevsky et al. 2012, §3.3): x / (k + alpha · m)^beta.

    Here m is the mean of the squares in a window of `size` channels, cut by zeros at both ends; where the paper has
    their sum, torch's alpha is `size` times the paper's.
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0):
        if size < 1:
            raise ValueError(f"size is {size}; it must be a whole number ≥ 1")
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def __call__(self, x: jax.Array) -> jax.Array:
        y = wide(x)
        sides = (self.size // 2, (self.size - 1) // 2)
        squares = jnp.pad(y * y, [(0, 0)] * (x.ndim - 1) + [sides])
        window = [lax.slice_in_dim(squares, i, i + x.shape[-1], axis=-1) for i in range(self.size)]
        return narrow(y / (self.k + self.alpha / self.size * sum(window)) ** self.beta, x)
