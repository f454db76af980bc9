"""A run, from top to bottom."""

import contextlib
import math
import os
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

from jaxzoo.errors import UsageError
from train import checkpoint, records
from train import config as configuration
from train.config import Config
from train.data.batches import read_ahead
from train.pictures import draw_curves
from train.progress import progress, say
from train.setup import Setup, check_manifest, prepare
from train.step import State


def run(config: Config) -> int:
    """Trains, continues or evaluates as `config` says, and returns the exit code.

    Raises:
      UsageError: something given cannot be used; what was learnt until then is saved.
    """
    folder = configuration.run_folder(config)
    fresh = not (config.resume or config.eval_only)
    if fresh and folder.exists():
        raise UsageError(f"{folder} exists already; give another --out, or continue it with --resume {folder}")
    found = checkpoint.newest(folder, say) if config.resume else None
    setup, state = prepare(config, continuing=bool(found))
    config = setup.config
    say(setup.summary)
    step, origin = 0, None
    if found:
        origin, arrays, manifest = found
        check_manifest(manifest, setup.manifest, folder)
        setup.manifest["source"] = manifest["source"]
        state = setup.steps.put_state(checkpoint.filled(state, arrays, str(folder)))
        step = manifest["train"]["step"]
        if step > config.epochs * setup.batches.per_epoch:
            raise UsageError(f"{folder} is at step {step} already, and --epochs {config.epochs} ends before that")

    if config.eval_only:
        say(f"held out: {shown(setup.task.metrics(evaluate(setup, state, config.workers, Stop())))}")
        return 0

    if fresh:
        make_folder(folder)
    with checkpoint.locked(folder):
        say(f"writing to {folder}" if fresh else f"continuing {folder} after step {step}")
        configuration.write(config, folder)
        checkpoint.tidy(folder, step, origin)
        return fit(config, setup, folder, state, step)


def fit(config: Config, setup: Setup, folder: Path, state: State, step: int) -> int:
    """Trains from `step` to the last one. Returns 0, or 128 + the number of the signal that asked to stop."""
    train, per_epoch, total = setup.steps.train, setup.batches.per_epoch, config.epochs * setup.batches.per_epoch
    checkpoints = checkpoint.Checkpoints(folder, setup.manifest, config.keep)
    batches = read_ahead(setup.batches, step, total, workers=config.workers)
    clock, report = Clock(), None

    def save() -> None:
        if step > 0:
            check(report, step)
            checkpoints.save(state, step)

    with stopping() as stop, progress(step, total) as bar, saving_before_errors(save, checkpoints.wait, folder):
        while not stop:
            # At the end of an epoch: save, look at the held-out images, write down what came of it.
            if step > 0 and step % per_epoch == 0:
                save()
                sums = evaluate(setup, state, config.workers, stop)
                if stop:
                    break
                trained, held_out = setup.task.metrics(jax.device_get(state["sums"])), setup.task.metrics(sums)
                position = {"epoch": step // per_epoch, "step": step}
                rows = records.append(
                    folder / "metrics.csv",
                    position
                    | {"lr": float(setup.schedule(step - 1))}
                    | {f"train_{name}": value for name, value in trained.items()}
                    | {f"val_{name}": value for name, value in held_out.items()},
                )
                records.append(folder / "timing.csv", position | {"images": clock.images, "seconds": clock.seconds})
                clock = Clock()
                draw_curves(rows, f"{config.model} on {config.data}", folder / "curves.png")
                setup.task.pictures(sums, folder)
                checkpoints.mark_best(step, setup.task.metric, held_out[setup.task.metric])
                say(f"epoch {step // per_epoch}: {shown(trained)}; held out: {shown(held_out)}")
            if step == total:
                break

            # A step. The device has the next one to do before the result of the last one is fetched.
            state, following = train(state, setup.steps.put_batch(next(batches)))
            step += 1
            if report:
                report = check(report, step - 1)
                clock.tick(config.batch_size)
                speed = f"{clock.rate:.0f} images/s" if clock.rate else ""
                bar.update(step, total, f"loss {report['loss']:.4f}  lr {report['lr']:.2e}  {speed}")
            report = following
            if config.save_every and step % config.save_every == 0:
                save()

    if stop:
        save()
    checkpoints.wait()
    if stop:
        say(f"stopped after step {step} of {total}; continue with: {continuing(folder)}")
        return 128 + stop.signal
    summarise(setup, folder)
    return 0


def evaluate(setup: Setup, state: State, workers: int, stop: "Stop") -> dict[str, np.ndarray]:
    """The task's sums over all held-out images, or over those until `stop`."""
    sums = setup.steps.no_sums
    for batch in read_ahead(setup.held_out, 0, len(setup.held_out), workers=workers):
        if stop:
            break
        sums = setup.steps.evaluate(state, sums, setup.steps.put_batch(batch))
    return jax.device_get(sums)


def summarise(setup: Setup, folder: Path) -> None:
    """The last lines of a run: how good, how fast, where."""
    metric, best, timing = setup.task.metric, checkpoint.best_of(folder), records.read(folder / "timing.csv")
    images, seconds = (sum(row[name] for row in timing) for name in ("images", "seconds"))
    last = records.read(folder / "metrics.csv")[-1][f"val_{metric}"]
    speed = f", {images / seconds:.1f} images/s" if seconds else ""
    say(f"done: held-out {metric} {last:.2%}, best {best['value']:.2%} after step {best['step']}{speed}")
    say(f"  pictures    {folder}/curves.png, {folder}/confusion.png")
    say(f"  numbers     {folder}/metrics.csv, {folder}/confusion.csv")
    say(f"  weights     {folder}/best")
    say(f"  in PyTorch  python -m convert to-torch --from {folder}/best --out FILE.pth")


def check(report: dict | None, step: int) -> dict[str, float]:
    """What a step reports, fetched from the device. Raises UsageError if it is not finite."""
    numbers = {name: float(value) for name, value in jax.device_get(report or {}).items()}
    for name in ("loss", "gradient_norm"):
        if not math.isfinite(numbers.get(name, 0)):
            raise Diverged(
                f"the {name.replace('_', ' ')} is {numbers[name]} at step {step}: a lower --lr, longer --warmup-epochs "
                "or a smaller --clip-norm may help; checkpoints from before are kept"
            )
    return numbers


class Diverged(UsageError):
    """The numbers of a run are no longer worth saving."""


class Clock:
    """Speed of training: the time between results, without compilation and evaluation."""

    def __init__(self):
        self.images, self.seconds, self.last = 0, 0.0, None

    def tick(self, images: int) -> None:
        now = time.monotonic()
        if self.last is not None:
            self.images, self.seconds = self.images + images, self.seconds + now - self.last
        self.last = now

    @property
    def rate(self) -> float:
        return self.images / self.seconds if self.seconds else 0.0


class Stop:
    """True once a signal asked the run to end."""

    signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextlib.contextmanager
def stopping() -> Iterator[Stop]:
    """Ctrl-C and SIGTERM set the flag instead of ending the process; a second one ends it."""
    stop = Stop()

    def ask(number: int, frame: object) -> None:
        stop.signal = number
        signal.signal(number, before[number])
        os.write(2, b"finishing this step, then saving; once more ends it at once\n")  # print is not safe here

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def saving_before_errors(save: Callable[[], None], wait: Callable[[], None], folder: Path) -> Iterator[None]:
    """Bad input that shows only on the way, such as a damaged image, must not cost what was learnt before it."""
    try:
        yield
    except Diverged:
        raise
    except UsageError as error:
        save()
        wait()
        raise UsageError(f"{error}; what was learnt is saved, continue with: {continuing(folder)}") from None


def make_folder(folder: Path) -> None:
    """Makes the run's folder, and those above it. Raises UsageError."""
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {folder}: {error.strerror}; give another --out") from None


def continuing(folder: Path) -> str:
    """The command that continues a run."""
    return f"python -m train --resume {shlex.quote(str(folder))}"


def shown(metrics: dict[str, float]) -> str:
    """`loss 0.0812, accuracy 97.50%`"""
    return ", ".join(
        f"{name} {value:.4f}" if name == "loss" else f"{name} {value:.2%}" for name, value in metrics.items()
    )
