"""Checkpoints of a run, written while training goes on.

    RUN/checkpoints/120/   the state after 120 steps, as convert.store keeps it: Orbax arrays and a manifest of digests
    RUN/best/              the one with the best held-out metric; shares its files with checkpoints/ while that has it

A folder gets its name when it is complete, so a run that is killed at any instant has only whole checkpoints.
"""

import contextlib
import errno
import fcntl
import logging
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from convert import store
from jaxzoo.errors import UsageError
from train.distributed.processes import gather_to_primary, is_primary
from train.engine.step import State
from train.metrics import Quantity

# What is worth keeping of a state; `skipped` counts steps that were left out since the run was last started.
KEPT = ("params", "stats", "ema", "optimizer", "step", "metrics")
BEFORE = "sums/"  # how the names of what metrics count began in older checkpoints
OVERHEAD = 2**13  # bytes on the disk for every array beside its own
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class NotSaved(UsageError):
    """A run's folder could not be written to."""


class Checkpoints:
    """Writes checkpoints in the background, one at a time, and keeps the newest `keep`. Only the first process writes.

    Not by Orbax's CheckpointManager, which gives a step its folder's name when its own files are there: then a run that
    is killed could leave a checkpoint without the digests, which are of those files. Nor can its best step share files.

    Raises `NotSaved` where the disk does not take them.
    """

    def __init__(self, run: Path, manifest: Mapping[str, Any], keep: int):
        self.run, self.manifest, self.keep = run, manifest, keep
        self.thread = ThreadPoolExecutor(1, "checkpoint")  # one after the other, in the order of the calls
        self.writing: list[Future] = []

    def save(self, state: State, step: int) -> None:
        """Copies the state to the host and returns while it is written. Raises what went wrong with the last one."""
        self.wait()
        arrays = gather_to_primary(_named(state))
        if is_primary():
            # Copies of what a device still shares with them, since the next step reuses its memory.
            arrays = {name: np.array(array) for name, array in arrays.items()}
            self.writing.append(self.thread.submit(self._write, step, arrays))

    def wait(self) -> None:
        """Returns when all is written, or raises why it is not."""
        writing, self.writing = self.writing, []
        for future in writing:
            future.result()

    def mark_best(self, step: int, metric: str, value: float, quantity: Quantity) -> None:
        """Makes the checkpoint of `step`, once it is written, the run's best, unless the best so far is as good.

        NaN is no value to be best with.
        """
        if is_primary() and not math.isnan(value):
            self.writing.append(self.thread.submit(self._mark_best, step, metric, value, quantity))

    def _mark_best(self, step: int, metric: str, value: float, quantity: Quantity) -> None:
        best, source = best_of(self.run), _folder(self.run, step)
        if best and not quantity.is_better(value, best["value"]):
            return
        if not source.exists():  # why it could not be saved is said already
            return
        place, new, old = (self.run / name for name in ("best", ".best.new", ".best.old"))
        try:
            shutil.copytree(source, new, copy_function=_link)
            files = store.read_manifest(source)["files"]
            store.write_manifest(new, self._manifest(step=step, metric=metric, value=value), files)
        except OSError as error:
            raise not_saved(self.run, f"mark step {step} as the best", error) from error
        if place.exists():
            place.rename(old)
        new.rename(place)
        _remove(old)

    def _write(self, step: int, arrays: dict[str, np.ndarray]) -> None:
        if not _folder(self.run, step).exists():
            try:
                _silence_tracebacks()
                _find_room(self.run, sum(array.nbytes + OVERHEAD for array in arrays.values()))
                store.save(_folder(self.run, step), arrays, self._manifest(step=step))
            except Exception as error:  # Orbax and TensorStore have no common one for a full disk
                raise not_saved(self.run, f"save step {step}", error) from error
        for old in _steps(self.run)[: -self.keep]:
            _remove(_folder(self.run, old))

    def _manifest(self, **progress: Any) -> dict[str, Any]:
        return {**self.manifest, "train": {**self.manifest["train"], **progress}}


@contextlib.contextmanager
def explain_full_disk(run: Path) -> Iterator[None]:
    """Says in a sentence that the disk has no room for what a run writes. Raises `NotSaved`."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise not_saved(run, f"write {error.filename or 'a file'}", error) from error


def _find_room(run: Path, size: int) -> None:
    """Raises OSError if the disk has no room for so many bytes, before half of them are written."""
    disk = shutil.disk_usage(run)
    if disk.free < size and disk.total:  # some that lie elsewhere do not tell
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _silence_tracebacks() -> None:
    """Of a save that fails, keeps TensorStore's and asyncio's threads from printing tracebacks beside the one error."""

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            sys.__unraisablehook__(unraisable)

    sys.unraisablehook = hook
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # "Task exception was never retrieved"


def not_saved(run: Path, what: str, error: Exception) -> NotSaved:
    """What went wrong with writing, what there is to continue from, and how to."""
    codes = [code for code in NO_ROOM if os.strerror(code) in str(error)]
    reason = os.strerror(codes[0]) if codes else (str(error).strip() or type(error).__name__).splitlines()[0]
    before = _steps(run)
    kept = f"the checkpoint of step {before[-1]} is intact" if before else "there is no checkpoint before"
    return NotSaved(f"cannot {what} in {run}: {reason}; {kept}; make room and continue with --resume {run}")


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Keeps other processes from training in this folder. Raises UsageError if one does."""
    folder = os.open(run, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(f"another process is training in {run}: wait for it, or stop it") from None
    except OSError:
        pass  # a file system without locks
    try:
        yield
    finally:
        os.close(folder)


def recover_folder(run: Path, step: int, origin: Path | None) -> None:
    """Readies a folder for going on from `step`, which was read from `origin`; only for who holds the lock.

    Clears away what an interrupted run left half done, and renames damaged checkpoints to NAME.damaged.
    """
    if not (run / "best").exists() and (run / ".best.old").exists():
        (run / ".best.old").rename(run / "best")
    for leftover in [*run.glob(".best.*"), *(run / "checkpoints").glob(".*")]:
        shutil.rmtree(leftover)
    damaged = [_folder(run, other) for other in _steps(run) if other >= step and _folder(run, other) != origin]
    damaged += [run / "best"] * ((run / "best").exists() and not _intact(run / "best"))  # it may share a damaged file
    for folder in damaged:
        aside = folder.with_name(f"{folder.name}.damaged")
        _remove(aside)
        folder.rename(aside)


def newest(run: Path, say: Callable[[str], None]) -> tuple[Path, dict[str, np.ndarray], dict[str, Any]] | None:
    """The newest intact checkpoint, its arrays and manifest; None if none was written yet. Says which it passes over.

    Raises:
      UsageError: there are checkpoints, and all are damaged.
    """
    folders = [_folder(run, step) for step in reversed(_steps(run))]
    folders += [run / "best"] * (run / "best").exists()
    for folder in folders:
        try:
            return folder, *store.load(folder)
        except UsageError as error:
            say(f"{error}; going back to the one before")
    if folders:
        raise UsageError(f"every checkpoint of {run} is damaged; nothing is left to continue from")
    return None


def best_of(run: Path) -> dict[str, Any] | None:
    """`step`, `metric` and `value` of the run's best checkpoint."""
    try:
        return store.read_manifest(run / "best")["train"]
    except UsageError:
        return None


def filled(state: State, arrays: Mapping[str, np.ndarray], source: str) -> State:
    """`state` with the values of `arrays` in place of its own. Raises UsageError unless they fit exactly."""
    expected = _named(state)
    arrays = _renamed(arrays, expected)
    wrong = sorted(set(expected) ^ set(arrays)) or [
        name for name, leaf in expected.items() if (leaf.shape, leaf.dtype) != (arrays[name].shape, arrays[name].dtype)
    ]
    if wrong:
        raise UsageError(
            f"{source} holds another model or optimizer than its config.yaml says: {', '.join(wrong[:3])} …"
        )
    kept = {name: state[name] for name in KEPT if name in state}
    return state | jax.tree.unflatten(jax.tree.structure(kept), [arrays[name] for name in expected])


def _renamed(arrays: Mapping[str, np.ndarray], expected: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Arrays of an older checkpoint by today's names: what several metrics count was kept once, as sums/NAME."""
    before = {name.removeprefix(BEFORE): array for name, array in arrays.items() if name.startswith(BEFORE)}
    metrics = {name: name.rpartition("/")[2] for name in expected if name.startswith("metrics/")}
    found = {name: array for name, array in arrays.items() if not name.startswith(BEFORE)}
    return found | {name: before[last] for name, last in metrics.items() if last in before}


def _named(state: State) -> dict[str, Any]:
    """Leaves by the names they have in a checkpoint: parameters and stats are model/PATH, as in convert's own."""
    names = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path({name: state[name] for name in KEPT if name in state}):
        words = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        names["/".join(["model", *words[1:]] if words[0] in ("params", "stats") else words)] = leaf
    return names


def _folder(run: Path, step: int) -> Path:
    return run / "checkpoints" / str(step)


def _intact(folder: Path) -> bool:
    try:
        store.load(folder)
    except UsageError:
        return False
    return True


def _steps(run: Path) -> list[int]:
    return sorted(int(folder.name) for folder in (run / "checkpoints").glob("*") if folder.name.isdigit())


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # not every file system has hard links
        shutil.copy2(source, target)


def _remove(folder: Path) -> None:
    """Removes a folder if it is there; it loses its name first, so that no half of it is taken for the whole."""
    if folder.exists():
        hidden = folder.with_name(f".{folder.name.lstrip('.')}.removed")
        shutil.rmtree(hidden, ignore_errors=True)
        folder.rename(hidden)
        shutil.rmtree(hidden)
