"""Normalisation as torch computes it: in float32 at least, returned in the promoted dtype of input and scale."""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from jaxzoo.errors import UsageError
from jaxzoo.nn.cpu.channel_sum import broadcast_channels, channel_sum
from jaxzoo.nn.integers import Count
from jaxzoo.nn.precision import narrow, refuse_whole_numbers, wide


def _check_channels(layer: nnx.Module, x: jax.Array) -> None:
    refuse_whole_numbers(layer, x)
    if x.shape[-1] != layer.num_features:
        raise ValueError(f"{type(layer).__name__} of {layer.num_features} channels was given {x.shape}, channels last")


def _check_several(x: jax.Array) -> None:
    if math.prod(x.shape[:-1]) < 2:
        raise UsageError(
            f"BatchNorm needs more than one value per channel to train, and was given shape {x.shape}: larger "
            "batches or images help"
        )


def _scaled(y: jax.Array, x: jax.Array, scale: jax.Array | None, bias: jax.Array | None) -> jax.Array:
    """`y * scale + bias` in the dtype that `x`, of which `y` was computed, has together with them."""
    y = y if scale is None else y * scale.astype(y.dtype)
    y = y if bias is None else y + bias.astype(y.dtype)
    return narrow(y, x) if scale is None else y.astype(jnp.result_type(x, scale))


# One program outside of `jax.jit`, where each operation would be compiled for itself; inside, the same as without.
_compiled = functools.partial(jax.jit, static_argnames="epsilon")


@_compiled
def _normalised(
    x: jax.Array, scale: jax.Array | None, bias: jax.Array | None, mean: jax.Array, var: jax.Array, epsilon: float
) -> jax.Array:
    """`(x - mean) / sqrt(var + epsilon) * scale + bias`."""
    return _scaled((wide(x) - mean) * lax.rsqrt(var + epsilon), x, scale, bias)


def _affine(layer: nnx.Module) -> tuple[jax.Array | None, jax.Array | None]:
    return tuple(None if v is None else v[...] for v in (layer.scale, layer.bias))


@_compiled
@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _by_batch(
    x: jax.Array, scale: jax.Array | None, bias: jax.Array | None, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`x` normalised by its own statistics, and its mean and unbiased variance, through which no gradient flows."""
    mean, var = _statistics(x)
    return _scaled((wide(x) - mean) * lax.rsqrt(var + epsilon), x, scale, bias), mean, _unbiased(var, x)


def _statistics(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    n = math.prod(x.shape[:-1])
    mean = channel_sum(wide(x)) / n
    return mean, channel_sum(jnp.square(wide(x) - mean)) / n


def _unbiased(var: jax.Array, x: jax.Array) -> jax.Array:
    n = math.prod(x.shape[:-1])
    return var * (n / (n - 1))


@_by_batch.__wrapped__.defjvp
def _by_batch_slope(epsilon, values, slopes):
    """Written so that its transpose needs two sums over all of `x`, as the gradient by hand would."""
    (x, scale, bias), (dx, dscale, dbias) = values, slopes
    mean, var = _statistics(x)
    n, root = math.prod(x.shape[:-1]), lax.rsqrt(var + epsilon)
    z, dx = (wide(x) - mean) * root, wide(dx)
    factor = root if scale is None else root * scale.astype(z.dtype)
    along_z, along_one = -factor / n * channel_sum(z * dx), -factor / n * channel_sum(dx)
    along_z = along_z if scale is None else along_z + dscale.astype(z.dtype)
    along_one = along_one if bias is None else along_one + dbias.astype(z.dtype)
    y = _scaled(z, x, scale, bias)
    dy = factor * dx + z * broadcast_channels(along_z, x.shape) + broadcast_channels(along_one, x.shape)
    return (y, mean, _unbiased(var, x)), (dy.astype(y.dtype), jnp.zeros_like(mean), jnp.zeros_like(var))


@_compiled
def _by_rows(
    x: jax.Array, scale: jax.Array | None, bias: jax.Array | None, valid: jax.Array, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """As `_by_batch`, with the statistics of the rows that are `valid`."""
    rows, values = valid.reshape(-1, *[1] * (x.ndim - 1)), wide(x)
    n = jnp.maximum(valid.sum(), 1).astype(values.dtype) * math.prod(x.shape[1:-1])
    mean = channel_sum(jnp.where(rows, values, 0)) / n
    var = channel_sum(jnp.where(rows, jnp.square(values - mean), 0)) / n
    y = _scaled((values - mean) * lax.rsqrt(var + epsilon), x, scale, bias)
    return y, mean, var * (n / jnp.maximum(n - 1, 1))


@functools.partial(jax.jit, static_argnames="share")
def _moved(running: jax.Array, batch: jax.Array, count: jax.Array, share: float | None) -> jax.Array:
    """A running statistic after batch number `count`."""
    share = 1 / count.astype(batch.dtype) if share is None else share
    return ((1 - share) * running + share * lax.stop_gradient(batch)).astype(running.dtype)


class BatchNorm(nnx.BatchNorm):
    """`torch.nn.BatchNorm2d` over the last axis of an input of any rank.

    Training normalises with the biased variance of the batch and keeps the unbiased one, as torch does. Leaves: scale
    and bias, and the running mean and var, each (num_features,), and num_batches_tracked, a whole number.

    Args:
      momentum: torch's, the share of the new batch in the running statistics (torch's 0.1 is Flax's 0.9); None makes
        them the mean over all batches.
      track_running_stats: False keeps no statistics, and normalises by the batch's own in eval mode too.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            num_features, momentum=1 - (momentum or 0), epsilon=eps, use_bias=affine, use_scale=affine, rngs=rngs
        )
        self.share = momentum  # exact, where 1 - (1 - 0.1) is not 0.1
        self.track_running_stats = track_running_stats
        if track_running_stats:
            self.num_batches_tracked = Count(jnp.zeros((), jnp.int32))
        else:
            self.mean = self.var = nnx.data(None)

    def __call__(self, x: jax.Array, valid: jax.Array | None = None) -> jax.Array:
        """Normalises x (..., C).

        Args:
          valid: (N,) True for rows of the first axis of which the batch's statistics are made; all unless given.
        """
        _check_channels(self, x)
        if self.use_running_average and self.track_running_stats:
            return _normalised(x, *_affine(self), self.mean[...], self.var[...], epsilon=self.epsilon)
        _check_several(x)
        if valid is None:
            y, mean, var = _by_batch(x, *_affine(self), epsilon=self.epsilon)
        else:
            y, *batch = _by_rows(x, *_affine(self), valid, epsilon=self.epsilon)
            if self.track_running_stats:  # they stay where no row counts
                mean, var = (
                    jnp.where(valid.any(), b, r[...]) for b, r in zip(batch, (self.mean, self.var), strict=True)
                )
        if self.track_running_stats:
            count = self.num_batches_tracked.get_value() + 1
            self.num_batches_tracked.set_value(count)
            for running, batch in ((self.mean, mean), (self.var, var)):
                if valid is not None:  # where no row counts, they stay
                    batch = jnp.where(valid.any(), batch, running.get_value())
                running.set_value(_moved(running.get_value(), batch, count, share=self.share))
        return y


class DarknetBatchNorm(nnx.Module):
    """Batch norm as Darknet computes it on a CPU, over the last axis: `(x - mean) / (sqrt(var) + eps) * scale + bias`.

    In training `var` is the unbiased variance of the batch, which is also what the running one moves towards. Leaves:
    scale, bias, mean and var, each (num_features,).

    Args:
      momentum: the share of the new batch in the running statistics.
    """

    def __init__(self, num_features: int, eps: float = 1e-6, momentum: float = 0.01, *, rngs: nnx.Rngs | None = None):
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        # An array for each: two that are one cannot be given up to a program.
        ones, zeros, mean, var = (jnp.full(num_features, value, jnp.float32) for value in (1, 0, 0, 1))
        self.scale, self.bias = nnx.Param(ones), nnx.Param(zeros)
        self.mean, self.var = nnx.BatchStat(mean), nnx.BatchStat(var)
        self.use_running_average = False

    def __call__(self, x: jax.Array) -> jax.Array:
        _check_channels(self, x)
        mean, var = self.mean.get_value(), self.var.get_value()
        if not self.use_running_average:
            _check_several(x)
            moved = mean, var
            mean, var = _statistics(x)
            var = _unbiased(var, x)
            for running, before, batch in zip((self.mean, self.var), moved, (mean, var), strict=True):
                share = self.momentum * lax.stop_gradient(batch)
                running.set_value(((1 - self.momentum) * before + share).astype(before.dtype))
        some = var > 0  # where all values are equal, the root has no slope
        deviation = jnp.where(some, jnp.sqrt(jnp.where(some, var, 1)), 0)
        return _scaled((wide(x) - mean) / (deviation + self.eps), x, *_affine(self))


@_compiled
@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _by_position(x: jax.Array, scale: jax.Array | None, bias: jax.Array | None, epsilon: float) -> jax.Array:
    """`x` normalised by mean and variance over its last axis."""
    return _scaled(_standardised(x, epsilon)[0], x, scale, bias)


def _standardised(x: jax.Array, epsilon: float) -> tuple[jax.Array, jax.Array]:
    y = wide(x)
    root = lax.rsqrt(y.var(-1, keepdims=True) + epsilon)
    return (y - y.mean(-1, keepdims=True)) * root, root


@_by_position.__wrapped__.defjvp
def _by_position_slope(epsilon, values, slopes):
    """So that the gradient needs two sums over the last axis, and one over all others for scale and bias each."""
    (x, scale, bias), (dx, dscale, dbias) = values, slopes
    z, root = _standardised(x, epsilon)
    dx = root * wide(dx)
    dz = dx - dx.mean(-1, keepdims=True) - z * (z * dx).mean(-1, keepdims=True)
    dy = dz if scale is None else dz * scale.astype(z.dtype) + z * broadcast_channels(dscale.astype(z.dtype), x.shape)
    dy = dy if bias is None else dy + broadcast_channels(dbias.astype(z.dtype), x.shape)
    y = _scaled(z, x, scale, bias)
    return y, dy.astype(y.dtype)


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
        return _by_position(x, *_affine(self), epsilon=self.epsilon)


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
            return jnp.repeat(
                statistic.reshape(batch, *[1] * len(space), self.num_groups), channels // self.num_groups, -1
            )

        mean, var = per_channel(grouped.mean(axes)), per_channel(grouped.var(axes))
        return _normalised(x, *_affine(self), mean, var, epsilon=self.epsilon)


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
