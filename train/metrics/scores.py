"""Means of several figures of every item, some of which lack a number that all items share."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from train.metrics import add


@dataclasses.dataclass(frozen=True)
class Scores:
    """The mean of `scores[name]` (N,) for each name; with the mean of `offsets[name]` over those batches that are
    `offered` any, for names that have one. Without such a batch these are NaN."""

    names: Sequence[str]
    with_offset: Sequence[str] = ()

    def init(self) -> dict[str, Any]:
        zero = jnp.zeros((), jnp.float32)
        sums, offsets = (dict.fromkeys(names, zero) for names in (self.names, self.with_offset))
        return {"sums": sums, "count": jnp.zeros((), int), "offsets": offsets, "offers": jnp.zeros((), int)}

    def update(
        self,
        state: dict[str, Any],
        *,
        scores: Mapping[str, jax.Array],
        offsets: Mapping[str, jax.Array],
        offered: jax.Array,
        mask: jax.Array,
        **outputs: Any,
    ) -> dict[str, Any]:
        found = {
            "sums": {name: jnp.where(mask, scores[name], 0).sum().astype(jnp.float32) for name in self.names},
            "count": mask.sum(),
            "offsets": {name: jnp.where(offered, offsets[name], 0).astype(jnp.float32) for name in self.with_offset},
            "offers": offered.astype(int),
        }
        return add(state, found)

    def merge(self, state: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
        return add(state, other)

    def compute(self, state: dict[str, Any]) -> dict[str, float]:
        with np.errstate(invalid="ignore", divide="ignore"):
            means = {name: float(np.divide(state["sums"][name], state["count"])) for name in self.names}
            shared = {name: float(np.divide(value, state["offers"])) for name, value in state["offsets"].items()}
        return {name: value + shared.get(name, 0.0) for name, value in means.items()}
