"""Batches before they are needed: made by threads on the host, and copied to the device while it computes."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import grain

T = TypeVar("T")


def dataset(batches: Callable[[int], T], start: int, stop: int, *, workers: int) -> "grain.IterDataset[T]":
    """`batches(start)` to `batches(stop - 1)`, in order, while `workers` threads make the next ones.

    Its iterators can be put back to any batch (`get_state`, `set_state`).
    """
    import grain

    options = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=workers + 2)
    return grain.MapDataset.range(start, stop).map(batches).to_iter_dataset(options)


def read_ahead(batches: Callable[[int], T], start: int, stop: int, *, workers: int) -> Iterator[T]:
    """An iterator over `dataset`."""
    return iter(dataset(batches, start, stop, workers=workers))


def on_device(batches: Iterator[T], put: Callable[[T], Any], *, ahead: int = 2) -> Iterator[Any]:
    """`put(batch)` for each batch, in order, by a thread that stays up to `ahead` batches before what was asked for.

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
