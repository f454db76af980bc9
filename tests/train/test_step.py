"""The compiled step: what it changes, what it leaves alone, and that it is a function of its arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxzoo import Preprocess, nn
from tests.train.tiny import Tiny
from train import step
from train.config import Config
from train.optimizer import learning_rate, optimizer
from train.tasks.classification import Classification


def batch(size=8, seed=0):
    rng = np.random.default_rng(seed)
    images, labels = rng.integers(0, 256, (size, 32, 32, 3), np.uint8), rng.integers(0, 10, size).astype(np.int32)
    indices, yes = np.arange(size, dtype=np.int32), np.ones(size, bool)
    return {"image": images, "label": labels, "mask": yes, "indices": indices, "stop": ~yes}


def build(model=None, *, transform=None, **options):
    dtype = options.get("dtype", jnp.float32)
    task = Classification([str(i) for i in range(10)], Preprocess(crop=32), dtype=dtype)
    model = model or Tiny(10, rngs=nnx.Rngs(params=0, dropout=0))
    transform = transform or optax.sgd(0.1)
    schedule = optax.constant_schedule(0.1)
    return step.build(model, [task], transform, schedule, batch(), **{"per_epoch": 3, "seed": 0} | options)


def train(built, count, **options):
    (steps, state), losses = built, []
    for _ in range(count):
        state, report = steps.train[0](state, steps.put_batch(batch(**options)))
        losses.append(float(report["loss"]))
    return state, losses


def test_steps_learn():
    _, losses = train(build(), 20)
    assert losses[-1] < losses[0] / 3


def test_a_step_moves_parameters_and_statistics_and_counts():
    steps, state = build()
    before = jax.tree.map(np.array, state)
    state, _ = train((steps, state), 2)
    assert all((before["params"][name] != state["params"][name]).any() for name in before["params"])
    assert (before["stats"]["bn.mean"] != state["stats"]["bn.mean"]).all()
    assert state["stats"]["bn.num_batches_tracked"] == 2
    assert state["step"] == 2


def test_a_step_is_a_function_of_state_and_batch_alone():
    first, second = (train(build(), 3)[0] for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_dropout_differs_from_step_to_step_and_from_seed_to_seed():
    still = optax.sgd(0.0)
    _, losses = train(build(transform=still), 4)
    assert len(set(losses)) == 4
    _, others = train(build(transform=still, seed=1), 4)
    assert set(losses).isdisjoint(others)


def test_evaluation_is_without_dropout_and_leaves_the_state_alone():
    steps, state = build()
    once, again = (steps.evaluate(step.weights_of(state), steps.no_sums, steps.put_batch(batch())) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, once, again)
    assert once["count"] == 8
    twice = steps.evaluate(step.weights_of(state), once, steps.put_batch(batch()))
    np.testing.assert_allclose(twice["loss"], 2 * once["loss"], rtol=1e-6)


def test_training_sums_begin_anew_with_every_epoch():
    steps = build()
    assert [int(train(steps_, n)[0]["sums"]["count"]) for n, steps_ in ((1, steps), (3, build()), (4, build()))] == [
        8,
        24,
        8,
    ]


def test_bfloat16_computes_in_bfloat16_and_keeps_everything_else_in_float32():
    seen = []

    class Watched(Tiny):
        def __call__(self, x):
            y = super().__call__(x)
            seen.append((x.dtype, self.conv.kernel.dtype, y.dtype))
            return y

    low = build(Watched(10, rngs=nnx.Rngs(params=0, dropout=0)), dtype=jnp.bfloat16)
    state, losses = train(low, 5)
    assert set(seen) == {(jnp.dtype(jnp.bfloat16),) * 3}
    floats = {leaf.dtype for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)}
    assert floats == {jnp.dtype(jnp.float32)}
    np.testing.assert_allclose(losses, train(build(), 5)[1], rtol=0.02)


def test_a_loss_that_is_not_finite_is_reported():
    steps, state = build()
    state["params"] = jax.tree.map(lambda leaf: leaf * jnp.nan, state["params"])
    assert np.isnan(steps.train[0](state, steps.put_batch(batch()))[1]["loss"])


def test_the_learning_rate_warms_up_and_falls_to_nothing():
    rates = jax.vmap(learning_rate(Config(epochs=5, lr=0.1, warmup_epochs=1), per_epoch=10))(jnp.arange(50))
    np.testing.assert_allclose(rates[:11], [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.1], rtol=1e-5)
    assert (np.diff(rates[10:]) < 0).all()
    assert 0 < rates[-1] < 0.0003
    np.testing.assert_allclose(
        jax.vmap(learning_rate(Config(epochs=7, lr=5e-4, warmup_epochs=0), 10))(jnp.arange(1)), [5e-4], rtol=1e-6
    )
    constant = jax.vmap(learning_rate(Config(epochs=7, lr=5e-4, schedule="constant"), 10))(jnp.arange(50))
    np.testing.assert_allclose(constant[9:], 5e-4, rtol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_only_kernels_decay(name):
    decaying = {"conv.kernel", "layers.0.attention.in_proj.kernel"}
    still = {
        "conv.bias",
        "norm.scale",
        "class_token",
        "attn.relative_position_bias_table",
        "layer_scale",
        "logit_scale",
    }
    params = {path: jnp.ones(2) for path in decaying | still}
    config = Config(
        epochs=7, optimizer=name, weight_decay=0.5, lr=0.1, momentum=0, schedule="constant", warmup_epochs=0
    )
    transform = optimizer(config, learning_rate(config, per_epoch=10))
    updates, _ = transform.update(jax.tree.map(jnp.zeros_like, params), transform.init(params), params)
    for path, update in updates.items():
        np.testing.assert_allclose(update, -0.05 if path in decaying else 0, atol=1e-7, err_msg=path)


def test_dropout_before_a_frozen_layer_is_off_and_before_the_head_on():
    class Classifier(nnx.Module):
        def __init__(self, rngs):
            layers = [nn.Dropout(rngs=rngs), nn.Linear(4, 4, rngs=rngs), nn.ReLU(), nn.Dropout(rngs=rngs)]
            self.classifier = nn.Sequential(*layers, nn.Linear(4, 2, rngs=rngs))

    model = step.in_mode(Classifier(nnx.Rngs(0)), lambda path: path.startswith("classifier.4"))
    assert [model.classifier[place].deterministic for place in (0, 3)] == [True, False]
    model = step.in_mode(model, lambda path: True)
    assert [model.classifier[place].deterministic for place in (0, 3)] == [False, False]
