"""Evaluation: metrics counted on the devices, and results of single items collected on the host."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import jax

from train import metrics
from train.engine.step import State, Steps
from train.tasks import Batch, Task


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What came of the validation images: the numbers for metrics.csv, the states of the metrics, the collector."""

    numbers: dict[str, float]
    states: metrics.States
    collector: metrics.Collector | None = None


def evaluate(
    steps: Steps, task: Task, weights: State, batches: Iterable[Batch], stopped: Callable[[], bool] = lambda: False
) -> Evaluation:
    """Evaluates on all batches, or on those until `stopped()`. In every process alike.

    The rows for a collector reach all processes, and are fetched a batch late, so that no device waits for the host.
    """
    states, collector = steps.init_metrics, task.collector()
    pending, seen = None, set()
    for batch in batches:
        if stopped():
            break
        batch = steps.put_batch(batch)
        states, rows = steps.evaluate(weights, states, batch)
        if collector:
            _collect(collector, pending, seen)
            pending = rows
    if collector:
        _collect(collector, pending, seen)
    states = jax.device_get(states)
    numbers = metrics.compute(task.evaluation_metrics, states)
    return Evaluation(numbers | (collector.compute() if collector else {}), states, collector)


def _collect(collector: metrics.Collector, rows: dict[str, Any] | None, seen: set[int]) -> None:
    """Hands on each row of an item that did not come before; the filling of a batch has indices below 0."""
    if rows is None:
        return
    rows = jax.device_get(rows)
    for row, index in enumerate(rows.pop("indices").tolist()):
        if index >= 0 and index not in seen:
            seen.add(index)
            collector.add(index, jax.tree.map(lambda leaf, row=row: leaf[row], rows))
