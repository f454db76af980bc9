"""What the compiled step does on many devices, with less memory, and with numbers or parts that must not change."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxzoo
from convert.shapes import abstract
from jaxzoo import Preprocess, UsageError
from jaxzoo.classification.densenet import DenseNet
from jaxzoo.classification.mobilenetv2 import MobileNetV2
from jaxzoo.classification.resnet import BasicBlock, Bottleneck, ResNet
from jaxzoo.classification.swin_transformer import SwinTransformer
from jaxzoo.classification.vision_transformer import VisionTransformer
from tests.compare import cast, close
from tests.train.blocks import Blocks
from tests.train.launch import HASTE
from tests.train.test_torch_equality import Exact
from tests.train.tiny import Tiny
from train.config.options import Config
from train.engine import remat, step
from train.optim.optimizers import learning_rate, optimizer
from train.optim.parameter_groups import parameter_kinds

CLASSES = [str(i) for i in range(10)]


def test_eight_devices():
    """The tests of `eight_devices`, in a process that has so many."""
    flags = f"--xla_force_host_platform_device_count=8 {HASTE}"
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", Path(__file__).with_name("eight_devices.py")],
        env={**os.environ, "XLA_FLAGS": flags}, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout


def batch(rows=8, size=32, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 255, (rows, size, size, 3), np.uint8)
    labels, indices = (np.arange(rows, dtype=np.int32) % 10, np.arange(rows, dtype=np.int32))
    return {"image": images, "label": labels, "mask": np.ones(rows, bool), "indices": indices}


class Fragile(Exact):
    """A white image makes the loss infinite."""

    def normalised(self, images):
        return super().normalised(images) / (images.min() < 255)


def build(model, *, rows=8, size=32, transform=None, schedule=None, **options):
    task = Fragile(CLASSES, Preprocess(crop=size), dtype=jnp.float64)
    chosen = {"per_epoch": 99, "seed": 0, "dtype": jnp.float64, "devices": jax.devices()[:1]} | options
    transform = transform or optax.sgd(0.1, momentum=0.9)
    schedule = schedule or optax.constant_schedule(0.1)
    return step.build(model, [task], transform, schedule, rows, **chosen)


def tiny():
    return cast(Tiny(10, rngs=nnx.Rngs(params=0, dropout=0)), jnp.float64)


# Rematerialisation

NETWORKS = {
    "resnet": lambda rngs: ResNet(BasicBlock, [3, 3, 3, 3], 10, rngs=rngs),
    "swin": lambda rngs: SwinTransformer([2, 2], 16, [1, 1], [2, 2], [4, 4], num_classes=10, rngs=rngs),
    "vit": lambda rngs: VisionTransformer(32, 4, 2, 2, 32, 64, num_classes=10, rngs=rngs),
    "densenet": lambda rngs: DenseNet(8, (2, 2), 16, num_classes=10, rngs=rngs),
    "mobilenet": lambda rngs: MobileNetV2(10, inverted_residual_setting=[[1, 16, 1, 1], [6, 24, 1, 2]], rngs=rngs),
}


def test_activations_can_be_computed_again_to_the_same_numbers():
    """Of blocks with batch statistics, which must move once, and with chance, which must fall the same way twice."""
    found = []
    for again in (False, True):
        model = cast(Blocks(10, stochastic_depth_prob=0.5, rngs=nnx.Rngs(params=0, dropout=0)), jnp.float64)
        steps, state = build(model, remat=again)
        found.append(jax.device_get(steps.train[0](state, steps.put_batch(batch()), steps.put_control())))
    (plain, said), (again, said_again) = found
    close(said_again["loss"], said["loss"])
    for kind in ("params", "stats"):
        for key in plain[kind]:
            np.testing.assert_allclose(again[kind][key], plain[kind][key], 1e-9, 1e-12, err_msg=key)


@pytest.mark.parametrize("name", NETWORKS)
def test_activations_that_are_computed_again_are_not_kept(name):
    """What is kept is what `jax.vjp` closes over. XLA's CPU compiler orders the second computation freely, which an
    accelerator's does not, so its own figure of memory shows nothing here."""
    model = nnx.eval_shape(lambda: NETWORKS[name](nnx.Rngs(params=0, dropout=0)))
    model.train()
    assert kept(model, again=True) < 0.5 * kept(model, again=False)


def kept(model, again):
    """Bytes that a forward pass of 8 images keeps for the gradients, besides the parameters."""
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def run(params, rest):
        copy = nnx.merge(graph, params, rest, copy=True)
        nnx.reseed(copy, dropout=jax.random.key(0))
        with remat.recomputing(copy) if again else contextlib.nullcontext():
            return copy(jnp.zeros((8, 32, 32, 3)))

    residuals = jax.eval_shape(lambda params, rest: jax.vjp(lambda p: run(p, rest), params)[1], params, rest)
    sizes = {leaf.shape for leaf in jax.tree.leaves(params)}
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(residuals) if leaf.shape not in sizes)


FAMILIES = ["convnext_tiny", "efficientnet_b0", "googlenet", "inception_v3", "mobilenetv1_100", "mobilevit_xxs",
            "regnet_y_400mf", "shufflenet_v1_g1", "squeezenet1_1"]  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_blocks_that_are_computed_again(name):
    model = abstract(name, num_classes=10)
    model.train()
    graph, state = nnx.split(model)

    def run(state, images):
        copy = nnx.merge(graph, state, copy=True)
        nnx.reseed(copy, dropout=jax.random.key(0))
        with remat.recomputing(copy):
            outputs = copy(images)
        assert nnx.graphdef(copy) == nnx.graphdef(model)  # all is in its place again
        return outputs, nnx.state(copy)

    assert len(remat.blocks(model)) >= 8
    images = jax.ShapeDtypeStruct((2, *[jaxzoo.card(name).preprocess.crop] * 2, 3), jnp.float32)
    code = jax.make_jaxpr(run)(state, images)
    assert sum(equation.primitive.name in ("remat2", "checkpoint") for equation in code.eqns) >= 8


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "lenet5"])
def test_networks_without_blocks_say_so(name):
    model = abstract(name, num_classes=10)
    with (
        pytest.raises(UsageError, match="has no blocks that could be computed again; leave it out"),
        remat.recomputing(model),
    ):
        pass


# Steps that must not count


def run(built, *batches, missing=()):
    """The states before and after each batch; those at `missing` are not there in this process."""
    steps, state = built
    states = [jax.device_get(state)]
    for index, data in enumerate(batches):
        state, _ = steps.train[0](state, steps.put_batch(data), steps.put_control(missing=index in missing))
        states.append(jax.device_get(state))
    return states


GOOD, WHITE = batch(), batch() | {"image": np.full((8, 32, 32, 3), 255, np.uint8)}
AVERAGE = step.Average(0.9)


def assert_same(ours, theirs, *, but=()):
    for name in theirs:
        if name not in but:
            jax.tree.map(np.testing.assert_array_equal, ours[name], theirs[name])


def test_a_bad_step_is_not_applied_and_by_default_neither_are_those_after_it():
    _, good, bad, later = run(build(tiny(), average=AVERAGE), GOOD, WHITE, GOOD)
    assert_same(bad, good, but=["skipped"])
    assert_same(later, good, but=["skipped"])
    assert (good["skipped"], bad["skipped"], later["skipped"]) == (0, 1, 2)


def test_a_bad_step_can_be_left_out():
    _, good, bad, later = run(build(tiny(), average=AVERAGE, on_nan="skip"), GOOD, WHITE, GOOD)
    assert_same(bad, good, but=["skipped", "step"])
    assert [state["step"] for state in (good, bad, later)] == [1, 2, 3]
    assert (later["params"]["fc.kernel"] != bad["params"]["fc.kernel"]).any()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_bad_step_counts_for_the_learning_rate(accumulate):
    """So that the rate of the report is the one that was used."""
    config = Config(
        optimizer="sgd", momentum=0, weight_decay=0, lr=0.1, epochs=2, warmup_epochs=0, accumulate=accumulate
    )
    model, schedule = tiny(), learning_rate(config, per_epoch=4)
    transform = optimizer(config, schedule, parameter_kinds(model))
    steps, state = build(model, transform=transform, schedule=schedule, on_nan="skip")
    gradients, before = [], np.array(state["params"]["fc.kernel"])
    for data in [*[GOOD] * (accumulate - 1), WHITE, WHITE, GOOD]:
        if data is GOOD:
            gradients.append(np.array(steps.gradients(state, steps.put_batch(data))["fc.kernel"]))
        state, report = steps.train[0](state, steps.put_batch(data), steps.put_control())
    assert float(report["lr"]) == schedule(accumulate + 1) < 0.1
    close(state["params"]["fc.kernel"] - before, -report["lr"] * np.mean(gradients, 0))


@pytest.mark.parametrize("on_nan", ["stop", "skip"])
def test_a_step_without_its_images_neither_counts_nor_changes_anything(on_nan):
    _, good, missing, later = run(build(tiny(), on_nan=on_nan), GOOD, GOOD, GOOD, missing=(1, 2))
    assert_same(missing, good, but=["skipped"])
    assert_same(later, good, but=["skipped"])


# Frozen parts


def small():
    model = ResNet(Bottleneck, [1, 1, 1, 1], 10, width_per_group=8, rngs=nnx.Rngs(params=0, dropout=0))
    return cast(model, jnp.float64)


def test_what_is_frozen_keeps_its_numbers_and_costs_neither_gradients_nor_optimizer_memory():
    costs, states = [], []
    for learns in (lambda path: True, lambda path: path.startswith("fc.")):
        steps, state = build(small(), learns=learns, transform=optax.adamw(0.1))
        data = steps.put_batch(batch())
        compiled = steps.train[0].lower(state, data, steps.put_control()).compile()
        costs.append(compiled.cost_analysis()["flops"])
        states.append((jax.device_get(state), jax.device_get(compiled(state, data, steps.put_control())[0])))
    (_, whole), (before, after) = states
    assert costs[1] < 0.45 * costs[0]  # forward, without the two products of backward
    assert set(after["params"]) == {"fc.kernel", "fc.bias"}
    head = sum(leaf.size for leaf in after["params"].values())
    assert sum(leaf.size for leaf in jax.tree.leaves(after["optimizer"])) <= 2 * head + 2
    assert before["stats"].keys() >= {"conv1.kernel", "bn1.scale", "bn1.mean", "bn1.num_batches_tracked"}
    assert_same(after["stats"], before["stats"])
    assert (whole["stats"]["bn1.mean"] != before["stats"]["bn1.mean"]).any()
    assert (after["params"]["fc.kernel"] != before["params"]["fc.kernel"]).any()
