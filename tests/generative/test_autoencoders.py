"""Losses of autoencoders against automatic differentiation, sampling and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxzoo
from jaxzoo import UsageError
from jaxzoo.generative.pixels import bernoulli_kl, corrupted, corruption_noise, gaussian_nll, kl_from_standard_normal
from jaxzoo.generative.vae import VAE

SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def images() -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).uniform(size=(6, *SHAPE)))


def test_the_contraction_is_the_norm_of_the_jacobian(images):
    model = jaxzoo.create_model("contractive_autoencoder", image_size=8, code=10)
    jacobian = jax.vmap(jax.jacfwd(lambda x: model.encoder(x[None])[0]))(images)
    found = model.squared_jacobian(model.encoder(images))
    np.testing.assert_allclose(found, jnp.square(jacobian).sum((1, 2, 3, 4)), rtol=1e-6)


def test_divergences_are_means_of_log_ratios():
    mean, logvar = jnp.asarray([[0.5, -1.0]]), jnp.asarray([[0.2, -0.7]])
    noise = jax.random.normal(jax.random.key(0), (400_000, 2))
    z = mean + noise * jnp.exp(logvar / 2)
    ratios = (jnp.square(z) - jnp.square(noise) - logvar).sum(-1) / 2
    assert kl_from_standard_normal(mean, logvar)[0] == pytest.approx(float(ratios.mean()), abs=0.01)
    assert bernoulli_kl(0.2, jnp.asarray(0.2)) == pytest.approx(0, abs=1e-7)
    assert bernoulli_kl(0.2, jnp.asarray(0.5)) == pytest.approx(0.2 * np.log(0.4) + 0.8 * np.log(1.6))


def test_the_normal_likelihood_is_a_density():
    x = jnp.linspace(-3, 3, 10_001)
    density = jnp.exp(-gaussian_nll(jnp.full((len(x), 1), 0.2), x[:, None], 0.3))
    assert jnp.trapezoid(density, x) == pytest.approx(1, abs=1e-6)


def test_more_samples_tighten_the_bound(images):
    """The ELBO is below the bound of many samples, which comes close to log p(x): here an integral over one unit."""
    model = VAE(SHAPE, hidden=5, code=1, rngs=nnx.Rngs(0))
    places = jnp.linspace(-8, 8, 201)
    joint = jax.vmap(lambda z: -model.nll(jnp.full((6, 1), z), images) - z**2 / 2)(places)
    exact = jax.nn.logsumexp(joint, axis=0) + jnp.log((places[1] - places[0]) / jnp.sqrt(2 * jnp.pi))
    noise = jax.random.normal(jax.random.key(0), (20_000, 6, 1))
    bound = model.importance_weighted_bound(images, noise)
    np.testing.assert_allclose(bound, exact, atol=0.02)
    elbo = jax.vmap(lambda one: model.elbo(images, one))(noise[:1000]).mean(0)
    assert (elbo < bound - 0.1).all()


@pytest.mark.parametrize(("corruption", "level"), [("gaussian", 0.3), ("masking", 0.25), ("salt_and_pepper", 0.4)])
def test_corruptions_do_what_they_say(corruption, level):
    images = jnp.full((10, 40, 40, 1), 0.5)
    noise = corruption_noise(corruption, jax.random.key(0), images.shape)
    noisy = corrupted(corruption, images, noise, level)
    black, white = (float((noisy == value).mean()) for value in (0, 1))
    expected = {"gaussian": (0, 0), "masking": (level, 0), "salt_and_pepper": (level / 2, level / 2)}[corruption]
    assert (black, white) == pytest.approx(expected, abs=0.01)
    if corruption == "gaussian":
        assert float((noisy - images).std()) == pytest.approx(level, abs=0.01)


def test_training_draws_noise_and_evaluation_none(images):
    for name in ("vae", "denoising_autoencoder"):
        model = jaxzoo.create_model(name, image_size=8)
        first, second = (float(model.losses(images)["reconstruction"]) for _ in range(2))
        assert first != second and np.array_equal(model(images)["images"], model(images)["images"])


def test_what_cannot_be_is_refused():
    for name, arguments, words in (
        ("denoising_autoencoder", {"corruption": "rain"}, "one of: gaussian, masking, salt_and_pepper"),
        ("denoising_autoencoder", {"corruption": "masking", "level": 1.5}, "level of corruption is 1.5"),
        ("sparse_autoencoder", {"penalty": "l2"}, "one of: kl, l1"),
        ("sparse_autoencoder", {"rho": 0}, "rho is 0"),
        ("vae", {"likelihood": "poisson"}, "one of: bernoulli, gaussian"),
        ("conv_vae", {"image_size": 30}, "a multiple of 4"),
        ("rbm", {"gibbs_steps": 0}, "gibbs_steps is 0"),
        ("gaussian_rbm", {"sigma": 0}, "sigma is 0"),
        ("dbn", {"hidden": []}, "at least one layer"),
    ):
        with pytest.raises(UsageError, match=words):
            jaxzoo.create_model(name, **arguments)
