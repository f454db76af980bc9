"""A run, from top to bottom."""

import contextlib
import dataclasses
import math
import os
import shlex
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

from jaxzoo.errors import UsageError
from train.config import provenance
from train.config.options import Config
from train.data import write_split
from train.data.batches import Batch
from train.data.prefetch import Waiting, on_device, read_ahead
from train.distributed import processes
from train.distributed.processes import is_primary
from train.engine import checkpoint
from train.engine.evaluation import Evaluation, evaluate
from train.engine.step import State, weights_of
from train.metrics import written
from train.reporting.progress import progress, say
from train.run_log import RunLog
from train.setup import defaults
from train.setup.continuing import check_manifest
from train.setup.prepare import Setup, prepare

# How many processes there are is not remembered: those that continue a run say it anew.
SINGLE_PROCESS = {"distributed": "no", "coordinator": None, "num_processes": None, "process_id": None}
PER_PROCESS_OPTIONS = ("process_id", "workers", "data", "weights", "out")  # which may differ between processes
MAX_SKIPPED_STEPS = 20  # steps in a row that are not finite, after which a run with --on-nan skip gives up


def run(config: Config) -> int:
    """Trains, continues or evaluates as `config` says, and returns the exit code.

    Raises:
      UsageError: something given cannot be used; what was learnt until then is saved.
    """
    config = provenance.located(defaults.named(config))
    processes.start(config)
    with processes.ending_together():
        return run_together(config)


def run_together(config: Config) -> int:
    """`run`, in each of the processes that train together."""
    fresh, folder = not (config.resume or config.eval_only), Path(config.resume or config.out or "")
    check_folder(config, folder)
    found = checkpoint.newest(folder, say) if config.resume else None
    setup, state = prepare(config, folder, continuing=bool(found))
    config = setup.config
    say(setup.summary)
    step, origin = 0, None
    if found:
        origin = found[0]
        state, step = restored(config, setup, state, folder, found)
    check_same(config, setup, folder, step)
    if config.eval_only:
        for name, ema in (("held out", False), ("its average", True))[: 1 + bool(config.ema and config.resume)]:
            numbers = evaluated(setup, weights_of(state, ema=ema), Stop()).numbers
            say(f"{name}: {written(numbers, setup.task.quantities, setup.task.headline)}")
            if table := setup.task.table(numbers):
                say(table)
        return 0

    processes.barrier("all have read what was there")
    if fresh:
        folder = Path(
            processes.broadcast_from_primary("folder", str(provenance.make_folder(config)) if is_primary() else "")
        )
    with checkpoint.locked(folder) if is_primary() else contextlib.nullcontext(), checkpoint.explain_full_disk(folder):
        say(f"writing to {folder}" if fresh else f"continuing {folder} after step {step}")
        if processes.is_distributed():
            say(f"if one of {jax.process_count()} processes is lost, all end; then start all with --resume {folder}")
        if is_primary():
            if changed := provenance.changed_since(folder):
                say(f"continuing with {', '.join(changed)}: the numbers may differ from those of a run never stopped")
            provenance.write(dataclasses.replace(config, **SINGLE_PROCESS), folder, step)
            write_split(setup.data, folder)
            checkpoint.recover_folder(folder, step, origin)
        setup.ready(folder)
        return fit(config, setup, folder, state, step)


def check_folder(config: Config, folder: Path) -> None:
    """Refuses a new run in a folder that is there, and one that goes on where nothing can be written."""
    if config.eval_only or not is_primary():
        return
    if config.out and not config.resume and folder.exists():
        raise UsageError(f"{folder} exists already; give another --out, or continue it with --resume {folder}")
    if config.resume and not os.access(folder, os.W_OK):
        raise UsageError(
            f"{folder} cannot be written, and a run that goes on writes there: evaluate it with --eval-only, or begin "
            f"a new one with --weights {folder}"
        )


def restored(config: Config, setup: Setup, state: State, folder: Path, found: tuple) -> tuple[State, int]:
    """The state of a run's newest checkpoint, as `checkpoint.newest` found it, and its step."""
    _, arrays, manifest = found
    if not config.eval_only:
        before = provenance.located(provenance.read(folder)).data
        check_manifest(manifest, setup.manifest, folder, config.data if config.data != before else None)
    setup.manifest["source"] = manifest["source"]
    state = setup.steps.put_state(checkpoint.filled(state, arrays, str(folder)) | {"skipped": np.int32(0)})
    step = manifest["train"]["step"]
    if setup.batches and step > config.epochs * setup.batches.per_epoch:
        raise UsageError(f"{folder} is at step {step} already, and --epochs {config.epochs} ends before that")
    return state, step


def check_same(config: Config, setup: Setup, folder: Path, step: int) -> None:
    """Refuses processes that were started with other options, or find other data. Raises UsageError."""
    options = {
        f"--{name.replace('_', '-')}": value for name, value in vars(config).items() if name not in PER_PROCESS_OPTIONS
    }
    processes.assert_same(
        options
        | {"classes": setup.data.classes, "images": (len(setup.data.train), len(setup.data.held_out))}
        | {"held-out batches": len(setup.held_out)}
        | {"images whose names have the digest": setup.manifest["train"]["names"]}
        | {f"{folder} at step": step}
    )


def fit(config: Config, setup: Setup, folder: Path, state: State, step: int) -> int:
    """Trains from `step` to the last one. Returns 0, or 128 + the number of the signal that asked to stop."""
    per_epoch, total = setup.batches.per_epoch, config.epochs * setup.batches.per_epoch
    log, reports, batch = RunLog(config, setup, folder, step), DeferredReports(config, setup), None
    checkpoints = checkpoint.Checkpoints(folder, setup.manifest, config.keep)

    def log_step(step: int, numbers: dict[str, float]) -> None:
        log.step(step, numbers, batches.seconds, bar)

    with contextlib.ExitStack() as stack:
        stack.enter_context(processes.finishing_first(checkpoints.wait))
        stop = stack.enter_context(stopping())
        bar = stack.enter_context(progress(step, total, "step", "compiling the training step"))
        batches = Waiting(stack.enter_context(contextlib.closing(training_batches(setup, step, total, stop, reports))))
        saving = Saving(checkpoints, reports, log_step)
        # Left before it is waited for more images.
        stack.enter_context(saving_before_errors(lambda: saving.save_what_is_good(state), folder))
        while not stop.now(reports.asked_to_stop):
            # At the end of an epoch: save, look at the validation images, write down what came of it.
            if step > 0 and step % per_epoch == 0:
                saving.save(state, step)
                found = {"val": evaluated(setup, weights_of(state), stop)}
                if config.ema:
                    found["ema"] = evaluated(setup, weights_of(state, ema=True), stop)
                if stop.now(False):
                    break
                log.epoch(step, state, found, last_batch=batch)
                checkpoints.mark_best(step, *log.latest())
                if step == total or log.patience_ended():
                    break

            # A step. The device has the next one to do before the report of the last one is fetched.
            batch, control = next(batches)
            state, report = setup.steps.train[setup.batches.at(step)](state, batch, control)
            numbers = reports.push(report, batch["indices"], step)
            step += 1
            if numbers:
                log_step(step - 1, numbers)
            if config.save_every and step % config.save_every == 0:
                saving.save(state, step)

        if stop.now(reports.asked_to_stop):
            saving.save(state, step)
    checkpoints.wait()
    if stop.now(reports.asked_to_stop):
        say(f"stopped after step {step} of {total}; continue with: {continuing(folder)}")
        return 128 + (stop.signal or signal.SIGTERM)
    log.summarise()
    return 0


class Saving:
    """Writes down what steps report, and then saves, since who continues from a checkpoint does not write it again."""

    def __init__(
        self,
        checkpoints: checkpoint.Checkpoints,
        reports: "DeferredReports",
        log_step: Callable[[int, dict[str, float]], None],
    ):
        self.checkpoints, self.reports, self.log_step = checkpoints, reports, log_step

    def write_down(self, step: int) -> None:
        if numbers := self.reports.last():
            self.log_step(step, numbers)

    def save(self, state: State, step: int) -> None:
        self.write_down(step)
        if step > 0:
            self.checkpoints.save(state, step)

    def save_what_is_good(self, state: State) -> int:
        """After an error: saves the last good state, and gives its step."""
        good = int(state["step"])
        with contextlib.suppress(UsageError, OSError):  # if that is not what is wrong
            self.write_down(good)
        self.checkpoints.save(state, good)
        self.checkpoints.wait()
        processes.barrier("saved")
        return good


def training_batches(
    setup: Setup, step: int, total: int, stop: "Stop", reports: "DeferredReports"
) -> Iterator[tuple[Batch, jax.Array]]:
    """The batches from `step` on, and with each what this process has to tell the others; both on the device."""
    made = read_ahead(setup.batches, step, total, workers=setup.config.workers)
    alone = not processes.is_distributed()
    fed = ((batch, False) for batch in made) if alone else reports.pad_with_blank_batches(made, step)

    def put(fed: tuple[Batch, bool]) -> tuple[Batch, jax.Array]:
        batch, missing = fed
        return setup.steps.put_batch(batch), setup.steps.put_control(stop=stop.signal is not None, missing=missing)

    return on_device(fed, put)


def evaluated(setup: Setup, weights: State, stop: "Stop") -> Evaluation:
    """What came of all validation images, or of those until `stop`."""
    batches = read_ahead(setup.held_out, 0, len(setup.held_out), workers=setup.config.workers)
    return evaluate(setup.steps, setup.task, weights, batches, lambda: stop.now(False))


class Diverged(processes.Agreed):
    """The numbers of a run are no longer worth going on with."""


class DeferredReports:
    """What steps report, fetched one step late, so that the device never waits for the host."""

    def __init__(self, config: Config, setup: Setup):
        self.on_nan, self.setup = config.on_nan, setup
        self.pending: tuple | None = None
        self.asked_to_stop, self.skipped = False, 0
        self.error: UsageError | None = None

    def pad_with_blank_batches(self, batches: Iterator[Batch], step: int) -> Iterator[tuple[Batch, bool]]:
        """The `batches` from `step` on, and when they fail, earlier ones of the same shapes with the word that they are
        missing: so all processes learn of it, and end at the same step."""
        bucket, known = self.setup.batches.bucket, {}
        try:
            for batch in batches:
                known[bucket(step)] = batch
                yield batch, False
                step += 1
        except UsageError as error:
            self.error = error
            while bucket(step) in known:
                yield known[bucket(step)], True
                step += 1
            raise

    def push(self, report: dict, indices: jax.Array, step: int) -> dict[str, float] | None:
        """Takes the report of `step`, and gives the numbers of the one before. Raises as `last`."""
        numbers = self.last()
        self.pending = report, indices, step
        return numbers

    def last(self) -> dict[str, float] | None:
        """Fetches the numbers of the step that was not looked at yet; None if there is no such step.

        Raises:
          Diverged: they are not finite, and the run is not to go on.
          processes.Agreed: a process could not read its images.
        """
        if not self.pending:
            return None
        (report, indices, step), self.pending = self.pending, None
        numbers = {name: float(value) for name, value in jax.device_get(report).items()}
        if numbers.pop("missing"):
            raise processes.Agreed(str(self.error or f"another process could not read its images for step {step}"))
        self.asked_to_stop |= bool(numbers.pop("stop"))
        wrong = [name for name in ("loss", "gradient_norm") if not math.isfinite(numbers[name])]
        self.skipped = self.skipped + 1 if wrong else 0
        if wrong:
            what = f"the {wrong[0].replace('_', ' ')} is {numbers[wrong[0]]} at step {step}"
            if self.on_nan == "stop" or self.skipped == MAX_SKIPPED_STEPS:
                raise Diverged(
                    f"{what}, with {self.names(indices)}: a lower --lr, longer --warmup-epochs or --clip-norm may help"
                )
            say(f"{what}; left out: {self.names(indices)}")
        return numbers

    def names(self, indices: jax.Array) -> str:
        """What this process knows of a batch's images, the first few by name."""
        rows = np.concatenate([np.asarray(shard.data) for shard in indices.addressable_shards])
        names = [self.setup.data.train.name(int(index)) for index in dict.fromkeys(rows.tolist())]
        return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


class Stop:
    """Whether a signal asked the run to end, of this process or, as the steps report, of any."""

    signal: int | None = None

    def now(self, asked_anywhere: bool) -> bool:
        """Whether to end here. One of many processes does so only when all have heard of it, at the same step."""
        return asked_anywhere or (self.signal is not None and jax.process_count() == 1)


@contextlib.contextmanager
def stopping() -> Iterator[Stop]:
    """Ctrl-C and SIGTERM set the flag instead of ending the process. A second SIGTERM ends it; a second Ctrl-C breaks
    off whatever it waits for, after which it saves, and a third one that too."""
    stop = Stop()

    def ask(number: int, frame: object) -> None:
        stop.signal = number
        signal.signal(number, before[number])
        again = b"once more saves at once" if number == signal.SIGINT else b"once more ends it at once"
        os.write(2, b"finishing this step, then saving; " + again + b"\n")  # print is not safe here

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def saving_before_errors(save: Callable[[], int], folder: Path) -> Iterator[None]:
    """What goes wrong on the way, such as a damaged image, must not cost what was learnt before it.

    Bad input ends all processes with its sentence and the command that continues. Any other error, and a second Ctrl-C,
    goes on as it is after the state was saved, if that is possible: it may be what cannot be computed or written, and
    many processes can save together only.
    """
    try:
        yield
    except checkpoint.NotSaved:
        raise
    except UsageError as error:
        if processes.is_distributed() and not isinstance(error, processes.Agreed):  # those cannot help with saving
            raise UsageError(f"{error}; continue with: {continuing(folder)}") from None
        step = save()
        if not step:
            raise processes.Agreed(f"{error}; nothing was learnt before that") from None
        differently = " --on-nan skip, which leaves that batch out" if isinstance(error, Diverged) else ""
        raise processes.Agreed(
            f"{error}; what was learnt in {step} steps is saved, continue with: {continuing(folder)}{differently}"
        ) from None
    except BaseException:
        saved = "the last checkpoint is what there is"
        if not processes.is_distributed():
            with contextlib.suppress(Exception):
                saved = f"what was learnt in {save()} steps is saved"
        say(f"{saved}, continue with: {continuing(folder)}")
        raise


def continuing(folder: Path) -> str:
    """The command that continues a run."""
    return f"python -m train --resume {shlex.quote(str(folder))}"
