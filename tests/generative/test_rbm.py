"""Restricted Boltzmann machines against scikit-learn, and against sums over all states."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from sklearn.neural_network import BernoulliRBM

import jaxzoo
from jaxzoo import UsageError
from jaxzoo.generative.dbn import DBN
from jaxzoo.generative.partition import annealed_log_partition, exact_log_partition
from jaxzoo.generative.rbm import RBM, GaussianRBM, contrastive_divergence, gibbs
from train.data.sources import digits

HIDDEN, RATE, BATCH = 12, 0.05, 10


class Prescribed:
    """Stands for scikit-learn's random generator, and remembers the numbers that it gave."""

    def __init__(self, seed: int):
        self.draws, self.uniforms = np.random.RandomState(seed), []

    def normal(self, *args):
        return self.draws.normal(*args)

    def uniform(self, size):
        self.uniforms.append(self.draws.uniform(size=size))
        return self.uniforms[-1]


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Some digits, (55, 64) from 0 to 1: five batches, and half a one."""
    return digits.load().train.images[:55].reshape(55, 64) / 16


@pytest.fixture(scope="module")
def trained() -> RBM:
    """A small machine far from even chances."""
    rbm = RBM((9,), 7, rngs=nnx.Rngs(0))
    draws = np.random.default_rng(0)
    for variable in (rbm.components, rbm.intercept_hidden, rbm.intercept_visible):
        variable.set_value(jnp.asarray(draws.normal(size=variable.shape)))
    return rbm


def test_an_epoch_equals_that_of_scikit_learn(pixels):
    theirs = BernoulliRBM(HIDDEN, learning_rate=RATE, batch_size=BATCH)
    prescribed = Prescribed(0)
    theirs.components_ = prescribed.normal(0, 0.5, (HIDDEN, 64))
    theirs.intercept_hidden_, theirs.intercept_visible_ = prescribed.normal(0, 1, HIDDEN), prescribed.normal(0, 1, 64)
    theirs.h_samples_ = (prescribed.normal(0, 1, (BATCH, HIDDEN)) > 0).astype(float)
    ours = RBM((64,), HIDDEN, rngs=nnx.Rngs(0))
    names = ("components", "intercept_hidden", "intercept_visible")
    for name in names:
        getattr(ours, name).set_value(jnp.asarray(getattr(theirs, f"{name}_")))
    chains = jnp.asarray(theirs.h_samples_)
    update = jax.jit(lambda state, *given: contrastive_divergence(nnx.merge(graph, state), *given))
    graph = nnx.graphdef(ours)
    for start in range(0, 50, BATCH):
        batch = pixels[start : start + BATCH]
        theirs._fit(batch, prescribed)
        noise = {name: draw[None] for name, draw in zip(("visible", "hidden"), prescribed.uniforms[-2:], strict=True)}
        gradients, walk = update(nnx.state(ours), batch, chains, noise)
        for name in names:
            variable = getattr(ours, name)
            variable.set_value(variable[...] - RATE * gradients[name])
            np.testing.assert_allclose(variable[...], getattr(theirs, f"{name}_"), rtol=1e-12, atol=1e-13)
        chains = walk.hidden
        assert np.array_equal(chains, theirs.h_samples_)
    np.testing.assert_allclose(ours.free_energy(pixels), theirs._free_energy(pixels), rtol=1e-12)
    # Of a short batch scikit-learn divides the sums of all chains by the number of data.
    theirs._fit(pixels[50:], prescribed)
    noise = {name: draw[None] for name, draw in zip(("visible", "hidden"), prescribed.uniforms[-2:], strict=True)}
    found, wanted = ours.statistics(gibbs(ours, chains, noise).visible), ours.statistics(jnp.asarray(pixels[50:]))
    for name in names:
        moved = getattr(ours, name)[...] - RATE * (found[name] - wanted[name]) / 5
        np.testing.assert_allclose(moved, getattr(theirs, f"{name}_"), rtol=1e-12, atol=1e-13)


def test_free_energy_adds_up_to_the_partition_function(trained):
    states = jnp.asarray(list(itertools.product((0.0, 1.0), repeat=9)))
    assert exact_log_partition(trained) == pytest.approx(jax.nn.logsumexp(-trained.free_energy(states)), rel=1e-12)


def test_statistics_are_the_slopes_of_free_energy(trained):
    gaussian = GaussianRBM((9,), 7, sigma=0.7, rngs=nnx.Rngs(0))
    nnx.update(gaussian, nnx.state(trained))
    visible = jnp.asarray(np.random.default_rng(1).uniform(size=(5, 9)))
    for rbm in (trained, gaussian):
        graph, params, rest = nnx.split(rbm, nnx.Param, ...)
        slopes = jax.grad(lambda p: nnx.merge(graph, p, rest).free_energy(visible).sum())(params)  # noqa: B023
        for name, found in rbm.statistics(visible).items():
            np.testing.assert_allclose(-found, slopes[name].get_value(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sigma", [None, 0.7])
def test_annealing_estimates_the_partition_function(trained, sigma):
    rbm = trained if sigma is None else GaussianRBM((9,), 7, sigma=sigma, rngs=nnx.Rngs(0))
    nnx.update(rbm, nnx.state(trained))
    graph, state = nnx.split(rbm)
    estimate = jax.jit(lambda state, key: annealed_log_partition(nnx.merge(graph, state), key, 500, 500))
    found = [float(estimate(state, jax.random.key(seed))) for seed in range(3)]
    assert np.mean(found) == pytest.approx(float(exact_log_partition(rbm)), abs=0.05)
    assert float(rbm.log_partition_apart()) != pytest.approx(np.mean(found), abs=0.5)


def test_the_normal_visible_units_integrate_to_one():
    rbm = GaussianRBM((1,), 3, sigma=0.5, rngs=nnx.Rngs(0))
    rbm.components.set_value(jnp.asarray([[1.5], [-2.0], [0.5]]))
    rbm.intercept_hidden.set_value(jnp.asarray([0.3, -0.2, 1.0]))
    places = jnp.linspace(-12, 12, 200_001)
    total = jnp.trapezoid(jnp.exp(-rbm.free_energy(places[:, None])), places)
    assert jnp.log(total) == pytest.approx(exact_log_partition(rbm), abs=1e-9)


def test_gibbs_sampling_visits_states_as_often_as_they_are_likely(trained):
    hidden = trained.sample_hidden(jax.random.key(0), 4000, 60)
    states = jnp.asarray(list(itertools.product((0.0, 1.0), repeat=7)))
    likely = jax.nn.softmax(trained.log_weight(states)) @ states
    np.testing.assert_allclose(hidden.mean(0), likely, atol=0.04)


def test_contrastive_divergence_climbs_the_likelihood(pixels):
    """Of digits in black and white, by exact likelihoods."""
    rbm = RBM((64,), HIDDEN, chains=0, rngs=nnx.Rngs(0))
    data = jnp.asarray(pixels > 0.5, jnp.float32)
    graph, state = nnx.split(rbm)

    @jax.jit
    def train(state, key):
        rbm = nnx.merge(graph, state, copy=True)
        nnx.reseed(rbm, policy="match_shape", sampling=key)
        for name, gradient in rbm.contrastive_divergence(data)[0].items():
            variable = getattr(rbm, name)
            variable.set_value(variable[...] - 0.1 * gradient)
        return nnx.state(rbm)

    def nats(state) -> float:
        rbm = nnx.merge(graph, state)
        return float(rbm.free_energy(data).mean() + exact_log_partition(rbm))

    before = nats(state)
    for key in jax.random.split(jax.random.key(0), 100):
        state = train(state, key)
    assert before == pytest.approx(64 * np.log(2), abs=1) and nats(state) < 32


def test_too_many_states_are_refused():
    with pytest.raises(UsageError, match="256 hidden units have too many states"):
        exact_log_partition(jaxzoo.create_model("rbm"))


def test_a_classifier_begins_with_the_machines_of_a_belief_network():
    dbn = DBN((8, 8, 1), (20, 10), rngs=nnx.Rngs(0))
    classifier = dbn.classifier(3, rngs=nnx.Rngs(1))
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 8, 8, 1)), jnp.float32)
    found = images
    for layer in list(classifier)[:-1]:
        found = layer(found)
    np.testing.assert_allclose(found, dbn.encode(images), rtol=1e-6)
    assert classifier(images).shape == (2, 3)
