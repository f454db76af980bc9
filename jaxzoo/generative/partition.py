"""The normalising constant Z of a restricted Boltzmann machine: estimated, or exact for a small one."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxzoo.errors import UsageError

MOST = 20  # hidden units whose states are counted out


def annealed_log_partition(rbm: nnx.Module, key: jax.Array, steps: int = 1000, runs: int = 64) -> jax.Array:
    """log Z by annealed importance sampling (Salakhutdinov and Murray 2008).

    From the same visible biases without connections, whose Z is known, each run samples at inverse temperatures from 0
    to 1 in `steps` even steps, and weighs how much likelier its visible units become with each.

    Args:
      rbm: an `RBM`.
      runs: independent ones; the mean of their weights, exp of the result, is unbiased.
    """
    betas = jnp.linspace(0.0, 1.0, steps + 1, dtype=rbm.components.dtype)
    starting, walking = jax.random.split(key)

    def drawn(hidden: jax.Array, beta: jax.Array, key: jax.Array) -> jax.Array:
        means = rbm.visible_means(hidden, beta)
        return rbm.visible_sample(means, rbm.visible_noise(key, means.shape, means.dtype))

    def step(state: tuple[jax.Array, jax.Array], rung: tuple) -> tuple[tuple[jax.Array, jax.Array], None]:
        visible, log_weight = state
        cold, warm, key = rung
        log_weight += rbm.free_energy(visible, cold) - rbm.free_energy(visible, warm)
        hiding, seeing = jax.random.split(key)
        means = rbm.hidden_means(visible, warm)
        hidden = (jax.random.uniform(hiding, means.shape, means.dtype) < means).astype(means.dtype)
        return (drawn(hidden, warm, seeing), log_weight), None

    start = drawn(jnp.zeros((runs, len(rbm.intercept_hidden)), betas.dtype), betas[0], starting)
    rungs = (betas[:-1], betas[1:], jax.random.split(walking, steps))
    (_, log_weight), _ = jax.lax.scan(step, (start, jnp.zeros(runs, betas.dtype)), rungs)
    return rbm.log_partition_apart() + jax.nn.logsumexp(log_weight) - np.log(runs)


def exact_log_partition(rbm: nnx.Module) -> jax.Array:
    """log Z as the sum over all states of the hidden units. Raises UsageError if they are more than 20."""
    units = len(rbm.intercept_hidden)
    if units > MOST:
        raise UsageError(f"{units} hidden units have too many states to add up; at most {MOST} can be")
    states = (np.arange(2**units)[:, None] >> np.arange(units)) & 1
    return jax.nn.logsumexp(rbm.log_weight(jnp.asarray(states, rbm.components.dtype)))
