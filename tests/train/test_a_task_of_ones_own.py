"""A task of one's own, with its model and its data, goes through the trainer's doors: all of it is in this file.

Inputs are a pair of a number of a kind and a place, of different dtypes. What comes of one is a distance in metres. It
is learnt by the sign of each gradient, which is no gradient of any loss, with noise from a stream of the model's own;
the loss has two parts; and what chooses the best weights is the median error, which takes all items at once and is
better when smaller.
"""

import re
import socket

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxzoo
from convert import store
from jaxzoo import UsageError, nn
from tests.train.launch import launcher, train
from tests.train.same import assert_same_run
from train.data import Data, register_sources
from train.metrics import LOSS, Quantity
from train.metrics.loss import MeanLoss
from train.reporting import records
from train.tasks import Task

KINDS, UNREADABLE = 3, 5
HELD_OUT = 22


# The model


class Distance(nnx.Module):
    """What a linear function makes of a place, further away for some kinds; noisy in training."""

    def __init__(self, width: int = 4, *, rngs: nnx.Rngs):
        self.kinds, self.norm = nn.Embed(KINDS, width, rngs=rngs), nn.BatchNorm(3, rngs=rngs)
        self.place, self.head = nn.Linear(3, width, rngs=rngs), nn.Linear(width, 1, rngs=rngs)
        self.shaking = nnx.RngStream(rngs.params(), tag="shaking")

    def __call__(self, inputs: dict[str, jax.Array]) -> jax.Array:
        hidden = jax.nn.relu(self.place(self.norm(inputs["place"])) + self.kinds(inputs["kind"]))
        if not self.norm.use_running_average:
            hidden = hidden + 0.05 * jax.random.normal(self.shaking(), hidden.shape)
        return self.head(hidden)[:, 0]


def inputs(batch: int, size: int) -> dict[str, jax.ShapeDtypeStruct]:
    return {"kind": jax.ShapeDtypeStruct((batch,), jnp.int32), "place": jax.ShapeDtypeStruct((batch, 3), jnp.float32)}


def register() -> None:
    @jaxzoo.register_model(paper="none", twin="none:none", task="tests.train.test_a_task_of_ones_own", inputs=inputs)
    def distance(*, width: int = 4, rngs: nnx.Rngs) -> Distance:
        return Distance(width, rngs=rngs)


# The data


class Places:
    """Kinds, places and distances; one cannot be read."""

    def __init__(self, count: int, seed: int):
        rng = np.random.default_rng(seed)
        self.kinds, self.places = rng.integers(0, KINDS, count), rng.normal(size=(count, 3))
        self.distances = self.kinds + np.abs(self.places).sum(1)

    def __len__(self) -> int:
        return len(self.kinds)

    def __getitem__(self, index: int) -> tuple[int, np.ndarray, float]:
        if index == UNREADABLE:
            raise UsageError(f"{self.name(index)} cannot be read")
        return self.kinds[index], self.places[index], self.distances[index]

    def name(self, index: int) -> str:
        return f"place {index} of {len(self)}"


def load() -> Data:
    return Data(Places(64, seed=0), Places(HELD_OUT, seed=1))


register_sources(__name__, {"places": __name__})


# The task


class Median:
    """The median error of all items."""

    def __init__(self):
        self.errors = {}

    def add(self, index, result):
        assert index not in self.errors and index != UNREADABLE
        self.errors[index] = float(result["error"])

    def compute(self):
        print(f"{len(self.errors)} errors are collected", flush=True)
        return {"median_error": float(np.median([*self.errors.values()]))}


class DistanceTask(Task):
    metric = "median_error"
    quantities = {"loss": LOSS, "median_error": Quantity("lower", "m")}
    training_metrics = evaluation_metrics = {"loss": MeanLoss()}
    collected = ("error",)

    def training_example(self, item, rng):
        kind, place, distance = item
        where = (place + rng.normal(0, 0.01, 3)).astype(np.float32)
        return {"inputs": {"kind": np.int32(kind), "place": where}, "distance": np.float32(distance)}

    def evaluation_example(self, item):
        kind, place, distance = item
        where = place.astype(np.float32)
        return {"inputs": {"kind": np.int32(kind), "place": where}, "distance": np.float32(distance)}

    def training_loss(self, model, batch, key):
        predicted = model(batch["inputs"])
        losses = jnp.abs(predicted - batch["distance"])
        parts = {"distance": losses.mean(), "size": 1e-3 * (model.kinds.embedding[...] ** 2).sum()}
        return sum(parts.values()), (parts, {"losses": losses, "mask": jnp.ones(losses.shape, bool)})

    def loss_and_gradients(self, apply, params, batch, key):
        loss, gradients, rest = super().loss_and_gradients(apply, params, batch, key)
        return loss, jax.tree.map(jnp.sign, gradients), rest

    def evaluation_outputs(self, model, batch):
        error = jnp.abs(model(batch["inputs"]) - batch["distance"])
        return {"losses": error, "error": error, "mask": batch["mask"]}

    def collector(self):
        return Median()


# And what the command line asks of it

BATCH_SIZE, DEMO_EPOCHS, DEMO_LR_SCALE = 8, 4, 1.0
INAPPLICABLE_OPTIONS = {"image_size", "mixup"}


def tasks_of(config, data, preprocess):
    return [DistanceTask(), DistanceTask()]


def preparation(config, data, weights):
    return None


def model_arguments(config, data, preprocess, weights):
    return {"width": 8}


def usual_options(data, side):
    return {}


def augmentation_line(asked, config, data, side):
    return ""


# What comes of it

OPTIONS = (
    "--model=distance",
    "--epochs=4",
    "--optimizer=sgd",
    "--lr=0.01",
    "--momentum=0",
    "--weight-decay=0",
    "--log-every=1",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(place):
    """A run, and what it said."""
    return place / "run", train(*OPTIONS, "--tensorboard", "--out", place / "run")


def test_it_learns_and_the_smallest_error_is_the_best(run):
    folder, said = run
    rows = records.read(folder / "metrics.csv")
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    errors = [row["val_median_error"] for row in rows]
    assert errors[-1] < 0.7 * errors[0]
    best = store.read_manifest(folder / "best")["train"]
    assert (best["metric"], best["value"]) == ("median_error", min(errors))
    assert re.search(
        r"epoch 4: loss \d\.\d{4}; held out: loss \d\.\d{4}, median_error \d\.\d{4} m$", said, re.MULTILINE
    )
    assert f"done: held-out median_error {errors[-1]:.4f} m, best {min(errors):.4f} m after step" in said
    assert f"places: 64 training images, {HELD_OUT} held out\n" in said


def test_parts_of_the_loss_reach_the_log_of_steps_the_events_and_the_page(run):
    folder, _ = run
    steps = records.lines(folder / "steps.jsonl")
    assert len(steps) == 32 and len({row["loss"] for row in steps}) == 32
    for row in steps:
        assert row["loss"] == pytest.approx(row["loss_distance"] + row["loss_size"], rel=1e-6)
    page = (folder / "report.html").read_text()
    assert all(title in page for title in ("loss distance", "loss size", "median_error"))
    error = records.read(folder / "metrics.csv")[-1]["val_median_error"]
    assert f"{error:.4f} m" in page and f"{error:.2%}" not in page
    events = b"".join(path.read_bytes() for path in (folder / "tensorboard").iterdir())
    assert b"step/loss_size" in events


def test_it_continues_bit_for_bit(run, place):
    folder, _ = run
    train(*OPTIONS, "--save-every=3", "--out", place / "again", code=128 + 15, SIGNAL_AT=13)
    train("--resume", place / "again", "--save-every=0")
    for checkpoint in (place / "again" / "checkpoints").iterdir():
        assert int(checkpoint.name) in (24, 32)
    assert_same_run(place / "again", folder)


def test_two_processes_collect_every_item_once(run, place):
    folder, said = run
    readable = f"{HELD_OUT - 1} errors are collected"
    assert said.count(readable) == 4
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    options = ["--resume", folder, "--eval-only", "--eval-batch-size=4", f"--coordinator=localhost:{port}"]
    together = [[*options, "--num-processes=2", f"--process-id={number}"] for number in range(2)]
    said, codes, _ = launcher().together([(given, {}) for given in together])
    assert codes == [0, 0], said
    assert all(readable in words for words in said)
    error = records.read(folder / "metrics.csv")[-1]["val_median_error"]
    assert f"median_error {error:.4f} m" in said[0]


def test_its_noise_differs_from_step_to_step(place):
    """The same batch at rate 0, again and again."""
    still = ("--lr=1e-30", "--batch-size=63", "--epochs=3")
    train(*OPTIONS, *still, "--out", place / "still")
    losses = [row["loss"] for row in records.lines(place / "still" / "steps.jsonl")]
    assert len(set(losses)) == 3
