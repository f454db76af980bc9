"""Top-k accuracy: the part of the items whose label is among the k likeliest classes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from train.metrics import add

State = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class TopK:
    """Of `logits` (N, C) and `labels` (N,); called `accuracy` for k = 1, else `top5` for k = 5, say.

    Of equal logits the first counts as the largest, so a model that says the same of all classes is not always right.
    """

    k: int = 1

    @property
    def counted(self) -> str:
        return "correct" if self.k == 1 else f"correct{self.k}"

    def init(self) -> State:
        return {self.counted: jnp.zeros((), int), "count": jnp.zeros((), int)}

    def update(self, state: State, *, logits: jax.Array, labels: jax.Array, mask: jax.Array, **outputs: jax.Array):
        found = (jax.lax.top_k(logits, self.k)[1] == labels[:, None]).any(-1)
        return add(state, {self.counted: (mask & found).sum(), "count": mask.sum()})

    def merge(self, state: State, other: State) -> State:
        return add(state, other)

    def compute(self, state: dict[str, np.ndarray]) -> dict[str, float]:
        return {"accuracy" if self.k == 1 else f"top{self.k}": float(state[self.counted] / state["count"])}
