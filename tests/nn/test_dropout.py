"""Dropout and StochasticDepth: what they drop, how they scale, and where their randomness comes from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torchvision
from flax import nnx

from jaxzoo import nn
from jaxzoo.nn import MLP, Dropout, Dropout2d, MultiHeadAttention, Sequential, StochasticDepth

X = jnp.asarray(np.random.default_rng(0).uniform(1, 2, (4000, 3, 2, 5)))
DRAWS = {Dropout: X.size, Dropout2d: len(X) * 5, StochasticDepth: len(X)}  # of one call
KINDS = list(DRAWS)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", KINDS)
def test_the_share_that_is_dropped_is_p_and_the_rest_is_scaled(kind, p):
    y = np.asarray(kind(p, rngs=nnx.Rngs(0))(X))
    kept = y != 0
    assert abs(kept.mean() - (1 - p)) < 5 * np.sqrt(p * (1 - p) / DRAWS[kind])
    np.testing.assert_allclose(y[kept], (np.asarray(X) / (1 - p))[kept], rtol=1e-15)


def test_stochastic_depth_drops_whole_samples():
    rows = np.asarray(StochasticDepth(0.5, rngs=nnx.Rngs(0))(X) != 0).reshape(len(X), -1)
    assert (rows.all(1) | ~rows.any(1)).all()
    assert {*rows.any(1)} == {True, False}


def test_dropout2d_drops_whole_channels():
    places = np.asarray(Dropout2d(0.5, rngs=nnx.Rngs(0))(X) != 0).reshape(len(X), -1, X.shape[-1])
    assert (places.all(1) | ~places.any(1)).all()


@pytest.mark.parametrize("kind", [Dropout, Dropout2d])
def test_what_is_dropped_is_dropped_independently(kind):
    kept = np.asarray(kind(0.5, rngs=nnx.Rngs(0))(X) != 0).reshape(len(X), -1)
    kept = kept if kind is Dropout else kept[:, : X.shape[-1]]
    correlation = np.corrcoef(kept.T) - np.eye(kept.shape[1])
    assert np.abs(correlation).max() < 5 / np.sqrt(len(X))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_dropped_in_eval_or_with_p_zero_and_everything_with_p_one(kind):
    layer = kind(0.7, rngs=nnx.Rngs(0))
    layer.eval()
    assert layer(X) is X
    layer.train()
    assert (layer(X) == 0).any()
    assert kind(0.0, rngs=nnx.Rngs(0))(X) is X
    assert not kind(1.0, rngs=nnx.Rngs(0))(X).any()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_pass_where_values_did(kind):
    layer = kind(0.5, rngs=nnx.Rngs(0))
    graph, state = nnx.split(layer)

    def f(x):
        return nnx.merge(graph, state, copy=True)(x)

    y, gradient = f(X), jax.grad(lambda x: f(x).sum())(X)
    np.testing.assert_array_equal(gradient, np.where(np.asarray(y) != 0, 2.0, 0.0))


@pytest.mark.parametrize("kind", KINDS)
def test_every_call_draws_anew_and_every_seed_repeats(kind):
    a, b, c = (kind(0.5, rngs=nnx.Rngs(seed)) for seed in (0, 0, 1))
    first, second = a(X), a(X)
    assert (first != second).any()
    assert (first == b(X)).all() and (second == b(X)).all()
    assert (first != c(X)).any()


def test_layers_of_one_model_draw_independently():
    rngs = nnx.Rngs(0)
    model = Sequential(Dropout(0.5, rngs=rngs), StochasticDepth(0.5, rngs=rngs), Dropout(0.5, rngs=rngs))
    one, _, other = (np.asarray(layer(X) != 0) for layer in model)
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 5 / np.sqrt(X.size)


def test_reseeding_inside_jit_decides_every_draw():
    """As the trainer does: one key per step, no state carried over."""
    rngs = nnx.Rngs(0)
    model = Sequential(Dropout(0.5, rngs=rngs), StochasticDepth(0.5, rngs=rngs), MLP(5, [5], dropout=0.5, rngs=rngs))
    graph, state = nnx.split(model)
    traces = []

    @jax.jit
    def step(state, key, x):
        traces.append(1)
        model = nnx.merge(graph, state, copy=True)
        nnx.reseed(model, dropout=key)
        return model(x)

    first = step(state, jax.random.key(1), X)
    model(X)  # moves the streams of the model itself
    np.testing.assert_array_equal(step(nnx.state(model), jax.random.key(1), X), first)
    assert (step(state, jax.random.key(2), X) != first).any()
    assert len(traces) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_impossible_probabilities_are_named(kind, p):
    with pytest.raises(ValueError, match="between 0 and 1"):
        kind(p, rngs=nnx.Rngs(0))


def test_attention_drops_weights_only_in_training():
    layer = MultiHeadAttention(12, 3, dropout=0.5, rngs=nnx.Rngs(0))
    x = X[:8].reshape(8, 5, 6).repeat(2, -1)
    assert (layer(x) != layer(x)).any()
    layer.eval()
    np.testing.assert_array_equal(layer(x), layer(x))


def test_modes_match_torchvisions():
    """`StochasticDepth` is torchvision's mode "row"; both leave the mean of a constant where it was."""
    torch.manual_seed(0)
    theirs = torchvision.ops.StochasticDepth(0.3, "row").train()(torch.ones(4000, 2, 3)).numpy()
    ours = np.asarray(nn.StochasticDepth(0.3, rngs=nnx.Rngs(0))(jnp.ones((4000, 2, 3))))
    assert np.allclose(np.unique(ours), np.unique(theirs))
    assert abs(ours.mean() - theirs.mean()) < 5 * np.sqrt(2 * 0.3 / 0.7 / 4000)
