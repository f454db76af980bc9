"""What a run says while it trains: a rich progress bar on a terminal, a line now and then anywhere else."""

import contextlib
import sys
import time
from collections.abc import Iterator


class Lines:
    """Progress for logs: a line every ten seconds."""

    def __init__(self, every: float = 10):
        self.every, self.last = every, time.monotonic()

    def update(self, step: int, total: int, text: str) -> None:
        if time.monotonic() - self.last >= self.every:
            self.last = time.monotonic()
            say(f"step {step}/{total}  {text}")


class Bar:
    """Progress for people."""

    def __init__(self, bar, task):
        self.bar, self.task = bar, task

    def update(self, step: int, total: int, text: str) -> None:
        self.bar.update(self.task, completed=step, total=total, text=text)


@contextlib.contextmanager
def progress(step: int, total: int) -> Iterator[Lines | Bar]:
    """Shows how far a run is from `step` on; `update(step, total, text)` moves it."""
    if not sys.stdout.isatty():
        say("compiling the training step")
        yield Lines()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        "step",
        MofNCompleteColumn(),
        BarColumn(None),
        TextColumn("{task.fields[text]}"),
        TimeRemainingColumn(),
        "left",
    )
    with Progress(*columns, expand=True, refresh_per_second=4) as bar:
        yield Bar(bar, bar.add_task("", total=total, completed=step, text="compiling"))


def say(text: str) -> None:
    """One line for the user, at once."""
    print(text, flush=True)
