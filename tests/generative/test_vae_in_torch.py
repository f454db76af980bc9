"""A variational autoencoder that learns here is as good on held-out digits as one that torch trains: with --full."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx

import jaxzoo
from convert.rules import load_state_dict
from convert.twins import arrays, build_twin
from train.data.sources import binary_digits

EPOCHS, BATCH, SEEDS = 30, 64, 4


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    """Digits to learn from and held-out ones, (N, 8, 8, 1) of 0 and 1, float32."""
    both = binary_digits.load()
    return tuple((side.images[..., None] / 16).astype(np.float32) for side in (both.train, both.held_out))


def ours(images: np.ndarray, seed: int) -> nnx.Module:
    model = jaxzoo.create_model("vae", image_size=8, seed=seed)
    optimizer = optax.adam(1e-3)
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    @jax.jit
    def step(params, memory, batch, key):
        def loss(params):
            return sum(nnx.merge(graph, params, rest, copy=True).losses(batch, noise).values())

        noise = jax.random.normal(key, (BATCH, model.code))
        updates, memory = optimizer.update(jax.grad(loss)(params), memory, params)
        return optax.apply_updates(params, updates), memory

    memory, order, key = optimizer.init(params), np.random.default_rng(seed), jax.random.key(seed)
    for batch in batches(images, order):
        key, drawing = jax.random.split(key)
        params, memory = step(params, memory, batch, drawing)
    return nnx.merge(graph, params, rest)


def theirs(images: np.ndarray, seed: int) -> nnx.Module:
    torch.manual_seed(seed)
    twin = build_twin(jaxzoo.card("vae"), image_size=8).train()
    optimizer = torch.optim.Adam(twin.parameters(), lr=1e-3)
    for batch in batches(images, np.random.default_rng(100 + seed)):
        optimizer.zero_grad()
        sum(twin.losses(torch.from_numpy(batch).movedim(-1, 1), torch.randn(BATCH, 20)).values()).backward()
        optimizer.step()
    model = jaxzoo.create_model("vae", image_size=8)
    load_state_dict(model, arrays(twin))
    return model


def batches(images: np.ndarray, order: np.random.Generator):
    for _ in range(EPOCHS):
        shuffled = order.permutation(len(images))
        for start in range(0, len(images) - BATCH + 1, BATCH):
            yield images[shuffled[start : start + BATCH]]


@pytest.mark.full("none without --full")
@pytest.mark.parametrize("name", ["vae"])
def test_the_elbo_is_within_the_spread_of_seeds(name, data):
    training, held_out = data
    noise = jax.random.normal(jax.random.key(0), (len(held_out), 20))
    found, expected = (
        np.array([float(-train(training, seed).elbo(jnp.asarray(held_out), noise).mean()) for seed in range(SEEDS)])
        for train in (ours, theirs)
    )
    spread = np.sqrt((found.var(ddof=1) + expected.var(ddof=1)) / SEEDS)
    print(f"held-out -ELBO in nats: {found.round(3)} here, {expected.round(3)} in torch")
    assert found.max() < 20.5 and abs(found.mean() - expected.mean()) < 3 * spread
