"""Models that reconstruct and generate go through the trainer: resumable, judged by nats, errors and probes."""

import re

import numpy as np
import pytest

from convert import store
from tests.train.launch import train
from tests.train.same import assert_same_run, rows
from train.metrics.probe import Codes, cross_validated
from train.metrics.scores import Scores
from train.reporting import records

OPTIONS = ("--batch-size=256", "--epochs=2", "--save-every=3", "--log-every=1", "--lr=0.003")
TWO = "--xla_force_host_platform_device_count=2"
FEW = {"SAMPLING": 50}
KINDS = {
    "rbm": ("--model-args", "hidden=24", "gibbs_steps=2"),
    "dbn": ("--model-args", "hidden=[24,16]", "chains=0"),
    "vae": ("--model-args", "hidden=32", "code=2", "--ema=0.9"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module", params=KINDS)
def run(request, place):
    """The name of a model, a run of it, and what it said."""
    name = request.param
    return name, place / name, train(f"--model={name}", *KINDS[name], *OPTIONS, "--out", place / name, **FEW)


def test_it_continues_bit_for_bit(run, place):
    """Sampling is random, and persistent chains are part of the state; the second layer of the DBN begins with the
    second epoch."""
    name, folder, _ = run
    again = place / f"{name}-again"
    train(f"--model={name}", *KINDS[name], *OPTIONS, "--out", again, code=128 + 15, SIGNAL_AT=7, PLAIN=1, **FEW)
    train("--resume", again, PLAIN=1, **FEW)
    assert_same_run(again, folder)


def test_it_learns_and_says_how_well(run):
    name, folder, said = run
    first, *_, last = (row["val_error"] for row in map(numbers, rows(folder)))
    assert last < first
    assert re.search(r"epoch 2: loss \d.*; held out: .*error 0\.\d{4}.*probe_accuracy \d\d\.\d\d%", said)
    drawn = {
        "reconstructions.png",
        "filters.png",
        "codes.png",
        "samples.png",
        "train_batch.png",
        "val_batch.png",
        "curves.png",
    }
    drawn |= {"plane.png"} if name == "vae" else set()
    assert drawn <= {path.name for path in folder.iterdir()}
    if name in ("rbm", "vae"):
        found = [float(row["ema_nll" if name == "vae" else "val_nll"]) for row in rows(folder)]
        manifest = store.read_manifest(folder / "best")["train"]
        assert (manifest["metric"], manifest["value"]) == ("nll", min(found))
        bits = float(re.search(r"nats are (\S+) bits an image", said)[1])
        assert bits == pytest.approx(
            float(rows(folder)[-1][f"{'ema' if name == 'vae' else 'val'}_nll"]) / np.log(2), abs=0.01
        )


@pytest.mark.parametrize("run", ["rbm", "vae"], indirect=True)
def test_figures_do_not_depend_on_batches(run):
    name, folder, _ = run
    side = "ema" if name == "vae" else "val"
    said = train("--resume", folder, "--eval-only", "--eval-batch-size=100", **FEW)
    for metric in ("nll", "error", "probe_accuracy"):
        line = next(line for line in reversed(said.splitlines()) if f" {metric} " in line)
        found = re.search(rf" {metric} ([\d.]+)(%?)", line)
        value = numbers(rows(folder)[-1])[f"{side}_{metric}"]
        assert float(found[1]) / (100 if found[2] else 1) == pytest.approx(value, abs=2e-4)


@pytest.mark.parametrize("run", ["rbm"], indirect=True)
def test_persistent_chains_move_on(run):
    arrays, _ = store.load(run[1] / "best", prefix="model/")
    assert arrays["chains"].shape == (64, 24) and 0.01 < arrays["chains"].mean() < 0.99


@pytest.mark.parametrize("name", ["vae"])
def test_noise_differs_from_step_to_step(name, place):
    """The same batch at rate 0, again and again."""
    still = place / f"{name}-still"
    train(f"--model={name}", *KINDS[name], "--batch-size=1438", "--lr=1e-30", "--epochs=3", "--out", still, PLAIN=1)
    assert len({row["loss"] for row in records.lines(still / "steps.jsonl")}) == 3


@pytest.mark.parametrize("run", ["rbm"], indirect=True)
def test_two_devices_learn_what_one_does(run, place):
    name, folder, _ = run
    shared = place / f"{name}-shared"
    train(f"--model={name}", *KINDS[name], *OPTIONS, "--out", shared, XLA_FLAGS=TWO, PLAIN=1, **FEW)
    ours, theirs = (numbers(rows(path)[-1]) for path in (shared, folder))
    assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=2e-3)
    assert ours["val_error"] == pytest.approx(theirs["val_error"], rel=2e-3)


def test_what_means_nothing_is_refused(place):
    said = train("--model=vae", "--mixup=0.2", "--out", place / "none", code=2)
    assert "--mixup means nothing to reconstruction" in said
    said = train("--model=vae", "--model-args", "likelihood=poisson", "--out", place / "none", code=2)
    assert "likelihood is 'poisson'; it must be one of: bernoulli, gaussian" in said


def numbers(row: dict[str, str]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items()}


# The metrics


def test_scores_are_means_and_have_an_offset_once():
    scores = Scores(("nll", "error"), ("nll",))
    state = scores.init()
    for offered, offset in ((True, 7.0), (False, 99.0)):
        mask = np.array([True, True, offered])
        found = {"nll": np.array([1.0, 2.0, 6.0]), "error": np.array([0.5, 0.5, 2.0])}
        state = scores.update(state, scores=found, offsets={"nll": offset}, offered=np.bool_(offered), mask=mask)
    assert scores.compute(state) == pytest.approx({"nll": 12 / 5 + 7, "error": 4 / 5})
    assert np.isnan(scores.compute(scores.init() | {"count": 1})["nll"])


def test_a_probe_finds_what_is_linear_and_nothing_else():
    draws = np.random.default_rng(0)
    labels = draws.integers(0, 3, 300)
    codes = np.eye(3)[labels] + draws.normal(0, 0.05, (300, 3))
    assert cross_validated(np.column_stack([codes, np.full(300, 4.0)]), labels) == 1
    assert cross_validated(draws.normal(size=(300, 5)), labels) < 0.5


def test_the_probe_agrees_with_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    from train.metrics.probe import DECAY, predicted

    draws = np.random.default_rng(1)
    codes, asked = draws.normal(size=(200, 4)), draws.normal(size=(500, 4))
    labels = (codes @ draws.normal(size=(4, 3)) + draws.normal(size=(200, 3))).argmax(1) + 5
    scale = np.sqrt(codes.var(0).mean())
    theirs = LogisticRegression(C=1 / (DECAY * len(codes)), max_iter=1000, tol=1e-8).fit(codes / scale, labels)
    assert (predicted(codes, labels, asked) == theirs.predict(asked / scale)).mean() > 0.99


def test_codes_of_one_class_have_no_probe():
    codes = Codes(range(10), 2)
    for i in range(10):
        codes.add(i, {"code": np.ones(3), "label": 0, "image": np.zeros((2, 2, 1))})
    assert codes.compute() == {} and sorted(codes.rows) == [0, 1]
