"""Trouble that a run of the trainer gets into when its environment asks for it.

Steps are counted from where the process begins, by the results that it has seen.

    DIE_AT=7            SIGKILL after seven steps
    DIE_AT_FILE=30      SIGKILL when it is about to write, rename or remove the thirtieth file in folders named run*
    SIGNAL_AT=7         a signal after seven steps: SIGNAL, or 15
    FULL_AT=7           after seven steps the disk says that it is full; with FILL=FILE it is, of that
    FAIL_AT=7           after seven steps there is an error, FAIL=KeyboardInterrupt say
    POISON=7            batch number 7, from 0, has an image for which the loss is NaN

Or to make many small processes do what few large ones do, and be seen at it:

    PLAIN=1             no pictures and no report, which take most of a small run's time
    INDICES=FILE        writes down which images the training batches of this process hold, a line for each
    SHARDED_FROM=64     arrays of 64 elements are large enough for --shard-params
    PATIENCE=8          a process that gives no sign of life for so many seconds counts as lost
    SAMPLING=50         machines take so many steps of Gibbs sampling to a sample, and of annealing
    LATE=1              takes so many seconds before it tells the others that it fails
"""

import builtins
import os
import shutil
import signal
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jaxzoo.generative import rbm
from train import run_log
from train.data.batches import TrainingBatches
from train.distributed import processes
from train.engine import step
from train.reporting import confusion, generated, mistakes
from train.tasks import classification, reconstruction

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
TOUCHING = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link")


def ask_for() -> None:
    """Prepares what the environment asks for."""
    wanted = os.environ.get
    at(wanted("DIE_AT"), die)
    at(wanted("SIGNAL_AT"), lambda: os.kill(os.getpid(), int(wanted("SIGNAL", signal.SIGTERM))))
    at(wanted("FAIL_AT"), lambda: fail(getattr(builtins, wanted("FAIL"))))
    at(wanted("FULL_AT"), lambda: fill(wanted("FILL")))
    if wanted("DIE_AT_FILE"):
        die_at_file(int(wanted("DIE_AT_FILE")))
    if wanted("POISON"):
        poison(int(wanted("POISON")))
    if wanted("INDICES"):
        write_indices(wanted("INDICES"))
    if wanted("SAMPLING"):
        rbm.WARM_UP = rbm.TEMPERATURES = int(wanted("SAMPLING"))
    if wanted("LATE"):
        fail_late(int(wanted("LATE")))
    processes.PATIENCE = int(wanted("PATIENCE", processes.PATIENCE))
    step.SHARDED_FROM = int(wanted("SHARDED_FROM", step.SHARDED_FROM))
    if wanted("PLAIN"):
        for module, name in (
            (run_log, "draw_curves"),
            (run_log.page, "write"),
            (classification, "draw_sheet"),
            (confusion, "draw_confusion"),
            (mistakes, "draw_sheet"),
            (reconstruction, "draw_sheet"),
            (generated, "draw_sheet"),
            (generated, "save"),
        ):
            setattr(module, name, lambda *_, **__: None)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail(error: type[BaseException]) -> None:
    raise error("out of the blue")


def at(count: str | None, act: Callable[[], None]) -> None:
    """Calls `act` when the loop has counted that many steps."""
    if count:
        tick, seen = run_log.Clock.tick, []

        def counted(clock, images, waited):
            tick(clock, images, waited)
            seen.append(images)
            if len(seen) == int(count):
                act()

        run_log.Clock.tick = counted


def fill(filler: str | None) -> None:
    """Leaves no room on the disk of `filler`."""
    if not filler:
        shutil.disk_usage = lambda path: types.SimpleNamespace(total=10**9, free=100)
        return
    with Path(filler).open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue


def die_at_file(number: int) -> None:
    """Also between two files of one checkpoint, and before and after it gets its name."""
    seen = []

    def watch(event: str, arguments: tuple) -> None:
        if event not in TOUCHING or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        if event == "open" and not (arguments[2] or 0) & WRITING:
            return
        if any(part.startswith("run") for part in Path(os.fsdecode(arguments[0])).parts[-8:]):
            seen.append(event)
            if len(seen) == number:
                die()

    sys.addaudithook(watch)


def write_indices(path: str) -> None:
    file, put_rows = open(path, "w"), step.put_rows  # noqa: SIM115 ends with the process

    def recorded(batch, sharding):
        if isinstance(batch, dict) and "mask" not in batch:  # those of evaluation have one, and control is an array
            print(*batch["indices"], file=file, flush=True)
        return put_rows(batch, sharding)

    step.put_rows = recorded


def fail_late(seconds: int) -> None:
    fail = processes._fail

    def late(error):
        time.sleep(seconds)
        fail(error)

    processes._fail = late


def poison(number: int) -> None:
    make, normalised = TrainingBatches.row, classification.Classification.normalised

    def spoilt(batches, index, row):
        example = make(batches, index, row)
        if index == number and row == 0:
            example = example | {"image": np.full_like(example["image"], 255)}  # no digit is white all over
        return example

    def watched(task, images):
        white = (images == 255).all((1, 2, 3), keepdims=True)
        return jnp.where(white, jnp.nan, normalised(task, images))

    TrainingBatches.row, classification.Classification.normalised = spoilt, watched
