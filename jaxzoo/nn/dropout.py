"""Layers that are random in training. Each owns a stream "dropout"; `nnx.reseed(model, dropout=key)` re-seeds all."""

import jax
import jax.numpy as jnp
from flax import nnx


class Stream(nnx.RngStream):
    """`nnx.RngStream`, whose `count[...] += 1` takes time that grows with the program traced so far."""

    def __call__(self) -> jax.Array:
        key = jax.random.fold_in(self.key[...], self.count[...])
        self.count.set_value(self.count[...] + 1)
        return key


class Dropout(nnx.Module):
    """`torch.nn.Dropout`: zeroes each element with probability `p` and scales the others by 1 / (1 - p)."""

    def __init__(self, p: float = 0.5, *, rngs: nnx.Rngs):
        if not 0 <= p <= 1:
            raise ValueError(f"dropout probability is {p}; it must lie between 0 and 1")
        self.p = p
        self.deterministic = False
        self.stream = Stream(rngs.dropout(), tag="dropout")

    def _noise_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.deterministic or self.p == 0:
            return x
        if self.p == 1:
            return jnp.zeros_like(x)
        keep = jax.random.bernoulli(self.stream(), 1 - self.p, self._noise_shape(x.shape))
        return jnp.where(keep, x / (1 - self.p), jnp.zeros((), x.dtype))


class Dropout2d(Dropout):
    """`torch.nn.Dropout2d` on (N, H, W, C): drops whole channels of a sample (Tompson et al. 2015)."""

    def _noise_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0], *[1] * (len(shape) - 2), shape[-1])


class StochasticDepth(Dropout):
    """`torchvision.ops.StochasticDepth(p, "row")`: drops whole samples of a residual branch (Huang et al. 2016)."""

    def _noise_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0], *[1] * (len(shape) - 1))
