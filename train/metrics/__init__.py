"""What is counted of batches on the device, and what people read of it: one file per kind of metric.

A metric is a small object without state of its own. Its state is a pytree of arrays whose shapes never change, so that
a compiled step carries it along, processes and devices merge theirs, and a checkpoint keeps it.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp

State = Any
States = dict[str, State]


class Metric(Protocol):
    """`init`, `update` and `merge` are traced, `compute` runs on the host."""

    def init(self) -> State:
        """The state before anything was seen."""

    def update(self, state: State, **outputs: Any) -> State:
        """The state after a batch, whose outputs the task names; a metric takes those it needs. Rows that
        `outputs["mask"]` leaves out do not count."""

    def merge(self, state: State, other: State) -> State:
        """The state after all that either has seen; `other` came later."""

    def compute(self, state: State) -> dict[str, float]:
        """Numbers for metrics.csv by name; none for what is only drawn. The state's arrays are NumPy's."""


class Collector(Protocol):
    """Results of single items, for metrics that need all of them at once, such as average precision. On the host.

    Every item comes once, whatever batches and processes there are; every process sees all of them, in one order.
    """

    def add(self, index: int, result: dict[str, Any]) -> None:
        """The result of the item at that index of the source: its rows of what the task collects, by name."""

    def compute(self) -> dict[str, float]:
        """Numbers for metrics.csv by name."""


@dataclasses.dataclass(frozen=True)
class Quantity:
    """How a number of metrics.csv is read: which way it is better, and in which unit it is written.

    The unit "%" is for parts, which are written as percentages; any other follows the number, or nothing does.
    """

    better: Literal["higher", "lower"] = "higher"
    unit: str = "%"

    def write(self, value: float) -> str:
        """`97.50%`, `0.0812` or `1.2500 px`"""
        return f"{value:.2%}" if self.unit == "%" else f"{value:.4f} {self.unit}".rstrip()

    def is_better(self, value: float, other: float) -> bool:
        """Whether the first number is better than the second; NaN is better than none."""
        return value > other if self.better == "higher" else value < other


LOSS = Quantity("lower", "")


def init(metrics: Mapping[str, Metric]) -> States:
    """The states of several metrics by name."""
    return {name: metric.init() for name, metric in metrics.items()}


def update(metrics: Mapping[str, Metric], states: States, outputs: Mapping[str, Any]) -> States:
    """Each one's state after a batch with these outputs."""
    return {name: metric.update(states[name], **outputs) for name, metric in metrics.items()}


def merge(metrics: Mapping[str, Metric], states: States, others: States) -> States:
    """Each one's state after all that either has seen."""
    return {name: metric.merge(states[name], others[name]) for name, metric in metrics.items()}


def compute(metrics: Mapping[str, Metric], states: States) -> dict[str, float]:
    """The numbers of all of them, in their order."""
    return {name: value for key, metric in metrics.items() for name, value in metric.compute(states[key]).items()}


def written(
    numbers: Mapping[str, float], quantities: Mapping[str, Quantity], names: Collection[str] | None = None
) -> str:
    """`loss 0.0812, accuracy 97.50%`, of all or of those of these names; what has no quantity is written as a part."""
    numbers = {name: value for name, value in numbers.items() if names is None or name in names}
    return ", ".join(f"{name} {quantities.get(name, Quantity()).write(value)}" for name, value in numbers.items())


def add(state: State, other: State) -> State:
    """`merge` of states that are sums."""
    return jax.tree.map(jnp.add, state, other)
