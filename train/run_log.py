"""What a run writes down for people while it trains: numbers, pictures, the report. Only the first process writes."""

import contextlib
import math
import time
from collections.abc import Mapping
from pathlib import Path

import jax

from jaxzoo.errors import UsageError
from jaxzoo.registry import card
from train.config.options import Config
from train.data.batches import Batch
from train.distributed.processes import broadcast_from_primary, is_primary
from train.engine import checkpoint
from train.engine.evaluation import Evaluation
from train.engine.step import MAPS, State, augmenting_and_dropping, weights_of
from train.metrics import Quantity, compute, written
from train.reporting import insight, page, records, worth_less_than_the_run
from train.reporting.curves import draw_curves
from train.reporting.progress import Bar, Lines, say
from train.reporting.tensorboard import Events, histograms
from train.setup.prepare import Setup

WORTHWHILE = 60  # seconds of a run after which its end shows what the network looks at; --tensorboard always does
DRAWING = 0.1  # the part of a run's time that pictures may take; those of its end are always drawn

TABLES = ("metrics.csv", "per_class.csv", "per_class_ap.csv")  # said at the end of a run


class RunLog:
    """The records of a run that begins, or continues, after step `start`."""

    def __init__(self, config: Config, setup: Setup, folder: Path, start: int):
        self.config, self.setup, self.folder, self.start = config, setup, folder, start
        self.clock, self.rows = Clock(), records.read(folder / "metrics.csv")
        self.begun, self.drawing, self.undrawn = time.monotonic(), 0.0, None
        self.events = None
        if is_primary():
            records.cut_back(folder / "steps.jsonl", start)
            if start == 0:
                key = augmenting_and_dropping(config.seed, 0)[0]
                with worth_less_than_the_run(say):
                    setup.task.draw_first_batches(setup.batches(0), setup.held_out(0), key, folder)
                    page.write(folder, setup.task.quantities, setup.task.headline)
            if config.tensorboard:
                self.events = Events(folder / "tensorboard", after=start if config.resume else None)

    def step(self, step: int, numbers: Mapping[str, float], waited: float, bar: Bar | Lines) -> None:
        """The numbers of a step, which has ended; `waited` seconds went into waiting for data so far."""
        self.clock.tick(self.config.batch_size, waited)
        speed = {"images_per_second": self.clock.rate, "waiting": self.clock.waiting} if self.clock.rate else {}
        shown = f"  {self.clock.rate:.0f} images/s, {self.clock.waiting:.0%} waiting for data" if speed else ""
        total = self.config.epochs * self.setup.batches.per_epoch
        bar.update(step, total, f"loss {numbers['loss']:.4f}  lr {numbers['lr']:.2e}{shown}")
        if is_primary() and step % self.config.log_every == 0:
            row = {"step": step} | dict(numbers) | speed
            records.line(self.folder / "steps.jsonl", row)
            if self.events:
                self.events.scalars(step, {f"step/{name}": value for name, value in row.items()})

    def epoch(self, step: int, state: State, found: Mapping[str, Evaluation], last_batch: Batch | None) -> None:
        """The end of an epoch: metrics of training and of the validation images, with raw and averaged weights."""
        task = self.setup.task
        trained = compute(task.training_metrics, jax.device_get(state["metrics"]))
        numbers = {"train": trained} | {side: evaluation.numbers for side, evaluation in found.items()}
        metrics = {f"{side}_{name}": value for side, of in numbers.items() for name, value in of.items()}
        position = {"epoch": step // self.setup.batches.per_epoch, "step": step}
        row = position | {"lr": float(self.setup.schedule(step - 1))} | metrics
        self.rows = [earlier for earlier in self.rows if earlier["step"] < step] + [row]
        said = {side: written(of, task.quantities, task.headline) for side, of in numbers.items()}
        average = f"; average: {said['ema']}" if "ema" in said else ""
        say(f"epoch {position['epoch']}: {said['train']}; held out: {said['val']}{average}")
        counted = {}
        if self.config.tensorboard:  # of many processes all compute, and the first writes
            counted = histograms(state["params"])
            if last_batch is None:  # continued where an epoch ends
                last_batch = self.setup.steps.put_batch(self.setup.batches(step - 1))
            gradients = self.setup.steps.gradients(state, last_batch)
            counted |= {f"gradients/{name}": value for name, value in histograms(gradients).items()}
        if not is_primary():
            return
        records.append(self.folder / "metrics.csv", row)
        if self.clock.images:  # otherwise an epoch that was trained before is only looked at again
            seconds = {"images": self.clock.images, "seconds": self.clock.seconds, "waiting": self.clock.waited}
            records.append(self.folder / "timing.csv", position | seconds)
        self.clock = Clock()
        self.undrawn = found.get("ema", found["val"])
        with worth_less_than_the_run(say):
            if self.events:
                self.events.scalars(step, {"lr": row["lr"]} | metrics)
                self.events.histograms(step, counted)
        elapsed = time.monotonic() - self.begun
        due, last = self.drawing <= DRAWING * elapsed, step == self.config.epochs * self.setup.batches.per_epoch
        if (self.config.tensorboard and (due or last)) or (last and elapsed > WORTHWHILE):
            self.explain(state)
        if due:
            self.draw()

    def explain(self, state: State) -> None:
        """Pictures of what the network looks at in the first held-out images, which `draw` hands on; in a run of one
        process."""
        if jax.process_count() > 1:
            return
        begun = time.monotonic()
        with worth_less_than_the_run(say), contextlib.suppress(UsageError):  # networks without maps
            batch = self.setup.held_out(0)
            batch = jax.tree.map(lambda rows: rows[batch["mask"]][: insight.SHOWN], batch)
            layer = card(self.config.model).cam_layer
            found = jax.device_get(self.setup.steps.explain(layer, weights_of(state), batch))
            maps = found.pop(MAPS, None)
            for path, kernel in found.items():
                insight.draw_first_kernels(kernel, path, self.folder)
            if maps is not None:
                tiles = self.setup.task.explained_tiles(batch)
                insight.draw_maps(tiles, maps, batch["image"].shape[1:3], self.folder)
        self.drawing += time.monotonic() - begun

    def draw(self) -> None:
        """Pictures and the report of the last epoch, unless they are drawn already."""
        if self.undrawn is None:
            return
        begun, found, self.undrawn = time.monotonic(), self.undrawn, None
        with worth_less_than_the_run(say):
            title, headline = f"{self.config.model} on {self.config.data}", self.setup.task.headline
            draw_curves(self.rows, title, self.folder / "curves.png", headline)
            self.setup.task.draw(found.states, self.setup.held_out.source, self.folder, found.collector)
            if self.events:
                pictures = {path.stem: path for path in sorted(self.folder.glob("*.png"))}
                self.events.pictures(self.rows[-1]["step"], pictures)
            page.write(self.folder, self.setup.task.quantities, headline)
        self.drawing += time.monotonic() - begun

    def latest(self) -> tuple[str, float, Quantity]:
        """The metric that chooses the best weights, its newest value, that of the average where there is one, and how
        it is read."""
        return self.setup.task.metric, self.rows[-1][self.column], self.quantity

    @property
    def quantity(self) -> Quantity:
        return self.setup.task.quantities.get(self.setup.task.metric, Quantity())

    @property
    def column(self) -> str:
        return f"{'ema' if self.config.ema else 'val'}_{self.setup.task.metric}"

    def patience_ended(self) -> bool:
        """Whether the metric has not become better for --patience epochs. The first process decides, since metrics.csv
        may look older to another one, and one that goes on alone would wait for ever."""
        if not self.config.patience:
            return False
        best = 0
        for place, row in enumerate(self.rows):
            value, highest = row[self.column], self.rows[best][self.column]
            if self.quantity.is_better(value, highest) or (math.isnan(highest) and not math.isnan(value)):
                best = place
        waited = len(self.rows) - 1 - best
        ended = waited >= self.config.patience
        if ended:
            say(f"no better {self.setup.task.metric} for {waited} epochs: ending here")
        return broadcast_from_primary(f"patience after step {self.rows[-1]['step']}", str(ended)) == "True"

    def summarise(self) -> None:
        """The last lines of a run: how good, how fast, where."""
        if not is_primary():
            return
        self.draw()
        folder, best, timing = self.folder, checkpoint.best_of(self.folder), records.read(self.folder / "timing.csv")
        images, seconds = (sum(row[name] for row in timing) for name in ("images", "seconds"))
        metric, value, quantity = self.latest()
        speed = f", {images / seconds:.1f} images/s" if seconds else ""
        chosen = f", best {quantity.write(best['value'])} after step {best['step']}" if best else ""  # none if all NaN
        say(f"done: held-out {metric} {quantity.write(value)}{chosen}{speed}")
        side = self.column.removesuffix(metric)
        numbers = {name[len(side) :]: number for name, number in self.rows[-1].items() if name.startswith(side)}
        if table := self.setup.task.table(numbers):
            say(table)
        say(f"  everything  {folder}/report.html")
        tables = [name for name in TABLES if (folder / name).exists()]
        say(f"  numbers     {', '.join(f'{folder}/{name}' for name in tables)}")
        weights = f"{folder}{'/best' if best else ''}{'#ema' if self.config.ema else ''}"
        say(f"  weights     {weights}")
        say(f"  in PyTorch  python -m convert to-torch --from {weights} --out FILE.pth")


class Clock:
    """Speed of training: the time between results, without compilation and evaluation."""

    def __init__(self):
        self.images, self.seconds, self.waited = 0, 0.0, 0.0
        self.last: tuple[float, float] | None = None

    def tick(self, images: int, waited: float) -> None:
        now = time.monotonic()
        if self.last is not None:
            self.images += images
            self.seconds += now - self.last[0]
            self.waited += waited - self.last[1]
        self.last = now, waited

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def waiting(self) -> float:
        """The part of the time that went into waiting for data."""
        return self.waited / self.seconds if self.seconds else 0.0
