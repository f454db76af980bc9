"""Batches before they are needed: made by threads on the host, and copied to the device while it computes."""

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from train.data.batches import Batch, stack

if TYPE_CHECKING:
    import grain

T = TypeVar("T")

# Examples that a thread makes at a time: so few that threads share a batch, so many that handing them on costs little.
PIECE = 16


class Batches(Protocol):
    """Batches of examples that are made one by one, such as `train.data.batches.TrainingBatches`."""

    most_rows: int

    def rows(self, index: int) -> int:
        """How many examples a batch has; no more than `most_rows`."""

    def row(self, index: int, row: int) -> Batch:
        """One example of a batch, as `stack` takes them."""


def dataset(batches: Batches, start: int, stop: int, *, workers: int) -> "grain.IterDataset[Batch]":
    """The batches from `start` to `stop - 1`, in order, while `workers` threads make examples of the next ones.

    They stay at most a batch ahead, or so many examples that no thread waits for another. Iterators can be put back to
    any batch (`get_state`, `set_state`).
    """
    import grain

    pieces = -(-batches.most_rows // PIECE)  # of every batch

    def piece(place: int) -> list[Batch]:
        index, number = divmod(place, pieces)
        size = -(-batches.rows(index) // pieces)
        return [batches.row(index, row) for row in range(batches.rows(index))[number * size :][:size]]

    options = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=max(pieces, workers + 2))
    made = grain.MapDataset.range(start * pieces, stop * pieces).map(piece).to_iter_dataset(options)
    return made.batch(pieces, batch_fn=lambda parts: stack(list(itertools.chain.from_iterable(parts))))


def read_ahead(batches: Batches, start: int, stop: int, *, workers: int) -> Iterator[Batch]:
    """An iterator over `dataset`."""
    return iter(dataset(batches, start, stop, workers=workers))


def on_device(batches: Iterator[T], put: Callable[[T], Any], *, ahead: int = 2) -> Iterator[Any]:
    """`put(batch)` for each batch, in order, by a thread that stays up to `ahead` batches before what was asked for.

    grain.experimental.device_put takes a device or a sharding in place of `put`, and so cannot add what the process
    has to say at that moment, nor put together the rows of many processes.

    It begins when the first is asked for. What goes wrong in `batches` or `put` is raised when its turn comes. Close it
    if it is left before the end (`contextlib.closing`): then the thread ends with the batch that it is waiting for.
    """
    ready, room, closed = queue.SimpleQueue(), threading.Semaphore(ahead), threading.Event()

    def fill() -> None:
        try:
            for batch in batches:
                room.acquire()
                if closed.is_set():
                    return
                ready.put((put(batch), None))
            ready.put((None, StopIteration()))
        except BaseException as error:
            ready.put((None, error))

    thread = threading.Thread(target=fill, name="on-device", daemon=True)
    thread.start()
    try:
        while True:
            batch, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error:
                raise error
            room.release()
            yield batch
    finally:
        closed.set()
        room.release()
        thread.join()


class Waiting(Iterator[T]):
    """An iterator that adds up the `seconds` spent waiting for the next item."""

    def __init__(self, items: Iterator[T]):
        self.items, self.seconds = iter(items), 0.0

    def __next__(self) -> T:
        asked = time.perf_counter()
        try:
            return next(self.items)
        finally:
            self.seconds += time.perf_counter() - asked
