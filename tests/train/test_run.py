"""Whole runs on the command line: what they leave behind, and what can be done with that."""

import numpy as np
import pytest
import yaml
from tensorboardX.proto.event_pb2 import SessionLog

from convert import store
from convert.sources import read_weights
from jaxzoo import registry
from tests.train.launch import train
from tests.train.same import assert_same_run, rows, steps
from tests.train.test_data import paint
from tests.train.test_tensorboard import read
from tests.train.tiny import tiny
from train.reporting import records

# Five steps an epoch, a checkpoint at 3, 5, 6, 9, 10, 12 and 15.
OPTIONS = ["--model=tiny", "--epochs=3", "--batch-size=256", "--save-every=3", "--keep=3", "--lr=0.01", "--log-every=2"]
EIGHT = "--xla_force_host_platform_device_count=8"


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    """A run that keeps an average of its weights, and ends when that does not get better."""
    run = tmp_path_factory.mktemp("runs") / "averaged"
    # At this rate the weights jump about, and their average does not.
    options = ["--ema", "0.7", "--patience", "1", "--lr", "0.08", "--epochs", "12", "--schedule", "constant"]
    (run.parent / "said").write_text(train(*OPTIONS, *options, "--out", run, PLAIN=1))
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody stopped."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    said = train(*OPTIONS, "--out", run)
    (run.parent / "said").write_text(said)
    return run


def test_a_run_leaves_everything_in_its_folder_and_says_where(whole):
    files = {path.name for path in whole.iterdir()}
    tables = {"metrics.csv", "timing.csv", "steps.jsonl", "confusion.csv", "per_class.csv", "mistakes.csv"}
    pictures = {"curves.png", "confusion_matrix.png", "mistakes.png", "train_batch.png", "val_batch.png"}
    sheets = {"mistakes.json", "train_batch.json", "val_batch.json"}  # single pictures, for the report
    assert files == {"best", "checkpoints", "config.yaml", "report.html"} | tables | pictures | sheets
    assert steps(whole) == [10, 12, 15]
    assert yaml.safe_load((whole / "config.yaml").read_text())["lr"] == 0.01
    assert [row["step"] for row in rows(whole)] == ["5", "10", "15"]
    assert len((whole / "steps.jsonl").read_text().splitlines()) == 7
    said = (whole.parent / "said").read_text()
    assert "held-out accuracy" in said and "images/s" in said and str(whole / "best") in said


def test_even_a_tiny_model_learns_digits(whole):
    assert float(rows(whole)[-1]["val_accuracy"]) > 0.85


def test_the_best_checkpoint_is_the_one_with_the_highest_accuracy(whole):
    best = max(rows(whole), key=lambda row: float(row["val_accuracy"]))
    assert store.read_manifest(whole / "best")["train"]["step"] == int(best["step"])


def test_two_runs_with_one_seed_are_equal_and_with_another_they_are_not(whole, tmp_path):
    train(*OPTIONS, "--workers", "1", "--out", tmp_path / "same", PLAIN=1)
    assert_same_run(tmp_path / "same", whole)
    train(*OPTIONS, "--epochs", "1", "--seed", "1", "--out", tmp_path / "other", PLAIN=1)
    assert rows(tmp_path / "other")[0]["train_loss"] != rows(whole)[0]["train_loss"]


def test_what_concerns_only_machine_and_records_may_change_on_the_way(whole, tmp_path):
    run = tmp_path / "changed"
    train(*OPTIONS, "--out", run, code=-9, DIE_AT=7, PLAIN=1)
    anew = ["--workers", "1", "--log-every", "5", "--save-every", "0", "--on-nan", "skip", "--keep", "1"]
    train("--resume", run, *anew, PLAIN=1)
    ours, theirs = (store.load(path / "checkpoints" / "15")[0] for path in (run, whole))
    assert all(ours[key].tobytes() == theirs[key].tobytes() for key in theirs)
    assert rows(run) == rows(whole) and steps(run) == [15]
    assert [row["step"] for row in records.lines(run / "steps.jsonl")][-2:] == [10, 15]


def test_a_finished_run_can_go_on_for_more_epochs(whole, tmp_path):
    run = tmp_path / "longer"
    train(*OPTIONS, "--out", run, "--epochs", 1, PLAIN=1)
    said = train("--resume", run, "--epochs", 2, PLAIN=1)
    assert "epoch 2:" in said and len(rows(run)) == 2
    assert yaml.safe_load((run / "config.yaml").read_text())["epochs"] == 2


def test_a_batch_that_devices_cannot_share_is_refused(tmp_path):
    options = [*OPTIONS, "--out", tmp_path / "run", "--batch-size", "100"]
    said = train(*options, code=2, XLA_FLAGS=EIGHT, PLAIN=1)
    assert "--batch-size 100 cannot be shared equally among 8 devices" in said
    assert not (tmp_path / "run").exists()


def test_a_run_can_be_evaluated_alone_and_stays_as_it_is(whole, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    resumed, weights = train("--eval-only", "--resume", whole), train(*OPTIONS, "--eval-only", "--weights", whole)
    assert f"accuracy {float(rows(whole)[-1]['val_accuracy']):.2%}" in resumed
    best = max(float(row["val_accuracy"]) for row in rows(whole))
    assert f"accuracy {best:.2%}" in weights
    assert before == {path: path.stat().st_mtime_ns for path in whole.rglob("*")}


def test_a_run_from_weights_that_was_killed_before_it_saved_starts_from_them_again(whole, tmp_path):
    options = [*OPTIONS, "--epochs", "1", "--weights", whole, "--out"]
    train(*options, tmp_path / "plain", PLAIN=1)
    train(*options, tmp_path / "killed", code=-9, DIE_AT=1, PLAIN=1)
    train("--resume", tmp_path / "killed", PLAIN=1)
    assert_same_run(tmp_path / "killed", tmp_path / "plain")
    assert store.read_manifest(tmp_path / "plain" / "best")["source"]["path"] == str(whole / "best")


def test_weights_start_a_run_and_a_head_of_another_size_is_replaced_and_named(whole, tmp_path):
    for name in ("cat", "dog"):
        for i in range(8):
            paint(tmp_path / "pets" / name / f"{i}.png")
    options = f"--model tiny --data folder:{tmp_path / 'pets'} --epochs 1 --batch-size 4 --image-size 32".split()
    said = train(*options, "--lr", "1e-30", "--weights", whole, "--out", tmp_path / "run", PLAIN=1)
    assert "for 2 classes these start fresh: fc.weight, fc.bias" in said
    ours, theirs = store.load(tmp_path / "run" / "best")[0], store.load(whole / "best")[0]
    np.testing.assert_array_equal(ours["model/conv.kernel"], theirs["model/conv.kernel"])


# Averages of the weights, early ends


def test_an_average_of_the_weights_is_evaluated_and_saved_and_chooses_the_best(averaged):
    found, best = rows(averaged), store.read_manifest(averaged / "best")["train"]
    assert {"ema_loss", "ema_accuracy", "val_loss", "val_accuracy"} <= found[0].keys()
    values = {int(row["step"]): float(row["ema_accuracy"]) for row in found}
    assert best["step"] == max(values, key=values.get) and best["value"] == max(values.values())
    assert f"to-torch --from {averaged}/best#ema" in (averaged.parent / "said").read_text()


def test_the_average_can_be_used_wherever_weights_are(averaged, monkeypatch):
    registry.list_models()  # imports all, before the copy that goes away again
    monkeypatch.setattr(registry, "_cards", dict(registry._cards))
    registry.register_model(paper="none", input_size=32)(tiny)
    arrays = store.load(averaged / "best")[0]
    for part, prefix in (("", "model/"), ("#ema", "ema/")):
        tensors = read_weights("tiny", f"{averaged}{part}").tensors
        np.testing.assert_array_equal(tensors["fc.weight"].T, arrays[f"{prefix}fc.kernel"])
    said = train(*OPTIONS, "--eval-only", "--weights", f"{averaged}#ema", PLAIN=1)
    assert f"accuracy {store.read_manifest(averaged / 'best')['train']['value']:.2%}" in said


def test_a_run_ends_when_it_gets_no_better_and_ends_again_when_it_is_continued(averaged):
    values = [float(row["ema_accuracy"]) for row in rows(averaged)]
    assert len(values) < 12 and values[-1] <= values[-2] == max(values)
    assert "no better accuracy for 1 epochs" in train("--resume", averaged, PLAIN=1)
    assert len(rows(averaged)) == len(values)


# TensorBoard


def test_events_of_a_continued_run_are_those_of_one_that_was_not_interrupted(tmp_path):
    options = [*OPTIONS, "--epochs", "2", "--tensorboard", "--out"]
    train(*options, tmp_path / "whole", PLAIN=1)
    train(*options, tmp_path / "killed", code=-9, DIE_AT=8, PLAIN=1)
    train("--resume", tmp_path / "killed", PLAIN=1)
    ours, theirs = (shown(tmp_path / run / "tensorboard") for run in ("killed", "whole"))
    assert ours.keys() == theirs.keys()
    assert {("class_activation", 5), ("class_activation", 10), ("first_kernels", 10)} <= ours.keys()
    assert {tag for tag, _ in ours} >= {"loss/val", "accuracy/train", "fc.kernel", "gradients/fc.kernel"}
    slow = {"step/images_per_second", "step/waiting"}
    assert all(ours[key] == theirs[key] for key in theirs if key[0] not in slow)


def shown(folder):
    """What TensorBoard shows: events by tag and step, without those that a later start took back."""
    found = {}
    for event in read(folder):
        if event.session_log.status == SessionLog.START:
            found = {key: value for key, value in found.items() if key[1] < event.step}
        found |= {(value.tag, event.step): value.SerializeToString() for value in event.summary.value}
    return found
