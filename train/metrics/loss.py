"""Means over items, such as that of a loss."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from train.metrics import add

State = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class MeanLoss:
    """The mean of `losses` (N,), added up in `dtype`."""

    dtype: jnp.dtype = jnp.float32

    def init(self) -> State:
        return {"loss": jnp.zeros((), self.dtype), "count": jnp.zeros((), int)}

    def update(self, state: State, *, losses: jax.Array, mask: jax.Array, **outputs: jax.Array) -> State:
        return add(state, {"loss": jnp.where(mask, losses, 0).sum().astype(self.dtype), "count": mask.sum()})

    def merge(self, state: State, other: State) -> State:
        return add(state, other)

    def compute(self, state: dict[str, np.ndarray]) -> dict[str, float]:
        return {"loss": float(state["loss"] / state["count"])}
