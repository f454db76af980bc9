"""Checkpoints: written in the background, kept in number, checked when read."""

import json
import math
import shutil
import threading

import jax
import numpy as np
import optax
import pytest

from jaxzoo import UsageError
from train.engine import checkpoint
from train.metrics import Quantity

MANIFEST = {
    "model": "tiny",
    "arguments": {"num_classes": 10},
    "classes": None,
    "preprocess": None,
    "source": None,
    "train": {},
}


def state(step):
    params = {"fc.kernel": np.full((3, 4), step, np.float32), "fc.bias": np.arange(4, dtype=np.float32)}
    stats = {"bn.num_batches_tracked": np.array(step, np.int32)}
    sums = {"loss": np.array(step / 3, np.float32), "count": np.array(step, np.int32)}
    optimizer = optax.adamw(optax.constant_schedule(0.1)).init(params)
    optimizer = jax.tree.map(lambda leaf: np.full(leaf.shape, step, leaf.dtype), optimizer)
    return {"params": params, "stats": stats, "optimizer": optimizer, "step": np.array(step, np.int32), "metrics": sums}


@pytest.fixture
def run(tmp_path):
    """A run with checkpoints of steps 3, 6 and 9."""
    writer = checkpoint.Checkpoints(tmp_path, MANIFEST, keep=3)
    for step in (3, 6, 9):
        writer.save(state(step), step)
    writer.wait()
    return tmp_path


def newest(run):
    said = []
    folder, arrays, manifest = checkpoint.newest(run, said.append)
    checkpoint.recover_folder(run, manifest["train"]["step"], folder)
    assert int(arrays["step"]) == manifest["train"]["step"]
    return manifest["train"]["step"], said


def payload(folder):
    """The file that holds the kernel's numbers."""
    return next(path for path in (folder / "arrays" / "model" / "fc.kernel" / "c").rglob("*") if path.is_file())


def test_what_is_read_is_what_was_written(run):
    _, arrays, manifest = checkpoint.newest(run, print)
    filled = checkpoint.filled(state(0), arrays, "run")
    expected = state(9)
    for name in ("params", "stats", "metrics"):
        assert filled[name].keys() == expected[name].keys()
        for key, value in expected[name].items():
            np.testing.assert_array_equal(filled[name][key], value)
            assert filled[name][key].dtype == value.dtype
    jax.tree.map(np.testing.assert_array_equal, filled["optimizer"], expected["optimizer"])
    assert filled["optimizer"][0].mu.keys() == expected["params"].keys()
    assert manifest["model"] == "tiny"
    assert {"model/fc.kernel", "model/bn.num_batches_tracked"} <= arrays.keys()


def test_a_checkpoint_from_before_metrics_had_states_of_their_own_is_read(run):
    """It kept what several metrics count once, by the name that this has in each."""
    _, arrays, _ = checkpoint.newest(run, print)
    older = {name.replace("metrics/", "sums/"): array for name, array in arrays.items()}
    assert {"sums/loss", "sums/count"} <= older.keys()
    metrics = {"loss": {"loss": np.float32(0), "count": np.int32(0)}, "accuracy": {"count": np.int32(0)}}
    found = checkpoint.filled(state(0) | {"metrics": metrics}, older, "run")["metrics"]
    assert found == {"loss": {"loss": np.float32(3), "count": 9}, "accuracy": {"count": 9}}
    with pytest.raises(UsageError, match="metrics/accuracy/correct"):
        checkpoint.filled(state(0) | {"metrics": {"accuracy": {"correct": np.int32(0)}}}, older, "run")


def test_only_the_newest_are_kept(tmp_path):
    writer = checkpoint.Checkpoints(tmp_path, MANIFEST, keep=2)
    for step in (1, 2, 3, 10, 11):
        writer.save(state(step), step)
    writer.wait()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["10", "11"]


def test_the_state_may_change_while_it_is_written(tmp_path):
    writer, changing = checkpoint.Checkpoints(tmp_path, MANIFEST, keep=1), state(5)
    writer.save(changing, 5)
    changing["params"]["fc.kernel"][:] = -1
    writer.wait()
    np.testing.assert_array_equal(
        checkpoint.newest(tmp_path, print)[1]["model/fc.kernel"], state(5)["params"]["fc.kernel"]
    )


def flip_a_bit(folder):
    file = payload(folder)
    content = bytearray(file.read_bytes())
    content[20] ^= 1
    file.write_bytes(content)


DAMAGE = {
    "a flipped bit": flip_a_bit,
    "a truncated file": lambda folder: payload(folder).write_bytes(payload(folder).read_bytes()[:20]),
    "a missing file": lambda folder: payload(folder).unlink(),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "half a manifest": lambda folder: (folder / "manifest.json").write_text('{"format": 1, "mod'),
    "an empty folder": lambda folder: (shutil.rmtree(folder), folder.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(run, damage):
    damage(run / "checkpoints" / "9")
    step, said = newest(run)
    assert step == 6
    assert len(said) == 1 and "checkpoints/9" in said[0] and "going back to the one before" in said[0]
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["3", "6", "9.damaged"]
    assert newest(run) == (6, [])


def test_two_damaged_checkpoints_are_both_set_aside(run):
    flip_a_bit(run / "checkpoints" / "9")
    flip_a_bit(run / "checkpoints" / "6")
    step, said = newest(run)
    assert (step, len(said)) == (3, 2)


def test_the_best_is_the_last_resort(run):
    writer = checkpoint.Checkpoints(run, MANIFEST, keep=3)
    writer.mark_best(6, "accuracy", 0.9, Quantity())
    writer.wait()
    for step in (3, 6, 9):
        shutil.rmtree(run / "checkpoints" / str(step) / "arrays")
    assert newest(run)[0] == 6


def test_a_run_whose_checkpoints_are_all_damaged_is_refused(run):
    for step in (3, 6, 9):
        flip_a_bit(run / "checkpoints" / str(step))
    with pytest.raises(UsageError, match=r"every checkpoint of .* is damaged"):
        checkpoint.newest(run, lambda text: None)


def test_a_run_without_checkpoints_has_no_newest(tmp_path):
    assert checkpoint.newest(tmp_path, print) is None


def test_what_an_interrupted_save_left_behind_is_cleared_away(run):
    (run / "checkpoints" / ".12.partial-1" / "arrays").mkdir(parents=True)
    (run / "checkpoints" / ".3.removed").mkdir()
    assert newest(run)[0] == 9
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["3", "6", "9"]


def test_best_changes_only_for_a_better_value(run):
    writer = checkpoint.Checkpoints(run, MANIFEST, keep=3)
    for step, value in ((9, math.nan), (3, 0.5), (6, 0.8), (9, 0.8), (9, math.nan)):
        writer.mark_best(step, "accuracy", value, Quantity())
    writer.wait()
    assert checkpoint.best_of(run) == {"step": 6, "metric": "accuracy", "value": 0.8}
    for step, value in ((9, 0.9), (3, 0.5)):
        writer.mark_best(step, "error", value, Quantity("lower", "px"))
    writer.wait()
    assert checkpoint.best_of(run)["value"] == 0.5
    writer.mark_best(6, "accuracy", 0.8, Quantity())
    writer.wait()
    shutil.rmtree(run / "checkpoints")
    assert newest(run)[0] == 6


def test_training_does_not_wait_for_the_best_to_be_marked(run, monkeypatch):
    written, save = threading.Event(), checkpoint.store.save
    monkeypatch.setattr(checkpoint.store, "save", lambda *given: written.wait(60) and save(*given))
    digests, digested = checkpoint.store.digests, []
    monkeypatch.setattr(checkpoint.store, "digests", lambda folder: digested.append(folder) or digests(folder))
    writer = checkpoint.Checkpoints(run, MANIFEST, keep=4)
    writer.save(state(12), 12)
    in_time = threading.Timer(2, written.set)
    in_time.start()
    writer.mark_best(12, "accuracy", 0.9, Quantity())
    assert not written.is_set() and checkpoint.best_of(run) is None
    in_time.cancel()
    written.set()
    writer.wait()
    assert checkpoint.best_of(run)["step"] == 12 and len(digested) == 1  # of the checkpoint, whose files they share
    checkpoint.store.load(run / "best")


def test_only_the_first_process_copies_the_state(run, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(jax, "device_get", lambda tree: pytest.fail("a copy"))
    checkpoint.Checkpoints(run, MANIFEST, keep=3).save(state(12), 12)


def test_a_best_that_was_being_replaced_is_not_lost(run):
    writer = checkpoint.Checkpoints(run, MANIFEST, keep=3)
    writer.mark_best(3, "accuracy", 0.5, Quantity())
    writer.wait()
    (run / "best").rename(run / ".best.old")
    shutil.copytree(run / "checkpoints" / "6", run / ".best.new")
    newest(run)
    assert checkpoint.best_of(run)["step"] == 3
    assert not (run / ".best.new").exists()


def test_a_checkpoint_of_another_model_does_not_fill_this_one(run):
    other = state(0)
    other["params"]["head.kernel"] = other["params"].pop("fc.kernel")
    with pytest.raises(UsageError, match=r"another model or optimizer.*model/fc\.kernel, model/head\.kernel"):
        checkpoint.filled(other, checkpoint.newest(run, print)[1], "run")


def test_the_manifest_says_what_the_checkpoint_is(run):
    manifest = json.loads((run / "checkpoints" / "9" / "manifest.json").read_text())
    assert manifest["model"] == "tiny" and manifest["train"] == {"step": 9}
    assert all(len(digest) == 64 for digest in manifest["files"].values())


def test_reading_changes_nothing(run):
    (run / "checkpoints" / ".12.partial-1").mkdir()
    flip_a_bit(run / "checkpoints" / "9")
    before = sorted(run.rglob("*"))
    checkpoint.newest(run, lambda text: None)
    assert sorted(run.rglob("*")) == before


def test_two_processes_do_not_train_in_one_folder(run):
    with checkpoint.locked(run), pytest.raises(UsageError, match="another process is training"), checkpoint.locked(run):
        pass
    with checkpoint.locked(run):
        pass


def test_a_best_that_shares_a_damaged_file_is_set_aside_too(run):
    writer = checkpoint.Checkpoints(run, MANIFEST, keep=3)
    writer.mark_best(9, "accuracy", 0.9, Quantity())
    writer.wait()
    flip_a_bit(run / "checkpoints" / "9")
    assert newest(run)[0] == 6
    assert not (run / "best").exists() and (run / "best.damaged").exists()


def test_a_damaged_best_is_replaced(run):
    writer = checkpoint.Checkpoints(run, MANIFEST, keep=3)
    writer.mark_best(3, "accuracy", 0.9, Quantity())
    writer.wait()
    (run / "best" / "manifest.json").write_text("{")
    writer.mark_best(6, "accuracy", 0.5, Quantity())
    writer.wait()
    assert checkpoint.best_of(run)["step"] == 6
