"""Layers that are random in training. Each owns a stream "dropout"; `nnx.reseed(model, dropout=key)` seeds all anew."""

import jax
import jax.numpy as jnp
from flax import nnx

from jaxzoo.nn.integers import StreamCount, StreamKey


class Stream(nnx.RngStream):
    """`nnx.RngStream` in variables that `jax.grad` takes."""

    def __init__(self, key: jax.Array, *, tag: str):
        self.tag = tag
        self.key = StreamKey(key, tag=tag, impl=str(jax.random.key_impl(key)))
        self.count = StreamCount(jnp.zeros(key.shape, jnp.uint32), tag=tag)

    def __call__(self) -> jax.Array:
        key, count = _next(self.key.get_value(), self.count.get_value())
        self.count.set_value(count)  # `[...] +=` takes time that grows with the program so far
        return key


@jax.jit
def _next(key: jax.Array, count: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The key that a stream gives next, and how many it has given then: one program, traced once."""
    return jax.random.fold_in(key, count), count + 1


def stream_tags(model: nnx.Module) -> list[str]:
    """The names of the streams in a model, sorted."""
    return sorted({part.key.tag for _, part in nnx.iter_graph(model) if isinstance(part, nnx.RngStream)})


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
