"""What `test_devices` runs in a process with eight devices: the compiled step divided among them, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx

from jaxzoo import Preprocess, UsageError
from tests.compare import cast, close
from tests.train.pixels import Pixels
from tests.train.test_torch_equality import Exact
from tests.train.tiny import Tiny
from train.data import masks
from train.engine import checkpoint, step
from train.metrics.mean_iou import whole
from train.tasks.segmentation import Segmentation

CLASSES = [str(i) for i in range(10)]
ROWS = 32


@pytest.fixture(autouse=True)
def small_arrays_are_divided_too(monkeypatch):
    monkeypatch.setattr(step, "SHARDED_FROM", 64)


def batch(index):
    rng = np.random.default_rng([3, index])
    images, labels = rng.integers(0, 256, (ROWS, 32, 32, 3), np.uint8), rng.integers(0, 10, ROWS).astype(np.int32)
    return {"image": images, "label": labels, "mask": np.ones(ROWS, bool), "indices": np.arange(ROWS, dtype=np.int32)}


def build(devices=8, *, dropout=0.1, transform=None, **options):
    model = cast(Tiny(10, dropout, rngs=nnx.Rngs(params=0, dropout=0)), jnp.float64)
    task = Exact(CLASSES, Preprocess(crop=32), dtype=jnp.float64)
    chosen = {"per_epoch": 3, "seed": 0, "dtype": jnp.float64, "devices": jax.devices()[:devices]} | options
    transform = transform or optax.adamw(1e-2)
    return step.build(model, [task], transform, optax.constant_schedule(1e-2), ROWS, **chosen)


def train(built, count, first=0):
    (steps, state), reports = built, []
    for index in range(first, first + count):
        state, report = steps.train[0](state, steps.put_batch(batch(index)), steps.put_control())
        reports.append(jax.device_get(report))
    return state, reports


def assert_equal(ours, theirs, bound=1e-12):
    ours, theirs = jax.device_get(ours), jax.device_get(theirs)
    for (path, a), (_, b) in zip(*map(jax.tree_util.tree_leaves_with_path, (ours, theirs)), strict=True):
        close(np.asarray(a, float), np.asarray(b, float), jax.tree_util.keystr(path), bound)


AVERAGE = step.Average(0.9)


def accumulating():
    return optax.MultiSteps(optax.adamw(1e-2), 2).gradient_transformation()


def test_there_are_eight_devices():
    assert jax.device_count() == 8


def test_statistics_of_the_whole_batch_make_eight_devices_equal_to_one():
    one, eight = (train(build(devices, average=AVERAGE), 4) for devices in (1, 8))
    assert_equal(eight, one, 1e-10)  # Adam's quotients enlarge rounding


def test_divided_parameters_learn_the_same_and_stay_divided():
    options = {"average": AVERAGE, "transform": accumulating()}
    whole, divided = (train(build(**options, shard_params=divide), 6) for divide in (False, True))
    assert_equal(divided, whole, 1e-10)
    kernel = divided[0]["params"]["fc.kernel"]
    assert kernel.addressable_shards[0].data.shape == (512 // 8, 10)

    def on_one_device(state):
        return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state))

    large = sum(leaf.nbytes for leaf in jax.tree.leaves(divided[0]) if leaf.size >= 64)
    all_of_it = sum(leaf.nbytes for leaf in jax.tree.leaves(divided[0]))
    assert on_one_device(divided[0]) == all_of_it - large + large // 8
    assert on_one_device(whole[0]) == all_of_it > 7 * on_one_device(divided[0])


def test_divided_parameters_are_saved_whole_and_go_on_with_other_devices(tmp_path):
    options = {"average": AVERAGE, "transform": accumulating(), "shard_params": True}
    steps, fresh = build(**options)
    empty = jax.device_get(fresh)
    state, _ = train((steps, fresh), 3)  # in the middle of an update
    manifest = dict.fromkeys(("model", "arguments", "classes", "preprocess", "source")) | {"train": {}}
    writer = checkpoint.Checkpoints(tmp_path, manifest, keep=1)
    writer.save(state, 3)
    writer.wait()
    expected, _ = train((steps, state), 2, first=3)
    saved = checkpoint.filled(empty, checkpoint.newest(tmp_path, print)[1], "run")
    for other, bound in ((steps, 0.0), (build(2, **options)[0], 1e-10)):
        resumed, _ = train((other, other.put_state(saved)), 2, first=3)
        assert_equal(resumed, expected, bound)


def test_evaluation_with_divided_parameters_is_the_same():
    sums = []
    for divide in (False, True):
        steps, state = build(shard_params=divide)
        sums.append(steps.evaluate(step.weights_of(state), steps.init_metrics, steps.put_batch(batch(0))))
    assert_equal(sums[0], sums[1])


def torchs(state, images, labels):
    """Loss, gradients and new running statistics of Tiny without dropout for one process's images, by our names."""
    conv, bn, fc = torch.nn.Conv2d(3, 8, 4, 4, bias=False), torch.nn.BatchNorm2d(8), torch.nn.Linear(512, 10)
    for module in (conv, bn, fc):
        module.double()
    values = {name: torch.tensor(np.array(value)) for name, value in (state["params"] | state["stats"]).items()}
    with torch.no_grad():
        conv.weight.copy_(values["conv.kernel"].permute(3, 2, 0, 1))
        bn.weight.copy_(values["bn.scale"])
        bn.bias.copy_(values["bn.bias"])
        fc.weight.copy_(values["fc.kernel"].T)
        fc.bias.copy_(values["fc.bias"])
    x = torch.tensor((images.astype(np.float64) - 128) / 64).permute(0, 3, 1, 2)
    y = torch.relu(bn(conv(x))).permute(0, 2, 3, 1).flatten(1)
    loss = torch.nn.functional.cross_entropy(fc(y), torch.tensor(labels).long())
    loss.backward()
    gradients = {
        "conv.kernel": conv.weight.grad.permute(2, 3, 1, 0), "bn.scale": bn.weight.grad, "bn.bias": bn.bias.grad,
        "fc.kernel": fc.weight.grad.T, "fc.bias": fc.bias.grad,
    }  # fmt: skip
    return loss.item(), gradients, {"bn.mean": bn.running_mean, "bn.var": bn.running_var}


def test_statistics_of_each_device_are_those_of_torchs_distributed_data_parallel():
    """Every process normalises its own part, and gradients are averaged; so are, here, the running statistics."""
    options = {"dropout": 0.0, "transform": optax.sgd(1.0), "batch_norm": "local"}
    steps, state = build(**options)
    before, data = jax.device_get(state), batch(0)
    parts = [torchs(before, *(data[name].reshape(8, 4, *data[name].shape[1:])[i] for name in ("image", "label")))
             for i in range(8)]  # fmt: skip
    new, (report,) = train((steps, state), 1)
    close(report["loss"], np.mean([loss for loss, _, _ in parts]))
    for name, old in before["params"].items():
        expected = np.mean([gradients[name].detach().numpy() for _, gradients, _ in parts], 0)
        close(old - np.asarray(new["params"][name]), expected, name)
    for name in ("bn.mean", "bn.var"):
        close(new["stats"][name], np.mean([stats[name].numpy() for _, _, stats in parts], 0), name)
    assert new["stats"]["bn.num_batches_tracked"] == 1
    sync, _ = train(build(**options | {"batch_norm": "sync"}), 1)
    assert not np.allclose(sync["params"]["conv.kernel"], new["params"]["conv.kernel"], rtol=1e-4)


def test_local_statistics_go_with_divided_parameters():
    options = {"batch_norm": "local", "average": AVERAGE}
    whole, divided = (train(build(**options, shard_params=divide), 3) for divide in (False, True))
    assert_equal(divided, whole, 1e-10)


@pytest.mark.parametrize("devices", [3, 5])
def test_devices_that_cannot_share_a_batch_are_refused(devices):
    with pytest.raises(UsageError, match=f"--batch-size {ROWS} cannot be shared equally among {devices} devices"):
        build(devices)


@pytest.mark.parametrize("batch_norm", ["sync", "local"])
def test_confused_pixels_are_counted_to_the_last_one(batch_norm):
    """Sums of evaluation, and which images are kept to be drawn, do not depend on how many devices share a batch."""
    task = Segmentation(CLASSES, Preprocess(crop=16), canvases=[masks.Canvas((16, 16), range(0))])
    rng = np.random.default_rng(0)
    seen = {
        "image": rng.integers(0, 256, (ROWS, 16, 16, 3), np.uint8),
        "target": np.where(rng.random((ROWS, 16, 16)) < 0.1, 255, rng.integers(0, 10, (ROWS, 16, 16))).astype(np.uint8),
        "indices": np.arange(ROWS, dtype=np.int32),
        "mask": np.arange(ROWS) != 5,
    }
    found = {}
    for devices in (1, 8):
        model = Pixels(10, aux_loss=True, rngs=nnx.Rngs(params=0, dropout=0))
        chosen = {"per_epoch": 3, "seed": 0, "devices": jax.devices()[:devices], "batch_norm": batch_norm}
        steps, state = step.build(model, [task], optax.sgd(0.0), optax.constant_schedule(0.0), ROWS, **chosen)
        sums = steps.init_metrics
        for _ in range(2):
            sums, _ = steps.evaluate(step.weights_of(state), sums, steps.put_batch(seen))
        state, _ = steps.train[0](state, steps.put_batch(seen), steps.put_control())
        found[devices] = jax.device_get((sums, state["metrics"]))
    (ours, trained), (theirs, _) = found[8], found[1]
    np.testing.assert_array_equal(ours["pixels"]["confusion"], theirs["pixels"]["confusion"])
    labelled = seen["target"] != 255
    assert whole(ours["pixels"]["confusion"]).sum() == 2 * labelled[seen["mask"]].sum()
    assert whole(trained["pixels"]["confusion"]).sum() == labelled.sum()
    for part in ("first", "worst"):
        np.testing.assert_array_equal(ours[part]["index"], theirs[part]["index"])
        np.testing.assert_array_equal(ours[part]["predicted"], theirs[part]["predicted"])
