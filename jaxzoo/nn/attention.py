"""Multi-head attention with torch's fused projection."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from flax import nnx

from jaxzoo.nn import init
from jaxzoo.nn.dropout import Dropout
from jaxzoo.nn.linear import Linear, affine


def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    scale: float | None = None,
    bias: jax.Array | None = None,
    dropout: Callable[[jax.Array], jax.Array] = lambda weights: weights,
) -> jax.Array:
    """Scaled dot-product attention: `softmax(q kᵀ · scale + bias) v`, the softmax in float32 at least.

    Args:
      q, k, v: (..., L, heads, D), (..., S, heads, D) and (..., S, heads, D).
      scale: 1 / sqrt(D) unless given.
      bias: added to the scores, (..., heads, L, S).
      dropout: applied to the attention weights.

    Returns:
      (..., L, heads, D).
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    wide = jnp.promote_types(q.dtype, jnp.float32)
    scores = jnp.einsum("...lhd,...shd->...hls", q * scale, k, preferred_element_type=wide)
    if bias is not None:
        scores = scores + bias
    weights = jax.nn.softmax(scores).astype(v.dtype)
    return jnp.einsum("...hls,...shd->...lhd", dropout(weights), v)


class InProjection(Linear):
    """The fused projection to queries, keys and values; torch keeps it as `in_proj_weight` and `in_proj_bias`."""

    def each(self, query: jax.Array, key: jax.Array, value: jax.Array) -> Iterator[jax.Array]:
        """Three different inputs, each by its own third of the kernel."""
        kernels = jnp.split(self.kernel[...], 3, axis=-1)
        biases = (None,) * 3 if self.bias is None else jnp.split(self.bias[...], 3)
        return map(affine, (query, key, value), kernels, biases)


class MultiHeadAttention(nnx.Module):
    """`torch.nn.MultiheadAttention(batch_first=True)`: (N, L, E), (N, S, E), (N, S, E) to (N, L, E).

    Key and value default to the query and the key. Masks are torch's: `key_padding_mask` (N, S) and `attn_mask`, (L, S)
    or (N · heads, L, S), of booleans that are true where nobody may look, or of numbers to add to the scores.

    Leaves: in_proj (kernel (E, 3 E), bias) and out_proj (kernel, bias).
    """

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True, *, rngs: nnx.Rngs):
        if embed_dim % num_heads:
            raise ValueError(f"num_heads={num_heads} does not divide embed_dim={embed_dim}")
        self.num_heads = num_heads
        self.in_proj = InProjection(
            embed_dim, 3 * embed_dim, bias, kernel_init=init.xavier_uniform, bias_init=init.zeros, rngs=rngs
        )
        self.out_proj = Linear(embed_dim, embed_dim, bias, bias_init=init.zeros, rngs=rngs)
        self.dropout = Dropout(dropout, rngs=rngs)

    def __call__(
        self,
        query: jax.Array,
        key: jax.Array | None = None,
        value: jax.Array | None = None,
        *,
        key_padding_mask: jax.Array | None = None,
        attn_mask: jax.Array | None = None,
    ) -> jax.Array:
        if key is None and value is None:
            q, k, v = jnp.split(self.in_proj(query), 3, axis=-1)
        else:
            key = query if key is None else key
            q, k, v = self.in_proj.each(query, key, key if value is None else value)
        q, k, v = (x.reshape(*x.shape[:-1], self.num_heads, -1) for x in (q, k, v))  # (N, L, heads, D)
        y = attend(q, k, v, bias=self._bias(key_padding_mask, attn_mask, q.dtype), dropout=self.dropout)
        return self.out_proj(y.reshape(*y.shape[:-2], -1))

    def _bias(self, keys: jax.Array | None, pairs: jax.Array | None, dtype: jnp.dtype) -> jax.Array | None:
        """Both masks as numbers to add, (N or 1, heads or 1, L or 1, S)."""
        keys = None if keys is None else keys[:, None, None]
        if pairs is not None and pairs.ndim == 3:
            pairs = pairs.reshape(-1, self.num_heads, *pairs.shape[1:])
        masks = [mask for mask in (keys, pairs) if mask is not None]
        added = [jnp.where(m, -jnp.inf, 0).astype(dtype) if m.dtype == bool else m.astype(dtype) for m in masks]
        return sum(added) if added else None
