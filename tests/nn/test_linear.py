"""Linear, Embed and MultiHeadAttention compute what torch's do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flax import nnx

from jaxzoo.errors import UsageError
from jaxzoo.nn import Embed, Linear, MultiHeadAttention, attend
from tests.compare import agree, close, normal, twins


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5,), (2, 5), (2, 3, 5), (2, 3, 4, 5), (0, 5)])
def test_linear_equals_torch(shape, bias):
    theirs = torch.nn.Linear(5, 7, bias)
    agree(*twins(lambda rngs: Linear(5, 7, bias, rngs=rngs), theirs), normal(*shape), images=False)


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (2, 3, 4)])
def test_embed_equals_torch(shape):
    indices = np.random.default_rng(0).integers(0, 6, shape)
    agree(*twins(lambda rngs: Embed(6, 5, rngs=rngs), torch.nn.Embedding(6, 5)), indices, images=False)


class Attention(torch.nn.MultiheadAttention):
    """torch's, without the weights beside its result, and with defaults."""

    def forward(self, query, key=None, value=None):
        key = query if key is None else key
        return super().forward(query, key, key if value is None else value)[0]


def attention(bias: bool = True, dim: int = 12, heads: int = 3):
    theirs = Attention(dim, heads, bias=bias, batch_first=True)
    return twins(lambda rngs: MultiHeadAttention(dim, heads, bias=bias, rngs=rngs), theirs)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("length", [1, 2, 7])
def test_self_attention_equals_torch(length, bias):
    agree(*attention(bias), normal(2, length, 12), images=False)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("queries", "keys"), [(3, 5), (5, 3), (1, 4), (4, 1)])
def test_cross_attention_equals_torch(queries, keys, bias):
    q, k, v = normal(2, queries, 12), normal(2, keys, 12, seed=1), normal(2, keys, 12, seed=2)
    agree(*attention(bias), q, k, v, images=False)


def test_values_default_to_the_keys():
    ours, _ = attention()
    q, k = jnp.asarray(normal(2, 3, 12)), jnp.asarray(normal(2, 5, 12))
    np.testing.assert_array_equal(ours(q, k), ours(q, k, k))
    close(ours(q), ours(q, q, q))


@pytest.mark.parametrize(("dim", "heads"), [(4, 4), (6, 1), (48, 2)])
def test_attention_with_other_numbers_of_heads_equals_torch(dim, heads):
    agree(*attention(dim=dim, heads=heads), normal(3, 5, dim), images=False)


def test_attention_survives_large_scores():
    ours, theirs = attention()
    x = 1e3 * normal(2, 5, 12)
    close(ours(jnp.asarray(x)), theirs(torch.tensor(x)))


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match=r"num_heads=5.*embed_dim=12"):
        MultiHeadAttention(12, 5, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("bias", [None, (3, 4, 6), (2, 3, 4, 6), (2, 1, 1, 6)])
def test_attend_equals_torchs_scaled_dot_product_attention(bias, scale):
    q, k, v = normal(2, 3, 4, 5), normal(2, 3, 6, 5, seed=1), normal(2, 3, 6, 5, seed=2)  # (N, heads, L, D)
    arrays = (q, k, v) if bias is None else (q, k, v, normal(*bias))

    def ours(q, k, v, bias=None):
        q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
        return attend(q, k, v, scale=scale, bias=bias).swapaxes(1, 2)

    def theirs(q, k, v, bias=None):
        return F.scaled_dot_product_attention(q, k, v, bias, scale=scale)

    agree(ours, theirs, *arrays, images=False)


def test_attend_masks_with_minus_infinity():
    q, k, v = (jnp.asarray(normal(1, 4, 2, 3, seed=i)) for i in range(3))
    mask = jnp.where(jnp.arange(4) < 3, 0.0, -jnp.inf)
    close(attend(q, k, v, bias=mask), attend(q, k[:, :3], v[:, :3]))


def test_masked_attention_equals_torchs():
    theirs = torch.nn.MultiheadAttention(6, 2, batch_first=True)
    ours, theirs = twins(lambda rngs: MultiHeadAttention(6, 2, rngs=rngs), theirs)
    query, keys = normal(2, 3, 6), normal(2, 4, 6)
    padding = np.array([[False, False, True, True], [False, True, False, False]])
    for pairs in (np.array([[False, True, False, False]] * 3), normal(3, 4), normal(4, 3, 4)):
        masks = {"key_padding_mask": padding, "attn_mask": pairs}
        given = {name: torch.tensor(mask) for name, mask in masks.items()}
        expected = theirs(torch.tensor(query), torch.tensor(keys), torch.tensor(keys), **given)[0]
        close(ours(*map(jnp.asarray, (query, keys, keys)), **{n: jnp.asarray(m) for n, m in masks.items()}), expected)


def test_embed_knows_its_rows_only():
    embed = Embed(3, 4, rngs=nnx.Rngs(0))
    for outside in (3, -1):
        with pytest.raises(UsageError, match=f"0 to 2 and was asked for {outside}"):
            embed(jnp.array([0, outside]))
        assert jnp.isnan(jax.jit(lambda i: embed(i))(jnp.array([0, outside]))).any(-1).tolist() == [False, True]
