"""Runs that are killed, stopped, given bad data or no room: what was learnt is not lost, and they can continue."""

import functools
import re
import signal
import subprocess

import numpy as np
import pytest

from convert import store
from jaxzoo import UsageError
from tests.train import launch
from tests.train.same import assert_same_run, rows, steps
from tests.train.soak import killed_again_and_again
from tests.train.test_checkpoint import flip_a_bit
from tests.train.test_data import paint
from train.loop import saving_before_errors

# Five steps an epoch, a checkpoint at 3, 5, 6, 9, 10, 12 and 15.
OPTIONS = ["--model=tiny", "--epochs=3", "--batch-size=256", "--save-every=3", "--keep=3", "--lr=0.01", "--log-every=2"]
train = functools.partial(launch.train, PLAIN=1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing happens to."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    train(*OPTIONS, "--out", run)
    return run


# Kills and signals


def test_a_run_killed_before_it_saved_continues_from_the_start(whole, tmp_path):
    run = tmp_path / "killed"
    train(*OPTIONS, "--out", run, code=-signal.SIGKILL, DIE_AT=2)
    assert not (run / "checkpoints").exists()
    train("--resume", run)
    assert_same_run(run, whole)


# At so many files: while the checkpoint of step 4 is written, while it is marked as the best, and at the next one.
KILLS = (24, 60, 150)


def test_a_run_killed_three_times_while_it_writes_equals_one_that_was_not(tmp_path):
    options = [*OPTIONS, "--batch-size", "358", "--save-every", "2", "--ema", "0.9", "--log-every", "1"]
    train(*options, "--out", tmp_path / "whole")
    kills = [{"DIE_AT_FILE": number} for number in KILLS]
    done = killed_again_and_again(options, [], tmp_path / "run", kills, PLAIN=1)
    assert len(done) == 3
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_a_run_killed_twice_with_a_damaged_checkpoint_continues_from_the_one_before(whole, tmp_path):
    run = tmp_path / "killed"
    train(*OPTIONS, "--out", run, code=-signal.SIGKILL, DIE_AT=8)
    train("--resume", run, code=-signal.SIGKILL, DIE_AT=5)
    newest = max((run / "checkpoints").glob("[0-9]*"), key=lambda folder: int(folder.name))
    flip_a_bit(newest)
    assert f"{newest} is damaged" in train("--resume", run)
    (run / "checkpoints" / f"{newest.name}.damaged").rename(tmp_path / "damaged")
    assert_same_run(run, whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_asked_to_stop_saves_and_says_how_to_continue(whole, tmp_path, number):
    run = tmp_path / "stopped"
    said = train(*OPTIONS, "--out", run, code=128 + number, SIGNAL_AT=7, SIGNAL=int(number))
    step = max(int(folder.name) for folder in (run / "checkpoints").iterdir())
    assert f"stopped after step {step} of 15; continue with: python -m train --resume {run}" in said
    train("--resume", run)
    assert_same_run(run, whole)


@pytest.mark.parametrize(("error", "code"), [("MemoryError", 1), ("KeyboardInterrupt", 130)])
def test_any_error_and_a_second_interruption_save_what_was_learnt(whole, tmp_path, error, code):
    run = tmp_path / "run"
    said = launch.launcher()(*OPTIONS, "--out", run, FAIL_AT=7, FAIL=error, PLAIN=1)
    assert launch.launcher().code == code
    assert f"what was learnt in 8 steps is saved, continue with: python -m train --resume {run}" in said
    assert steps(run)[-1] == 8 and ("MemoryError: out of the blue" in said) == (code == 1)
    if code == 1:
        train("--resume", run)
        assert_same_run(run, whole)


def test_of_a_run_that_has_learnt_nothing_none_is_told_to_continue(tmp_path):
    with pytest.raises(UsageError) as error, saving_before_errors(lambda: 0, tmp_path):
        raise UsageError("BatchNorm needs more than one value")
    assert str(error.value) == "BatchNorm needs more than one value; nothing was learnt before that"


# Numbers that are not finite


def test_a_loss_that_is_not_finite_ends_the_run_with_what_was_good(whole, tmp_path):
    run = tmp_path / "run"
    said = train(*OPTIONS, "--out", run, code=2, POISON=7)
    names = re.search(r"the loss is nan at step 7, with (digit \d+, digit \d+.*) and 248 more", said)[1].split(", ")
    assert len(names) == 8 and "Traceback" not in said
    assert f"what was learnt in 7 steps is saved, continue with: python -m train --resume {run}" in said
    assert "--on-nan skip" in said and "a lower --lr" in said
    assert steps(run)[-1] == 7
    train(*OPTIONS, "--save-every", "7", "--out", tmp_path / "good", code=-9, DIE_AT=12)
    (ours, _), (theirs, _) = (store.load(path / "checkpoints" / "7") for path in (run, tmp_path / "good"))
    assert ours.keys() == theirs.keys() and all(ours[key].tobytes() == theirs[key].tobytes() for key in theirs)
    # What stopped it was that batch alone.
    train("--resume", run)
    assert_same_run(run, whole)


def test_a_run_that_stopped_at_a_bad_batch_can_go_on_without_it(tmp_path):
    train(*OPTIONS, "--out", tmp_path / "stopped", code=2, POISON=7)
    said = train("--resume", tmp_path / "stopped", "--on-nan", "skip", POISON=7)
    assert said.count("the loss is nan at step 7; left out: digit") == 1
    train(*OPTIONS, "--on-nan", "skip", "--out", tmp_path / "skipped", POISON=7)
    assert_same_run(tmp_path / "stopped", tmp_path / "skipped")
    assert all(np.isfinite(array).all() for array in store.load(tmp_path / "skipped" / "best")[0].values())


def test_a_run_that_diverges_ends_in_one_sentence(tmp_path):
    options = ["--optimizer", "sgd", "--lr", "1e30", "--clip-norm", "0", "--on-nan", "skip", "--epochs", "6"]
    said = train(*OPTIONS, *options, "--out", tmp_path / "run", code=2)
    assert "lower --lr" in said and said.count("left out") == 19


# No room on the disk


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 2 MB, where this machine lets us have one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs privileges")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_ends_the_run_in_a_sentence_and_costs_nothing(whole, small_disk):
    run, filler = small_disk / "run", small_disk / "filler"
    said = train(*OPTIONS, "--log-every", "50", "--out", run, code=2, FULL_AT=7, FILL=filler)
    assert f"{in_words(run)}\n" in said and said.count("error:") == 1
    filler.unlink()
    train("--resume", run, "--log-every", "2")
    assert_same_end(run, whole)


def test_no_room_for_records_is_said_in_the_same_way(whole, small_disk):
    run, filler = small_disk / "run", small_disk / "filler"
    said = train(*OPTIONS, "--save-every", "0", "--log-every", "1", "--out", run, code=2, FULL_AT=7, FILL=filler)
    assert "cannot write" in said and f"{in_words(run)}\n" in said and said.count("error:") == 1
    filler.unlink()
    train("--resume", run)
    assert_same_end(run, whole)


def test_a_disk_that_says_it_is_full_is_believed_before_it_is_written_to(whole, tmp_path):
    said = train(*OPTIONS, "--out", tmp_path / "run", code=2, FULL_AT=7)
    assert "cannot save step" in said and in_words(tmp_path / "run") in said
    train("--resume", tmp_path / "run")
    assert_same_run(tmp_path / "run", whole)


def in_words(run):
    return (
        f"in {run}: No space left on device; the checkpoint of step {steps(run)[-1]} is intact; "
        f"make room and continue with --resume {run}"
    )


def assert_same_end(ours, theirs):
    """As `assert_same_run`, for runs that save and log at other steps."""
    (a, _), (b, _) = (store.load(run / "checkpoints" / "15") for run in (ours, theirs))
    assert all(a[key].tobytes() == b[key].tobytes() for key in b)
    assert rows(ours) == rows(theirs)


# Images that cannot be read


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
