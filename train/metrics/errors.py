"""The most confident errors of an evaluation.

Errors are arrays (k,), the most confident first: `index` of the item in the data's source, `true` and `predicted`
class (int32) and `probability` of the predicted one (float32). All of these are 0 in free places.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

Errors = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class ConfidentErrors:
    """Keeps `count` of them, by `logits` (N, C), `labels` and `indices` (N,)."""

    count: int = 24

    def init(self) -> Errors:
        free = jnp.zeros(self.count, jnp.int32)
        return {"index": free, "true": free, "predicted": free, "probability": jnp.zeros(self.count, jnp.float32)}

    def update(
        self,
        state: Errors,
        *,
        logits: jax.Array,
        labels: jax.Array,
        mask: jax.Array,
        indices: jax.Array,
        **outputs: jax.Array,
    ) -> Errors:
        predicted = logits.argmax(-1)
        probability = jax.nn.softmax(logits.astype(jnp.float32)).max(-1)
        wrong = mask & (predicted != labels) & jnp.isfinite(probability)
        batch = {"index": indices, "true": labels, "predicted": predicted}
        batch = {name: jnp.where(wrong, values, 0).astype(jnp.int32) for name, values in batch.items()}
        return self.merge(state, batch | {"probability": jnp.where(wrong, probability, 0)})

    def merge(self, state: Errors, other: Errors) -> Errors:
        """The most confident of both; of equals, those that came first."""
        both = {name: jnp.concatenate([values, other[name]]) for name, values in state.items()}
        _, chosen = jax.lax.top_k(both["probability"], self.count)
        return {name: values[chosen] for name, values in both.items()}

    def compute(self, state: dict[str, np.ndarray]) -> dict[str, float]:
        return {}
