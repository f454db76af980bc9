"""The compiled step: what it changes, what it leaves alone, and that it is a function of its arguments."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx
from torch.optim.swa_utils import AveragedModel

from jaxzoo import Preprocess, nn
from tests.compare import close
from tests.train.pooled import Pooled
from tests.train.tiny import Tiny
from train.config.options import Config
from train.engine import network, step
from train.optim.optimizers import learning_rate, optimizer
from train.optim.parameter_groups import parameter_kinds
from train.setup.prepare import average_of, shapes_line
from train.tasks.classification import Classification


def batch(size=8, seed=0):
    rng = np.random.default_rng(seed)
    images, labels = rng.integers(0, 256, (size, 32, 32, 3), np.uint8), rng.integers(0, 10, size).astype(np.int32)
    indices = np.arange(size, dtype=np.int32)
    return {"image": images, "label": labels, "mask": np.ones(size, bool), "indices": indices}


def build(model=None, *, transform=None, **options):
    dtype = options.get("dtype", jnp.float32)
    task = Classification([str(i) for i in range(10)], Preprocess(crop=32), dtype=dtype)
    model = model or Tiny(10, rngs=nnx.Rngs(params=0, dropout=0))
    transform = transform or optax.sgd(0.1)
    schedule = optax.constant_schedule(0.1)
    return step.build(model, [task], transform, schedule, 8, **{"per_epoch": 3, "seed": 0} | options)


def train(built, count, **options):
    (steps, state), losses = built, []
    for _ in range(count):
        state, report = steps.train[0](state, steps.put_batch(batch(**options)), steps.put_control())
        losses.append(float(report["loss"]))
    return state, losses


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


def test_random_streams_of_any_name_differ_from_step_to_step_and_from_each_other():
    class Noisy(Tiny):
        def __init__(self, *, rngs):
            super().__init__(10, dropout=0.0, rngs=rngs)
            self.one, self.other = (nnx.RngStream(jax.random.key(0), tag=tag) for tag in ("one", "other"))

        def __call__(self, x):
            y = super().__call__(x)
            return y + jax.random.normal(self.one(), y.shape) - jax.random.normal(self.other(), y.shape)

    _, losses = train(build(Noisy(rngs=nnx.Rngs(params=0, dropout=0)), transform=optax.sgd(0.0)), 4)
    assert len(set(losses)) == 4


def test_a_step_is_compiled_once_for_each_bucket_and_their_number_is_said():
    steps, state = build(Pooled(10, 0.1, 0.0, rngs=nnx.Rngs(params=0, dropout=0)))
    for side in (32, 24, 32, 24):
        seen = batch() | {"image": np.zeros((8, side, side, 3), np.uint8)}
        state, _ = steps.train[0](state, steps.put_batch(seen), steps.put_control())
    assert steps.train[0]._cache_size() == 2 and state["step"] == 4
    of = types.SimpleNamespace(buckets=[range(8), range(8, 16)])
    said = shapes_line(types.SimpleNamespace(batches=[of, of]))  # of two stages
    assert said == "4 shapes of batches, for each of which the step is compiled once"


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_average_is_torchs_at_every_step(accumulate):
    """As torchvision's references train: in the warm-up the count of torch's average is set back after every update."""
    config = Config(optimizer="sgd", lr=0.1, epochs=3, warmup_epochs=1.0, accumulate=accumulate, ema=0.6)
    model, schedule = Tiny(10, rngs=nnx.Rngs(params=0, dropout=0)), learning_rate(config, per_epoch=4)
    transform = optimizer(config, schedule, parameter_kinds(model))
    steps, state = build(model, transform=transform, per_epoch=4, average=average_of(config, per_epoch=4))
    twin = torch.nn.Linear(512, 10, bias=False)

    def weights(arrays):
        return np.array(arrays["fc.kernel"].T)

    twin.weight.data = torch.tensor(weights(state["params"]))
    average = AveragedModel(twin, avg_fn=lambda old, new, _: config.ema * old + (1 - config.ema) * new)
    for index in range(12):
        state, _ = steps.train[0](state, steps.put_batch(batch(seed=index)), steps.put_control())
        if (index + 1) % accumulate == 0:
            twin.weight.data = torch.tensor(weights(state["params"]))
            average.update_parameters(twin)
        if index < 4:
            average.n_averaged.fill_(0)
        close(weights(state["ema"]), average.module.weight.detach(), f"step {index}", 1e-6)


def test_an_average_begins_in_the_middle_of_a_run_at_the_latest():
    assert average_of(Config(epochs=2, warmup_epochs=50, ema=0.6), per_epoch=5).start == 6


def test_evaluation_is_without_dropout_and_leaves_the_state_alone():
    steps, state = build()
    seen = steps.put_batch(batch())
    once, again = (steps.evaluate(step.weights_of(state), steps.init_metrics, seen)[0] for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, once, again)
    assert once["loss"]["count"] == 8
    twice, _ = steps.evaluate(step.weights_of(state), once, seen)
    np.testing.assert_allclose(twice["loss"]["loss"], 2 * once["loss"]["loss"], rtol=1e-6)


def test_training_metrics_begin_anew_with_every_epoch():
    steps = build()
    assert [
        int(train(steps_, n)[0]["metrics"]["loss"]["count"]) for n, steps_ in ((1, steps), (3, build()), (4, build()))
    ] == [
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
    assert np.isnan(steps.train[0](state, steps.put_batch(batch()), steps.put_control())[1]["loss"])


def test_dropout_before_a_frozen_layer_is_off_and_before_the_head_on():
    class Classifier(nnx.Module):
        def __init__(self, rngs):
            layers = [nn.Dropout(rngs=rngs), nn.Linear(4, 4, rngs=rngs), nn.ReLU(), nn.Dropout(rngs=rngs)]
            self.classifier = nn.Sequential(*layers, nn.Linear(4, 2, rngs=rngs))

    model = network.set_train_mode_where(Classifier(nnx.Rngs(0)), lambda path: path.startswith("classifier.4"))
    assert [model.classifier[place].deterministic for place in (0, 3)] == [True, False]
    model = network.set_train_mode_where(model, lambda path: True)
    assert [model.classifier[place].deterministic for place in (0, 3)] == [False, False]
