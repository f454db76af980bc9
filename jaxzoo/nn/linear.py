"""Linear and Embed with torch's arguments and initialisation."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer

from jaxzoo.nn import init


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
        kernel = self.kernel[...]
        dtype = jnp.result_type(x, kernel)
        y = jnp.dot(x.astype(dtype), kernel.astype(dtype))
        return y if self.bias is None else y + self.bias[...].astype(dtype)


class Embed(nnx.Embed):
    """`torch.nn.Embedding`: whole numbers of any shape to vectors. Leaf: embedding (num_embeddings, embedding_dim)."""

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        embedding_init: Initializer = init.normal(1.0),
        rngs: nnx.Rngs,
    ):
        super().__init__(num_embeddings, embedding_dim, embedding_init=embedding_init, rngs=rngs)

    def __call__(self, indices: jax.Array) -> jax.Array:
        return self.embedding[...][indices]
