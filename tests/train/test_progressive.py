"""Runs in stages: image size and regularisation grow."""

import dataclasses
import shutil

import numpy as np
import pytest

import jaxzoo
from jaxzoo import UsageError
from tests.train.test_run import rows
from train import loop
from train.config import command_line, options
from train.config.options import Config
from train.data import load
from train.engine import stages
from train.engine.stages import Stages
from train.setup.prepare import prepare
from train.tasks import images

pytestmark = pytest.mark.usefixtures("pooled", "no_pictures")


@pytest.fixture
def staged(pictures, tmp_path):
    """The options of a run in three stages of two epochs."""
    numbers = {"batch_size": 8, "epochs": 6, "lr": 0.01, "workers": 1, "progressive": "16:32:3"}
    return Config(model="pooled", data=f"folder:{pictures}", out=str(tmp_path / "run"), **numbers)


class Numbered:
    """Batches of a stage that only say which one it is."""

    per_epoch = 4

    def __init__(self, stage):
        self.stage = stage

    def __call__(self, step):
        return self.stage, step


@pytest.mark.parametrize(("epochs", "of_each"), [(6, [2, 2, 2]), (7, [3, 2, 2]), (3, [1, 1, 1])])
def test_stages_have_as_many_epochs_or_nearly_and_every_step_is_of_one(epochs, of_each):
    stages = Stages([Numbered(0), Numbered(1), Numbered(2)], epochs)
    found = [stages(step) for step in range(4 * epochs)]
    assert [step for _, step in found] == list(range(4 * epochs))
    assert [stage for stage, _ in found] == sorted(stage for stage, _ in found)
    assert [sum(stage == n for stage, _ in found) for n in range(3)] == [4 * count for count in of_each]
    assert stages(4 * epochs)[0] == 2


def test_sizes_grow_evenly_in_whole_pixels():
    assert options.stages(Config(progressive="128:224:4")) == [128, 160, 192, 224]
    assert options.stages(Config(progressive="100:225:3")) == [100, 162, 225]


@pytest.mark.parametrize("text", ["224:128:4", "128:224", "128:224:1", "0:224:2", "128:130:9", "a:b:c"])
def test_impossible_stages_are_refused(text):
    with pytest.raises(UsageError, match="--progressive takes FROM:TO:STAGES"):
        command_line.parse(["--progressive", text])


def test_sizes_given_twice_are_refused():
    with pytest.raises(UsageError, match="leave out the others"):
        command_line.parse(["--progressive", "128:224:4", "--image-size", "224"])


def test_every_stage_has_its_size_and_magnitude_and_dropout(staged):
    prepared, _ = prepare(dataclasses.replace(staged, auto_augment="randaugment", ra_magnitude=9), None)
    sides = [prepared.batches(step)["image"].shape[1] for step in range(0, 18, 3)]
    assert sides == [16, 16, 24, 24, 32, 32]
    assert prepared.held_out(0)["image"].shape[1] == 32
    assert [batches.example.__self__.augmentation.ra_magnitude for batches in prepared.batches.batches] == [3, 6, 9]
    assert [batches.example.__self__.preprocess.crop for batches in prepared.batches.batches] == [16, 24, 32]


def test_dropout_grows_to_what_is_asked_for_or_to_the_models_own(pooled):
    model = jaxzoo.create_model(pooled)
    np.testing.assert_allclose(stages.dropout_rates(Config(dropout=0.6), model, 3), [0.2, 0.4, 0.6])
    np.testing.assert_allclose(stages.dropout_rates(Config(), model, 3), [0.1, 0.2, 0.3])
    assert stages.dropout_rates(Config(), model, 1) == [None]
    assert stages.dropout_rates(Config(), jaxzoo.create_model("resnet18"), 3) == [None] * 3


def test_each_size_is_compiled_once(staged):
    prepared, state = prepare(staged, None)
    for index in range(6 * prepared.batches.per_epoch):
        batch = prepared.batches(index)
        train, fed = prepared.steps.train[prepared.batches.at(index)], prepared.steps.put_batch(batch)
        state, _ = train(state, fed, prepared.steps.put_control())
    assert [step._cache_size() for step in prepared.steps.train] == [1, 1, 1]


def test_a_staged_run_continues_across_the_end_of_a_stage(staged, tmp_path):
    staged = dataclasses.replace(staged, epochs=2, progressive="16:32:2")
    loop.run(staged)
    loop.run(dataclasses.replace(staged, out=str(tmp_path / "again"), save_every=2, keep=99))
    for checkpoint in (tmp_path / "again" / "checkpoints").iterdir():
        if int(checkpoint.name) > 2:  # of 3 steps of the first stage
            shutil.rmtree(checkpoint)
    (tmp_path / "again" / "metrics.csv").unlink()
    loop.run(command_line.parse(["--resume", str(tmp_path / "again")]))
    assert rows(tmp_path / "again") == rows(tmp_path / "run")[-len(rows(tmp_path / "again")) :]


def test_more_stages_than_epochs_are_refused(staged):
    with pytest.raises(UsageError, match="--progressive has 3 stages, which --epochs 2 is too short for"):
        prepare(dataclasses.replace(staged, epochs=2), None)


@pytest.mark.parametrize("option", [{"progressive": "32:64:2"}, {"train_size": 32}])
def test_models_that_are_built_for_one_size_are_refused(staged, option):
    name = next(iter(option)).replace("_", "-")
    plain = dataclasses.replace(staged, **{"progressive": None, "model": "vit_b_16"} | option)
    with pytest.raises(UsageError, match=f"vit_b_16 is built for one image size: it cannot train with --{name}"):
        prepare(plain, None)


def test_training_images_can_have_another_size(staged):
    small = dataclasses.replace(staged, progressive=None, train_size=24, image_size=32)
    prepared, state = prepare(small, None)
    assert (prepared.batches(0)["image"].shape[1], prepared.held_out(0)["image"].shape[1]) == (24, 32)
    batch = prepared.steps.put_batch(prepared.batches(0))
    state, _ = prepared.steps.train[0](state, batch, prepared.steps.put_control())
    assert state["step"] == 1  # it was applied


# Rates of dropout and stochastic depth


def test_dropout_and_drop_path_reach_the_model(staged):
    plain = dataclasses.replace(staged, progressive=None, image_size=32, drop_path=0.25)
    assert prepare(plain, None)[0].manifest["arguments"]["stochastic_depth_prob"] == 0.25
    lite = dataclasses.replace(plain, model="efficientnet_lite0")
    data = load(lite.data)
    assert images.model_arguments(lite, data, images.preparation(lite, data, None), None)["drop_path_rate"] == 0.25


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"drop_path": 0.1}, "resnet18 has no stochastic depth: leave out --drop-path"),
        ({"dropout": 0.1}, "resnet18 has no dropout: leave out --dropout"),
    ],
)
def test_rates_of_what_a_model_has_not_are_refused(staged, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        prepare(dataclasses.replace(staged, progressive=None, image_size=32, model="resnet18", **options), None)
