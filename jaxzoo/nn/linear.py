"""Linear and Embed with torch's arguments and initialisation."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer

from jaxzoo.errors import UsageError
from jaxzoo.nn import init
from jaxzoo.nn.cpu.multilinear import multilinear
from jaxzoo.nn.precision import refuse_whole_numbers

# The identity, with a gradient that is computed once: XLA's CPU fusions would repeat it in each of its users.
_settled = multilinear("settled", lambda x: x, [lambda cotangent, x: _barrier(cotangent)])
_barrier = multilinear("barrier", lambda x: x, [lambda cotangent, x: cotangent], jax.lax.optimization_barrier)


def affine(x: jax.Array, kernel: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """`x @ kernel + bias` over the last axis, in the promoted dtype of x and kernel."""
    dtype = jnp.result_type(x, kernel)
    flat = x.astype(dtype).reshape(math.prod(x.shape[:-1]), x.shape[-1])  # so XLA transposes no gradient
    y = jnp.dot(flat, kernel.astype(dtype))
    y = _settled(y if bias is None else y + bias.astype(dtype))
    return y.reshape(*x.shape[:-1], kernel.shape[-1])


class Linear(nnx.Linear):
    """`torch.nn.Linear` over the last axis. Leaves: kernel (in_features, out_features), bias (out_features,)."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        kernel_init: Initializer = init.torch_default,
        bias_init: Initializer | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            in_features,
            out_features,
            use_bias=bias,
            kernel_init=kernel_init,
            bias_init=bias_init or init.torch_default_bias(in_features),
            rngs=rngs,
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        refuse_whole_numbers(self, x)
        return affine(x, self.kernel[...], None if self.bias is None else self.bias[...])


class Embed(nnx.Embed):
    """`torch.nn.Embedding`: whole numbers of any shape to vectors. Leaf: embedding (num_embeddings, embedding_dim).

    Raises `UsageError` for numbers outside of 0 to num_embeddings - 1; in a program, which cannot raise, they give NaN.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        embedding_init: Initializer = init.standard_normal,
        rngs: nnx.Rngs,
    ):
        super().__init__(num_embeddings, embedding_dim, embedding_init=embedding_init, rngs=rngs)

    def __call__(self, indices: jax.Array) -> jax.Array:
        table = self.embedding[...]
        outside = (indices < 0) | (indices >= table.shape[0])
        if not isinstance(outside, jax.core.Tracer) and outside.any():
            raise UsageError(f"Embed holds vectors 0 to {table.shape[0] - 1} and was asked for {indices[outside][0]}")
        return table.at[jnp.where(outside, table.shape[0], indices)].get(mode="fill", fill_value=jnp.nan)
