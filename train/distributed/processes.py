"""One of many processes that train together, or the only one: what they share, and what only the first does.

Every process runs the same program on its own devices and reads its own part of every batch. The first alone writes.

When one of them ends early, the others cannot go on. One that fails says so, and all end with its sentence. One that
is gone without a word, by SIGKILL or with its machine, is missed by JAX's coordination service after `PATIENCE`
seconds, which ends the others with a message of its own and exit code 134 (SIGABRT).
"""

import contextlib
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from jaxzoo.errors import UsageError, exit_on_usage_error
from train.config.options import Config

PATIENCE = 30  # seconds without a sign of life after which a process counts as lost, and the others end
JOINING = 300  # seconds that processes wait for the last one to start
FOREVER = 7 * 24 * 3600  # seconds; who waits longer for others that are alive, downloading a data set say, gives up

_FAILED = "jaxzoo/failed"  # the word by which a process that fails ends the others; empty at the end of the program
_numbers = itertools.count()  # of barriers, whose names may come only once
_listeners: list[threading.Thread] = []
_unfinished: list[Callable[[], None]] = []


class Agreed(UsageError):
    """What ends a run for all processes at the same step."""


def start(config: Config) -> None:
    """Joins the other processes if the options say that there are any; before JAX is used otherwise.

    Raises:
      UsageError: they do not all come.
    """
    if config.distributed == "no" and not config.coordinator:
        return
    by_hand = {
        "coordinator_address": config.coordinator,
        "num_processes": config.num_processes,
        "process_id": config.process_id,
    }
    try:
        jax.distributed.initialize(**by_hand, initialization_timeout=JOINING, heartbeat_timeout_seconds=PATIENCE)
    except (RuntimeError, ValueError) as error:
        where = config.coordinator or "as found in the environment"
        raise UsageError(f"the processes ({where}) cannot be joined: {str(error).splitlines()[0]}") from error
    _listeners.append(threading.Thread(target=_end_with_the_others, name="others", daemon=True))
    _listeners[0].start()


def is_primary() -> bool:
    """Whether this process is the one that writes and talks."""
    return jax.process_index() == 0


def is_distributed() -> bool:
    """Whether there are other processes."""
    return jax.process_count() > 1


def barrier(name: str) -> None:
    """Returns when every process has come here."""
    if is_distributed():
        _client().wait_at_barrier(f"jaxzoo/{next(_numbers)} {name}", FOREVER * 1000)


@contextlib.contextmanager
def primary_first() -> Iterator[None]:
    """The first process does this before the others."""
    if not is_primary():
        barrier("after the first")
    yield
    if is_primary():
        barrier("after the first")


def broadcast_from_primary(name: str, text: str) -> str:
    """`text` as the first process has it."""
    if not is_distributed():
        return text
    if is_primary():
        _client().key_value_set(f"jaxzoo/first/{name}", text)
    return _client().blocking_key_value_get(f"jaxzoo/first/{name}", FOREVER * 1000)


def assert_same(found: Mapping[str, Any]) -> None:
    """Compares what every process found with what the first did; once in a program.

    Raises:
      UsageError: something differs.
    """
    ours = {name: str(value) for name, value in found.items()}
    there = json.loads(broadcast_from_primary("found", json.dumps(ours)))
    for name in ours:
        if there[name] != ours[name]:
            raise UsageError(
                f"process {jax.process_index()} has {name} {ours[name]} where the first has {there[name]}: "
                "all need the same options, the same data and a run folder that they share"
            )


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """Around all that a process does after `start`: returns when all are done, and one that fails ends the others.

    A process that fails among others leaves at once, without the farewells of its libraries, which wait for them.
    """
    try:
        yield
    except BaseException as error:
        if is_distributed():
            _fail(error)
        raise
    barrier("the end")
    if _listeners and is_primary():
        _client().key_value_set(_FAILED, "")
    for thread in _listeners:  # in the middle of its waiting, the end of the program would be a crash
        thread.join()


@contextlib.contextmanager
def finishing_first(wait: Callable[[], None]) -> Iterator[None]:
    """While this lasts, a process that has to end because of another one calls `wait` before."""
    _unfinished.append(wait)
    try:
        yield
    finally:
        _unfinished.remove(wait)


def _fail(error: BaseException) -> None:
    """Says what is wrong as `train.__main__` would, tells the others, and ends this process."""
    code = 1
    try:
        with exit_on_usage_error():
            raise error
    except SystemExit as leaving:
        code = leaving.code
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        sys.excepthook(type(error), error, error.__traceback__)
    if isinstance(error, Agreed):  # then all come here, and only one of them may know the reason
        barrier("last words")
    sentence = (str(error) or type(error).__name__).splitlines()[0]
    with contextlib.suppress(RuntimeError):  # another one was first to fail
        _client().key_value_set(_FAILED, f"process {jax.process_index()} ended: {sentence}")
    _leave(code)


def _end_with_the_others() -> None:
    """Waits for the word of a process that fails, and then ends this one."""
    if sentence := _client().blocking_key_value_get(_FAILED, FOREVER * 1000):
        print(f"error: {sentence}", file=sys.stderr)
        _leave(2)


def _leave(code: int) -> None:
    for wait in _unfinished:
        with contextlib.suppress(UsageError):
            wait()
    sys.stdout.flush()
    sys.stderr.flush()
    if is_primary():
        time.sleep(1)  # the words of all go by way of this process
    os._exit(code)


def _client() -> Any:
    # Its words and barriers need no device, and have no public name. Imported by those only who have company.
    from jax._src import distributed

    return distributed.global_state.client


def put(tree: Any, places: Any) -> Any:
    """Arrays that every process has, on all devices, in new memory; `places` are shardings as in `jax.device_put`."""
    # By way of NumPy, because several devices would share the memory of an array that is on the first one already.
    tree = jax.tree.map(np.asarray, tree)
    if not is_distributed():
        return jax.device_put(tree, places, may_alias=False)

    def place(leaf: np.ndarray, sharding: NamedSharding) -> jax.Array:
        ours = sharding.addressable_devices_indices_map(leaf.shape)
        parts = [jax.device_put(leaf[index], device, may_alias=False) for device, index in ours.items()]
        return jax.make_array_from_single_device_arrays(leaf.shape, sharding, parts)

    if isinstance(places, NamedSharding):
        return jax.tree.map(lambda leaf: place(leaf, places), tree)
    return jax.tree.map(place, tree, places)


def put_rows(batch: Any, sharding: NamedSharding) -> Any:
    """A batch on all devices, from the rows of its arrays that this process has made."""
    if not is_distributed():
        return jax.device_put(batch, sharding)
    return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(sharding, rows), batch)


def gather_to_primary(tree: Any) -> Any:
    """The arrays as NumPy's in the first process, and None in the others, which keep no copy.

    Every process has to ask at once, since arrays that devices of several hold parts of are put together.
    """

    def put_together(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
            return leaf
        from jax.experimental import multihost_utils

        array = multihost_utils.process_allgather(leaf, tiled=True)
        return array if is_primary() else None

    parts = jax.tree.map(put_together, tree)
    return jax.device_get(parts) if is_primary() else None
