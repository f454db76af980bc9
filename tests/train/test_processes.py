"""Many processes, each with devices of its own, train as one does; and what becomes of them when one is in trouble.

Real processes, over the CPU's collectives: see `tests.train.launch`.
"""

import ast
import re
import socket
from pathlib import Path

import numpy as np
import pytest

from convert import store
from tests.train.boxes import paint as paint_boxes
from tests.train.launch import launcher
from tests.train.test_data import paint
from tests.train.test_mask_sources import write_mask
from tests.train.test_run import rows
from train.reporting import records

ROOT = Path(__file__).parents[2]
# Five steps an epoch, a checkpoint at 5 and 10.
PICTURED = ("words alone", "words together")  # others draw nothing
OPTIONS = ["--model=tiny", "--epochs=2", "--batch-size=256", "--lr=0.01", "--ema=0.9", "--log-every=1"]


# What Gloo says in pieces, which those of other processes and threads come in between.
GLOO = re.compile(r"\[Gloo\] Rank|is connected to|peer ranks\.|Expected number of connected peer ranks is :|\d+|\s+")


class Launched:
    """What became of a run's processes: exit codes and when, words, and the indices of the batches that they made."""

    def __init__(self, folder: Path, processes: int, devices: int, options: list, trouble: dict, own: dict):
        folder.mkdir()
        with socket.create_server(("localhost", 0)) as free:
            port = free.getsockname()[1]
        asked, indices = [], [folder / f"indices.{number}" for number in range(processes)]
        for number in range(processes):
            environment = {
                **{"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "INDICES": indices[number]},
                **{"SHARDED_FROM": 64, "PATIENCE": 8, "PLAIN": "" if folder.name in PICTURED else 1},
            }
            together = [f"--coordinator=localhost:{port}", f"--num-processes={processes}", f"--process-id={number}"]
            given = [*options, *own.get(number, []), *(together if processes > 1 else [])]
            asked.append((given, environment | trouble.get(number, {})))
        self.said, self.codes, self.seconds = launcher().together(asked)
        batches = [[np.array(line.split(), int) for line in file.read_text().splitlines()] for file in indices]
        self.indices = [[part[k] for part in batches] for k in range(min(map(len, batches)))]  # by step and process


def launch(folder, processes, devices, *options, codes=None, trouble=None, own=None):
    """`trouble` by process is its environment, `own` what it is told beside the others' options."""
    launched = Launched(folder, processes, devices, options, trouble or {}, own or {})
    assert launched.codes == (codes or [0] * processes), "\n".join(launched.said)
    return launched


def test_one_process_alone_needs_nothing_private_of_jax():
    """Which another version of it may not have."""
    for file in (ROOT / "train").rglob("*.py"):
        at_the_top = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.ImportFrom)]
        assert not [node.module for node in at_the_top if node.module.startswith("jax._src")], file


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def alone(place):
    """A run of one process on one device."""
    return launch(place / "words alone", 1, 1, *OPTIONS, "--out", place / "alone")


@pytest.fixture(scope="module")
def together(place):
    """The same of two processes with two devices each."""
    return launch(place / "words together", 2, 2, *OPTIONS, "--out", place / "together")


def assert_same_run(run, expected):
    """Losses of every step, metrics, and the last state, but for rounding."""
    ours, theirs = (records.lines(folder / "steps.jsonl") for folder in (run, expected))
    assert [row["step"] for row in ours] == [row["step"] for row in theirs] == list(range(1, len(theirs) + 1))
    np.testing.assert_allclose([row["loss"] for row in ours], [row["loss"] for row in theirs], rtol=2e-5)
    for ours, theirs in zip(rows(run), rows(expected), strict=True):
        for name, value in theirs.items():
            np.testing.assert_allclose(float(ours[name]), float(value), rtol=2e-5, err_msg=name)
    ours, theirs = (store.load(folder / "checkpoints" / "10")[0] for folder in (run, expected))
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        np.testing.assert_allclose(ours[key], value, rtol=0, atol=5e-5 * np.abs(value).max(), err_msg=key)


def test_two_processes_of_two_devices_train_as_one_device_does(alone, together, place):
    assert "4 x cpu" in together.said[0]
    assert_same_run(place / "together", place / "alone")


def test_each_reads_its_own_part_of_every_batch_in_the_order_of_all(alone, together):
    assert len(together.indices) == len(alone.indices) == 10
    for parts, (whole,) in zip(together.indices, alone.indices, strict=True):
        np.testing.assert_array_equal(np.concatenate(parts), whole)
        assert len(set(whole)) == 256


def test_they_count_the_pixels_of_every_class_as_one_does(place):
    for i in range(33):
        mask = np.full((30 + i, 40), i % 3, np.uint8)
        mask[5 : 10 + i % 7] = 255 if i % 5 else 1
        for part in ("images", "masks"):
            write_mask(place / "pairs" / part / f"{i}.png", mask)
    run, data = place / "pixels", f"--data=pairs:{place / 'pairs'}"
    options = ["--model=pixels", data, "--epochs=3", "--batch-size=8", "--image-size=32", "--lr=0.03"]
    trained = launch(place / "words pixels", 2, 2, *options, "--out", run)
    counted = launch(place / "words counted", 1, 1, "--resume", run, "--eval-only")
    ours, (one,) = (re.findall("held out: (loss .*fwiou .*)", said[0]) for said in (trained.said, counted.said))
    assert ours[-1] == one


def test_they_judge_boxes_as_one_does(place):
    data = f"--data=list:{paint_boxes(place / 'boxes', 43)}"
    options = ["--model=boxes", data, "--epochs=2", "--batch-size=8", "--image-size=48", "--lr=0.01"]
    trained = launch(place / "words boxes", 2, 2, *options, "--out", place / "boxed")
    judged = launch(place / "words judged", 1, 1, "--resume", place / "boxed", "--eval-only")
    ours, theirs = ([line for line in of.said[0].splitlines() if "maxDets=" in line] for of in (trained, judged))
    assert ours == theirs
    assert len(ours) == 12


@pytest.mark.parametrize(
    ("said", "silent"),
    [
        ("[Gloo] Rank [Gloo] Rank 10 is connected to  is connected to 33 peer ranks. Expected number of connected peer "
         "ranks is : 3\n peer ranks. \nExpected number of connected peer ranks is : 3\n", True),
        ("[Gloo] Rank 1 is connected to 3 peer ranks. epoch 2: loss 0.3\n", False),
    ],
)  # fmt: skip
def test_gloo_says_nothing_however_it_comes(said, silent):
    assert silent == (not GLOO.sub("", said))


def test_only_the_first_talks_and_writes(alone, together, place):
    assert "epoch 2:" in together.said[0]
    assert not GLOO.sub("", together.said[1])
    files = [sorted(str(path.relative_to(place / run)) for path in (place / run).rglob("*")) for run in NAMES]
    assert files[0] == files[1]


NAMES = ("alone", "together")


def test_asking_one_to_stop_stops_all_at_the_same_step_and_fewer_devices_go_on(alone, place):
    """With the state divided among the devices, which is put together to save it."""
    run, options = place / "stopped", [*OPTIONS, "--shard-params"]
    stopped = launch(
        place / "words stopped", 2, 2, *options, "--out", run, codes=[143, 143], trouble={1: {"SIGNAL_AT": 3}}
    )
    step = max(int(folder.name) for folder in (run / "checkpoints").iterdir())
    assert 3 <= step < 10
    assert f"stopped after step {step} of 10; continue with: python -m train --resume {run}" in stopped.said[0]
    resumed = launch(place / "words resumed", 2, 1, "--resume", run)
    assert_same_run(run, place / "alone")
    for parts, (whole,) in zip(resumed.indices, alone.indices[step:], strict=True):
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_when_one_is_killed_the_others_end_within_a_minute_and_one_process_can_go_on(alone, place):
    run = place / "killed"
    killed = launch(place / "words killed", 2, 2, *OPTIONS, "--out", run, codes=[-6, -9], trouble={1: {"DIE_AT": 7}})
    assert killed.seconds[0] - killed.seconds[1] < 60
    assert "another task died" in killed.said[0] and f"start all with --resume {run}" in killed.said[0]
    launch(place / "words continued", 1, 2, "--resume", run)
    assert_same_run(run, place / "alone")


def test_when_the_first_is_killed_the_others_end_too(place):
    options = [*OPTIONS, "--out", place / "headless"]
    killed = launch(place / "words headless", 2, 1, *options, codes=[-9, -6], trouble={0: {"DIE_AT": 2}})
    assert killed.seconds[1] - killed.seconds[0] < 60 and "another task died" in killed.said[1]


@pytest.mark.parametrize(
    ("process", "option", "sentence"),
    [
        (0, "--data=folder:/nowhere", "there is no folder /nowhere"),
        (1, "--data=folder:/nowhere", "there is no folder /nowhere"),
        (1, "--lr=3", "process 1 has --lr 3.0 where the first has 0.01: all need the same options"),
    ],
)
def test_what_one_cannot_use_ends_all_before_they_start(place, process, option, sentence):
    run, own = place / "never", {process: [option]}
    ended = launch(place / f"words {process}{option[2]}", 2, 1, *OPTIONS, "--out", run, codes=[2, 2], own=own)
    assert f"error: {sentence}" in ended.said[process]
    assert f"error: process {process} ended: {sentence}" in ended.said[1 - process]
    assert abs(ended.seconds[0] - ended.seconds[1]) < 10 and not run.exists()


def test_an_image_that_one_cannot_read_ends_a_strict_run_of_all_and_saves_it(place):
    for name in ("cat", "dog"):
        for i in range(10):
            paint(place / "pets" / name / f"{i}.png")
    options = f"--model=tiny --epochs=9 --batch-size=8 --image-size=32 --strict-data --data=folder:{place / 'pets'}"
    run, options = place / "strict", options.split()
    held_out = launch(place / "words split", 1, 1, *options, "--epochs=1", "--out", place / "split")
    last = held_out.indices[1][0][-1]  # in the second process's part of the second batch
    split = (place / "split" / "split.csv").read_text().splitlines()
    bad = Path([line for line in split if line.endswith(",train")][last].split(",")[0])
    bad.write_bytes(bad.read_bytes()[:50])
    ended = launch(place / "words strict", 2, 1, *options, "--out", run, codes=[2, 2], trouble={1: {"LATE": 1}})
    assert str(bad) in ended.said[1]
    assert all("what was learnt in 1 steps is saved" in said for said in ended.said)
    assert [folder.name for folder in (run / "checkpoints").iterdir()] == ["1"]
