"""Precision is chosen from outside: a layer computes in the promoted dtype of its input and its parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxzoo import nn
from jaxzoo.errors import UsageError
from tests.compare import cast, normal

RNGS = nnx.Rngs(0)
WITH_PARAMETERS = {
    "Conv": lambda: nn.Conv(8, 8, 3, rngs=RNGS),
    "Conv depthwise": lambda: nn.Conv(8, 8, 3, groups=8, padding=1, rngs=RNGS),
    "Conv in groups": lambda: nn.Conv(8, 8, 3, groups=2, rngs=RNGS),
    "Conv pointwise": lambda: nn.Conv(8, 8, 1, stride=2, bias=False, rngs=RNGS),
    "ConvTranspose": lambda: nn.ConvTranspose(8, 8, 3, 2, rngs=RNGS),
    "Linear": lambda: nn.Linear(8, 8, rngs=RNGS),
    "BatchNorm": lambda: nn.BatchNorm(8, rngs=RNGS),
    "LayerNorm": lambda: nn.LayerNorm(8, rngs=RNGS),
    "GroupNorm": lambda: nn.GroupNorm(2, 8, rngs=RNGS),
    "SqueezeExcitation": lambda: nn.SqueezeExcitation(8, 4, rngs=RNGS),
    "ConvNormActivation": lambda: nn.ConvNormActivation(8, 8, activation_layer=nn.Hardswish, rngs=RNGS),
    "MLP": lambda: nn.MLP(8, [8, 8], nn.GELU, dropout=0.5, rngs=RNGS),
    "LayerScale": lambda: nn.LayerScale(8),
}
WITHOUT = {
    "MaxPool": lambda: nn.MaxPool(3, 2, 1),
    "AvgPool": lambda: nn.AvgPool(3, 2, 1, ceil_mode=True),
    "AdaptiveAvgPool": lambda: nn.AdaptiveAvgPool(1),
    "AdaptiveAvgPool uneven": lambda: nn.AdaptiveAvgPool(3),
    "AdaptiveMaxPool": lambda: nn.AdaptiveMaxPool(3),
    "BatchNorm bare": lambda: nn.BatchNorm(8, affine=False, rngs=RNGS),
    "LayerNorm bare": lambda: nn.LayerNorm(8, elementwise_affine=False, rngs=RNGS),
    "Dropout": lambda: nn.Dropout(0.5, rngs=RNGS),
    "StochasticDepth": lambda: nn.StochasticDepth(0.5, rngs=RNGS),
    "Flatten": nn.Flatten,
    "resize": lambda: lambda x: nn.resize(x, (7, 3), mode="bilinear"),
    **{kind.__name__: kind for kind in (nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Hardsigmoid, nn.Hardswish)},
}
X = normal(4, 5, 5, 8)
FLOATS = [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64]


def layers(cases: dict):
    return pytest.mark.parametrize("layer", cases)


@pytest.mark.parametrize("dtype", FLOATS)
@layers(WITH_PARAMETERS | WITHOUT)
def test_input_and_parameters_of_one_dtype_give_that_dtype(layer, dtype):
    module = (WITH_PARAMETERS | WITHOUT)[layer]()
    module = cast(module, dtype) if isinstance(module, nnx.Module) else module
    assert module(jnp.asarray(X, dtype)).dtype == dtype


@layers(WITH_PARAMETERS)
def test_parameters_are_float32_and_a_narrower_input_is_widened(layer):
    module = WITH_PARAMETERS[layer]()
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(module, nnx.Param))} == {jnp.float32.dtype}
    assert module(jnp.asarray(X, jnp.bfloat16)).dtype == jnp.float32
    assert module(jnp.asarray(X, jnp.float32)).dtype == jnp.float32
    assert module(jnp.asarray(X, jnp.float64)).dtype == jnp.float64


@layers([name for name in WITH_PARAMETERS if name not in ("SqueezeExcitation", "LayerScale")])
def test_whole_numbers_are_refused(layer):
    """Pictures as they come from files, which nobody has normalised, would give plausible nonsense."""
    with pytest.raises(UsageError, match=r"was given uint8.*preprocess"):
        WITH_PARAMETERS[layer]()(jnp.zeros(X.shape, jnp.uint8))


@pytest.mark.parametrize("layer", [name for name in WITHOUT if "Pool" in name or name == "resize"])
def test_whole_numbers_are_pooled_without_loss(layer):
    """A maximum stays a whole number; an average of whole numbers is none."""
    module, whole = WITHOUT[layer](), jnp.asarray(np.random.default_rng(0).integers(0, 256, X.shape), jnp.int32)
    np.testing.assert_array_equal(module(whole), module(whole.astype(jnp.float32)))
    assert module(whole).dtype == (whole.dtype if "Max" in layer else jnp.float32)


def test_attention_and_embed_keep_to_their_parameters():
    x, indices = jnp.asarray(normal(2, 5, 8)), jnp.arange(3)
    for dtype in FLOATS:
        assert cast(nn.MultiHeadAttention(8, 2, rngs=RNGS), dtype)(x.astype(dtype)).dtype == dtype
        assert cast(nn.Embed(3, 4, rngs=RNGS), dtype)(indices).dtype == dtype
    assert nn.MultiHeadAttention(8, 2, rngs=RNGS)(x.astype(jnp.bfloat16)).dtype == jnp.float32


def test_batch_norm_in_bfloat16_keeps_float32_statistics():
    """A mean of 16,384 numbers around 100 in bfloat16 would be off by whole units."""
    x = jnp.asarray(100 + normal(16, 32, 32, 3), jnp.bfloat16)
    norm = nn.BatchNorm(3, momentum=1.0, rngs=RNGS)
    narrow = cast(nn.BatchNorm(3, momentum=1.0, rngs=RNGS), jnp.bfloat16)
    for statistic in (narrow.mean, narrow.var):
        statistic.set_value(statistic.get_value().astype(jnp.float32))
    exact = np.asarray(x, np.float64).reshape(-1, 3)
    for layer in (norm, narrow):
        layer(x)
        assert layer.mean[...].dtype == layer.var[...].dtype == jnp.float32
        np.testing.assert_allclose(layer.mean[...], exact.mean(0), rtol=1e-6)
        np.testing.assert_allclose(layer.var[...], exact.var(0, ddof=1), rtol=2e-5)


@pytest.mark.parametrize("layer", ["BatchNorm", "LayerNorm", "GroupNorm"])
def test_norms_in_bfloat16_round_only_their_result(layer):
    module = cast(WITH_PARAMETERS[layer](), jnp.bfloat16)
    x = jnp.asarray(30 + X, jnp.bfloat16)
    exact = cast(WITH_PARAMETERS[layer](), jnp.float64)(x.astype(jnp.float64))
    np.testing.assert_array_equal(module(x), exact.astype(jnp.bfloat16))


@pytest.mark.parametrize("layer", ["AvgPool", "AdaptiveAvgPool", "AdaptiveAvgPool uneven", "resize"])
def test_averages_in_bfloat16_are_summed_in_float32(layer):
    x = jnp.asarray(30 + normal(2, 33, 41, 8), jnp.bfloat16)
    exact = WITHOUT[layer]()(x.astype(jnp.float64))
    np.testing.assert_allclose(np.asarray(WITHOUT[layer]()(x), np.float64), exact, rtol=2**-8)


def test_max_pools_gradient_in_bfloat16_is_summed_in_float32():
    """A pixel that is the maximum of 25 windows: in bfloat16, 128 + 0.5 is 128."""
    x = jnp.zeros((1, 9, 9, 1), jnp.bfloat16).at[0, 4, 4, 0].set(1)
    y, gradient = jax.vjp(lambda x: nn.max_pool(x, 5, 1), x)
    (dx,) = gradient(jnp.full_like(y, 0.5).at[0, 2, 2, 0].set(128))
    assert dx.dtype == jnp.bfloat16 and dx[0, 4, 4, 0] == 128 + 24 * 0.5


def test_attention_in_bfloat16_sums_its_softmax_in_float32():
    """500 equal weights of 1/500 sum to 1."""
    q = k = jnp.zeros((1, 500, 1, 8), jnp.bfloat16)
    v = jnp.ones((1, 500, 1, 8), jnp.bfloat16)
    np.testing.assert_allclose(np.asarray(nn.attend(q, k, v), np.float32), 1, rtol=2**-7)
