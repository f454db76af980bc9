"""What a run concludes from its own numbers: when it ends early, and what its last lines say."""

import math
import types

import pytest

from train import run_log
from train.config.options import Config
from train.metrics import Quantity
from train.reporting import records

NAN = math.nan


@pytest.fixture
def after(tmp_path):
    """A run's log after epochs with these accuracies."""

    def make(values: list[float]) -> run_log.RunLog:
        task = types.SimpleNamespace(metric="accuracy", quantities={}, table=lambda numbers: "")
        setup = types.SimpleNamespace(task=task)
        made = run_log.RunLog(Config(model="tiny", epochs=9, patience=2), setup, tmp_path, start=5)
        made.rows = [{"epoch": i, "step": 5 * i, "val_accuracy": value} for i, value in enumerate(values, 1)]
        return made

    return make


@pytest.mark.parametrize(
    ("values", "ended"),
    [
        ([0.5, 0.6, 0.4], False),
        ([0.5, 0.6, 0.4, 0.6], True),
        ([NAN, 0.2, 0.3], False),  # which NaN is not better than
        ([0.3, NAN, 0.4, NAN], False),
        ([NAN, NAN, NAN], True),
    ],
)
def test_patience_ends_when_no_number_is_better_than_one_some_epochs_ago(after, values, ended):
    assert after(values).patience_ended() == ended


def test_patience_knows_which_way_is_better(after):
    for values, ended in (([0.5, 0.4, 0.3], False), ([NAN, 0.3, 0.4, 0.5], True)):
        made = after(values)
        made.setup.task.quantities["accuracy"] = Quantity("lower", "px")
        assert made.patience_ended() == ended


@pytest.mark.parametrize("said", ["True", "False"])
def test_the_first_process_decides_for_all_whether_patience_has_ended(after, monkeypatch, said):
    """Others may read a metrics.csv that is not the newest, where a file system is shared."""
    monkeypatch.setattr(run_log, "broadcast_from_primary", lambda name, text: said)
    for values in ([0.5, 0.6], [0.6, 0.5, 0.4]):
        assert after(values).patience_ended() == (said == "True")


def test_a_run_that_measured_nothing_but_nan_has_last_words_all_the_same(after, capsys):
    made = after([NAN])
    records.append(made.folder / "timing.csv", {"step": 5, "images": 10, "seconds": 2.0})
    made.summarise()
    said = capsys.readouterr().out
    assert "held-out accuracy nan%, 5.0 images/s" in said and f"to-torch --from {made.folder} --out" in said
