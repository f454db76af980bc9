"""Whole runs on the command line: what they leave behind, and that continuing one equals never having stopped."""

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from PIL import Image

from convert import store
from tests.train.test_checkpoint import flip_a_bit
from tests.train.test_data import paint

ROOT = Path(__file__).parents[2]
# Five steps an epoch, a checkpoint at 3, 5, 6, 9, 10, 12 and 15.
OPTIONS = ["--model=tiny", "--epochs=3", "--batch-size=256", "--save-every=3", "--keep=3", "--lr=0.01", "--log-every=2"]


def train(*options, code=0, **environment):
    """Runs `python -m train` with the tiny model, and gives what it printed. Tracebacks and other exit codes fail."""
    ours = {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    result = subprocess.run(
        [sys.executable, "-m", "tests.train.tiny", *map(str, options)],
        env={**os.environ, **ours, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout + result.stderr


def rows(run):
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def assert_same_run(ours, theirs):
    """Parameters, statistics, optimizer state, epoch sums, metrics and pictures' numbers, to the last bit."""
    names = sorted(folder.name for folder in (theirs / "checkpoints").iterdir())
    assert sorted(folder.name for folder in (ours / "checkpoints").iterdir()) == names
    for place in [*(f"checkpoints/{name}" for name in names), "best"]:
        (a, said), (b, expected) = store.load(ours / place), store.load(theirs / place)
        assert a.keys() == b.keys() and said["train"] == expected["train"]
        for key in b:
            assert a[key].tobytes() == b[key].tobytes(), key
    for file in ("metrics.csv", "confusion.csv", "per_class.csv", "mistakes.csv"):
        assert (ours / file).read_bytes() == (theirs / file).read_bytes()


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
    assert files == {"best", "checkpoints", "config.yaml", "report.html"} | tables | pictures
    assert sorted(int(path.name) for path in (whole / "checkpoints").iterdir()) == [10, 12, 15]
    assert yaml.safe_load((whole / "config.yaml").read_text())["lr"] == 0.01
    assert [row["step"] for row in rows(whole)] == ["5", "10", "15"]
    assert len((whole / "steps.jsonl").read_text().splitlines()) == 7
    for picture in pictures:
        assert np.asarray(Image.open(whole / picture)).std() > 5
    said = (whole.parent / "said").read_text()
    assert "held-out accuracy" in said and "images/s" in said and str(whole / "best") in said


def test_even_a_tiny_model_learns_digits(whole):
    assert float(rows(whole)[-1]["val_accuracy"]) > 0.85


def test_the_best_checkpoint_is_the_one_with_the_highest_accuracy(whole):
    best = max(rows(whole), key=lambda row: float(row["val_accuracy"]))
    assert store.read_manifest(whole / "best")["train"]["step"] == int(best["step"])


@pytest.mark.parametrize("step", [2, 7, 13])
def test_a_run_killed_at_any_step_continues_as_if_it_had_not_been(whole, tmp_path, step):
    run = tmp_path / "killed"
    train(*OPTIONS, "--out", run, code=-signal.SIGKILL, DIE_AT=str(step))
    train("--resume", run)
    assert_same_run(run, whole)


def test_a_run_killed_twice_with_a_damaged_checkpoint_continues_from_the_one_before(whole, tmp_path):
    run = tmp_path / "killed"
    train(*OPTIONS, "--out", run, code=-signal.SIGKILL, DIE_AT="8")
    train("--resume", run, code=-signal.SIGKILL, DIE_AT="5")
    newest = max((run / "checkpoints").glob("[0-9]*"), key=lambda folder: int(folder.name))
    flip_a_bit(newest)
    assert f"{newest} is damaged" in train("--resume", run)
    (run / "checkpoints" / f"{newest.name}.damaged").rename(tmp_path / "damaged")
    assert_same_run(run, whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_asked_to_stop_saves_and_says_how_to_continue(whole, tmp_path, number):
    run = tmp_path / "stopped"
    said = train(*OPTIONS, "--out", run, code=128 + number, SIGNAL_AT="7", SIGNAL=str(int(number)))
    step = max(int(folder.name) for folder in (run / "checkpoints").iterdir())
    assert f"stopped after step {step} of 15; continue with: python -m train --resume {run}" in said
    train("--resume", run)
    assert_same_run(run, whole)


def test_a_finished_run_can_go_on_for_more_epochs(whole, tmp_path):
    run = tmp_path / "longer"
    train(*OPTIONS, "--out", run, "--epochs", 1)
    said = train("--resume", run, "--epochs", 2)
    assert "epoch 2:" in said and len(rows(run)) == 2
    assert yaml.safe_load((run / "config.yaml").read_text())["epochs"] == 2


def test_eight_devices_compute_what_one_does(whole, tmp_path):
    run = tmp_path / "eight"
    said = train(*OPTIONS, "--out", run, XLA_FLAGS="--xla_force_host_platform_device_count=8")
    assert "8 x" in said
    ours, theirs = (store.load(path / "checkpoints" / "15")[0] for path in (run, whole))
    for key in theirs:
        scale = np.abs(theirs[key]).max()
        np.testing.assert_allclose(ours[key], theirs[key], rtol=0, atol=1e-4 * scale, err_msg=key)
    assert [row["val_accuracy"] for row in rows(run)] == [row["val_accuracy"] for row in rows(whole)]


def test_a_batch_that_devices_cannot_share_is_refused(tmp_path):
    options = [*OPTIONS, "--out", tmp_path / "run", "--batch-size", "100"]
    said = train(*options, code=2, XLA_FLAGS="--xla_force_host_platform_device_count=8")
    assert "--batch-size 100 cannot be shared equally among 8 devices" in said
    assert not (tmp_path / "run").exists()


def test_bfloat16_learns_as_well(tmp_path):
    train(*OPTIONS, "--out", tmp_path / "run", "--precision", "bfloat16")
    assert float(rows(tmp_path / "run")[-1]["val_accuracy"]) > 0.85
    assert store.load(tmp_path / "run" / "best")[0]["model/conv.kernel"].dtype == np.float32


def test_a_loss_that_is_not_finite_ends_the_run_in_one_sentence(tmp_path):
    said = train(*OPTIONS, "--out", tmp_path / "run", "--optimizer", "sgd", "--lr", "1e30", "--clip-norm", "0", code=2)
    assert "at step" in said and "lower --lr" in said


@pytest.fixture
def pets(tmp_path):
    """Two classes of twenty pictures each, one of them cut off."""
    for name, color in (("cat", (200, 30, 30)), ("dog", (30, 30, 200))):
        for i in range(20):
            paint(tmp_path / "pets" / name / f"{i}.png", color)
    bad = tmp_path / "pets" / "dog" / "7.png"
    bad.write_bytes(bad.read_bytes()[:50])
    return tmp_path / "pets"


PETS = ["--model", "tiny", "--epochs", "4", "--batch-size", "4", "--lr", "0.01", "--image-size", "32"]


def test_a_damaged_image_is_named_once_and_training_goes_on(pets, tmp_path):
    said = train(*PETS, "--data", f"folder:{pets}", "--out", tmp_path / "run")
    assert said.count(str(pets / "dog" / "7.png")) == 1
    assert float(rows(tmp_path / "run")[-1]["val_accuracy"]) == 1


def test_a_damaged_image_stops_a_strict_run_without_losing_it(pets, tmp_path):
    run, bad = tmp_path / "run", pets / "dog" / "7.png"
    said = train(*PETS, "--data", f"folder:{pets}", "--strict-data", "--out", run, code=2)
    assert str(bad) in said and f"--resume {run}" in said
    bad.unlink()
    assert "had 32 training images and has 31 now" in train("--resume", run)
    assert float(rows(run)[-1]["val_accuracy"]) == 1


# Weights


def test_a_run_can_be_evaluated_alone_and_stays_as_it_is(whole, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    resumed, weights = train("--eval-only", "--resume", whole), train(*OPTIONS, "--eval-only", "--weights", whole)
    assert f"accuracy {float(rows(whole)[-1]['val_accuracy']):.2%}" in resumed
    best = max(float(row["val_accuracy"]) for row in rows(whole))
    assert f"accuracy {best:.2%}" in weights
    assert before == {path: path.stat().st_mtime_ns for path in whole.rglob("*")}


def test_a_run_from_weights_that_was_killed_before_it_saved_starts_from_them_again(whole, tmp_path):
    options = [*OPTIONS, "--epochs", "1", "--weights", whole, "--out"]
    train(*options, tmp_path / "plain")
    train(*options, tmp_path / "killed", code=-signal.SIGKILL, DIE_AT="1")
    train("--resume", tmp_path / "killed")
    assert_same_run(tmp_path / "killed", tmp_path / "plain")
    assert store.read_manifest(tmp_path / "plain" / "best")["source"]["path"] == str(whole / "best")


def test_weights_start_a_run_and_a_head_of_another_size_is_replaced_and_named(whole, tmp_path):
    for name in ("cat", "dog"):
        for i in range(8):
            paint(tmp_path / "pets" / name / f"{i}.png")
    options = f"--model tiny --data folder:{tmp_path / 'pets'} --epochs 1 --batch-size 4 --image-size 32".split()
    said = train(*options, "--lr", "1e-30", "--weights", whole, "--out", tmp_path / "run")
    assert "for 2 classes these start fresh: fc.weight, fc.bias" in said
    ours, theirs = store.load(tmp_path / "run" / "best")[0], store.load(whole / "best")[0]
    np.testing.assert_array_equal(ours["model/conv.kernel"], theirs["model/conv.kernel"])
