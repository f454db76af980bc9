"""One of many processes that train together, or the only one: what they share, and what only the first does.

Every process runs the same program on its own devices and reads its own part of every batch. The first alone writes.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding

from jaxzoo.errors import UsageError
from train.config import Config

PATIENCE = 30  # seconds without a sign of life after which a process counts as lost, and the others end


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
    if "cpu" in os.environ.get("JAX_PLATFORMS", ""):
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(**by_hand, initialization_timeout=300, heartbeat_timeout_seconds=PATIENCE)
    except (RuntimeError, ValueError) as error:
        where = config.coordinator or "as found in the environment"
        raise UsageError(f"the processes ({where}) cannot be joined: {str(error).splitlines()[0]}") from error


def first() -> bool:
    """Whether this process is the one that writes and talks."""
    return jax.process_index() == 0


def meet(name: str) -> None:
    """Returns when every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def one_after_the_other() -> Iterator[None]:
    """The first process does this before the others."""
    if not first():
        meet("after the first")
    yield
    if first():
        meet("after the first")


def put(tree: Any, places: Any) -> Any:
    """Arrays that every process has, on all devices, in new memory; `places` are shardings as in `jax.device_put`."""
    if jax.process_count() == 1:
        return jax.device_put(tree, places, may_alias=False)

    def place(leaf: Any, sharding: NamedSharding) -> jax.Array:
        leaf = np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    if isinstance(places, NamedSharding):
        return jax.tree.map(lambda leaf: place(leaf, places), tree)
    return jax.tree.map(place, tree, places)


def put_rows(batch: Mapping[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    """A batch on all devices, from the rows of it that this process has made."""
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}


def whole(tree: Any) -> Any:
    """The arrays as NumPy's, put together where devices hold parts of them; every process has to ask at once."""
    parts = jax.tree.map(
        lambda leaf: leaf if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated
        else multihost_utils.process_allgather(leaf, tiled=True),
        tree,
    )  # fmt: skip
    return jax.device_get(parts)
