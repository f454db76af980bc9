"""The largest numbers in two stages are those of one, ties in their order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxzoo.nn import ops
from jaxzoo.nn.ops import ranking


@pytest.fixture(params=["cpu", "default"], ids=["on a CPU", "elsewhere"], autouse=True)
def platform(request, monkeypatch):
    """The formulation that a platform takes."""
    monkeypatch.setattr(ranking.lax, "platform_dependent", lambda *given, **ways: ways[request.param](*given))


@pytest.mark.parametrize("shape", [(1,), (50,), (100_003,), (3, 20_000), (2, 0)])
@pytest.mark.parametrize("k", [0, 1, 7, 1000])
@pytest.mark.parametrize("dtype", ["float64", "float32", "int32"])
def test_top_k_is_exact_and_keeps_the_order_of_ties(shape, k, dtype):
    k = min(k, shape[-1])
    rng = np.random.default_rng(0)
    for x in (rng.integers(0, 50, shape).astype(dtype), (rng.standard_normal(shape) * 1000).astype(dtype)):
        values, indices = jax.jit(ops.top_k, static_argnums=1)(x, k)
        expected = np.argsort(-x, -1, kind="stable")[..., :k]
        np.testing.assert_array_equal(indices, expected)
        np.testing.assert_array_equal(values, torch.tensor(x).topk(k)[0])


def test_infinity_and_derivatives():
    x = np.full(10_000, -np.inf)
    x[[5000, 9999]] = 0.0, np.inf
    assert ops.top_k(x, 4)[1].tolist() == [9999, 5000, 0, 1]
    gradient = jax.grad(lambda x: (ops.top_k(x, 3)[0] * jnp.arange(3.0)).sum())(jnp.arange(10_000.0))
    assert gradient[-3:].tolist() == [2, 1, 0] and gradient.sum() == 3
