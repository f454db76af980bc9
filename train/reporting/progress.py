"""What a run says while it trains: a rich progress bar on a terminal, a line now and then anywhere else."""

import contextlib
import sys
import time
from collections.abc import Iterator

import jax
from jax.distributed import is_initialized


class Lines:
    """Progress for logs: a line every ten seconds."""

    def __init__(self, unit: str, every: float = 10):
        self.unit, self.every, self.last = unit, every, time.monotonic()

    def update(self, step: int, total: int, text: str) -> None:
        if time.monotonic() - self.last >= self.every:
            self.last = time.monotonic()
            say(f"{self.unit} {step}/{total}  {text}")


class Bar:
    """Progress for people."""

    def __init__(self, bar, task):
        self.bar, self.task = bar, task

    def update(self, step: int, total: int, text: str) -> None:
        self.bar.update(self.task, completed=step, total=total, text=text)


@contextlib.contextmanager
def progress(step: int, total: int, unit: str, before: str) -> Iterator[Lines | Bar]:
    """Shows how far something is from `step` on; `update(step, total, text)` moves it. `before` stands there first."""
    if not sys.stdout.isatty():
        say(before)
        yield Lines(unit)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        unit,
        MofNCompleteColumn(),
        BarColumn(None),
        TextColumn("{task.fields[text]}"),
        TimeRemainingColumn(),
        "left",
    )
    with Progress(*columns, expand=True, refresh_per_second=4) as bar:
        yield Bar(bar, bar.add_task("", total=total, completed=step, text=before))


def say(text: str) -> None:
    """One line for the user, at once; of many processes only the first talks."""
    if not (is_initialized() and jax.process_index()):
        print(text, flush=True)
