"""Restricted Boltzmann machines.

Smolensky 1986; Hinton 2002, Training Products of Experts by Minimizing Contrastive Divergence; Tieleman 2008, Training
Restricted Boltzmann Machines using Approximations to the Likelihood Gradient. Reference: convert/twins/rbm.py, and
scikit-learn's `BernoulliRBM`, whose names the parameters bear, without the underscore at their end.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxzoo.errors import UsageError
from jaxzoo.generative.partition import annealed_log_partition
from jaxzoo.generative.pixels import per_image, pixel_error
from jaxzoo.generative.registration import register_reconstruction
from jaxzoo.nn import IndexBuffer, flatten, init, unflatten
from jaxzoo.nn.dropout import Stream

Arrays = dict[str, jax.Array]
Noise = Mapping[str, jax.Array]

WARM_UP = 1000  # Gibbs steps to a sample
TEMPERATURES, RUNS = 1000, 64  # of annealed importance sampling in an evaluation


class RBM(nnx.Module):
    """Binary visible and hidden units: E(v, h) = -b·v - c·h - hᵀWv.

    Leaves: components W (hidden, visible), intercept_hidden c (hidden,), intercept_visible b (visible,), and with
    persistent contrastive divergence chains (chains, hidden), the states of hidden units 0 and 1 where they go on.

    Args:
      shape: of the visible units: (H, W, C), which lie in torch's order C·H·W, or (units,).
      hidden: number of hidden units.
      chains: number of persistent chains; 0 trains by CD-k, whose chains begin at the data.
      gibbs_steps: the k of CD-k and of its persistent form.
    """

    measures: Mapping[str, str] = {"nll": "nats", "error": ""}

    def __init__(
        self, shape: tuple[int, ...], hidden: int = 256, chains: int = 64, gibbs_steps: int = 1, *, rngs: nnx.Rngs
    ):
        if gibbs_steps < 1 or chains < 0:
            raise UsageError(f"gibbs_steps is {gibbs_steps} and chains {chains}; at least 1 step and 0 chains can be")
        self.shape, self.gibbs_steps = tuple(shape), gibbs_steps
        units = math.prod(shape)
        self.components = nnx.Param(init.normal(0.01)(rngs.params(), (hidden, units), jnp.float32))
        self.intercept_hidden = nnx.Param(jnp.zeros(hidden, jnp.float32))
        self.intercept_visible = nnx.Param(jnp.zeros(units, jnp.float32))
        self.chains = IndexBuffer(jnp.zeros((chains, hidden), jnp.int32)) if chains else None
        self.sampling = Stream(rngs.sampling(), tag="sampling")

    # Conditional distributions. An inverse temperature `beta` below 1 weakens what visible and hidden units have to do
    # with each other, down to independent visible units and hidden ones of even chances.

    def hidden_means(self, visible: jax.Array, beta: float = 1.0) -> jax.Array:
        """p(h = 1 | v): (N, visible) to (N, hidden)."""
        return jax.nn.sigmoid(beta * self.hidden_inputs(visible))

    def hidden_inputs(self, visible: jax.Array) -> jax.Array:
        return visible @ self.components[...].T + self.intercept_hidden[...]

    def visible_means(self, hidden: jax.Array, beta: float = 1.0) -> jax.Array:
        """The means of v given h: (N, hidden) to (N, visible)."""
        return jax.nn.sigmoid(beta * (hidden @ self.components[...]) + self.intercept_visible[...])

    def visible_sample(self, means: jax.Array, noise: jax.Array) -> jax.Array:
        """v with these means, by uniform noise."""
        return (noise < means).astype(means.dtype)

    def visible_noise(self, key: jax.Array, shape: tuple[int, ...], dtype) -> jax.Array:
        return jax.random.uniform(key, shape, dtype)

    def free_energy(self, visible: jax.Array, beta: float = 1.0) -> jax.Array:
        """F(v) = -log Σ_h exp(-E(v, h)): (N, visible) to (N,) nats; p(v) = exp(-F(v)) / Z."""
        return -visible @ self.intercept_visible[...] - self._softplus(visible, beta)

    def _softplus(self, visible: jax.Array, beta: float) -> jax.Array:
        return jnp.logaddexp(0, beta * self.hidden_inputs(visible)).sum(-1)

    def statistics(self, visible: jax.Array) -> Arrays:
        """-∂F/∂θ for every parameter, added up over (N, visible), with the hidden units' means."""
        means = self.hidden_means(visible)
        return {
            "components": means.T @ visible,
            "intercept_hidden": means.sum(0),
            "intercept_visible": self.visible_statistics(visible),
        }

    def visible_statistics(self, visible: jax.Array) -> jax.Array:
        return visible.sum(0)

    # For annealed importance sampling, and its test

    def log_partition_apart(self) -> jax.Array:
        """log Z at the inverse temperature 0."""
        return len(self.intercept_hidden) * math.log(2) + jnp.logaddexp(0, self.intercept_visible[...]).sum()

    def log_weight(self, hidden: jax.Array) -> jax.Array:
        """log Σ_v exp(-E(v, h)): (N, hidden) to (N,); an integral for visible units that are no binary ones."""
        inputs = hidden @ self.components[...] + self.intercept_visible[...]
        return hidden @ self.intercept_hidden[...] + jnp.logaddexp(0, inputs).sum(-1)

    # Images

    def flat(self, images: jax.Array) -> jax.Array:
        return flatten(images) if len(self.shape) == 3 else images

    def unflat(self, visible: jax.Array) -> jax.Array:
        return unflatten(visible, self.shape) if len(self.shape) == 3 else visible

    def __call__(self, images: jax.Array) -> Arrays:
        """Reconstructions by the means of the hidden units, and these means as the code."""
        code = self.hidden_means(self.flat(images))
        return {"images": self.unflat(self.visible_means(code)), "code": code}

    def contrastive_divergence(self, images: jax.Array, noise: Noise | None = None) -> tuple[Arrays, Arrays]:
        """Gradients by parameter and parts for curves, see the function of this name; persistent chains move on."""
        visible = self.flat(images)
        noise = self.noise(self.sampling(), visible) if noise is None else noise
        persistent = self.chains is not None
        if persistent:
            chains = self.chains.get_value().astype(visible.dtype)
        else:
            chains = (noise["start"] < self.hidden_means(visible)).astype(visible.dtype)
        gradients, ends = contrastive_divergence(self, visible, chains, noise)
        if persistent:
            self.chains.set_value(ends.hidden.astype(jnp.int32))
        gap = self.free_energy(visible).mean() - self.free_energy(ends.visible).mean()
        return gradients, {"free_energy_gap": gap}

    def noise(self, key: jax.Array, visible: jax.Array) -> Noise:
        """Of an update for these visible units: see `gibbs`; `start` (N, hidden) draws where CD-k begins."""
        rows = len(visible) if self.chains is None else len(self.chains.get_value())
        starting, walking = jax.random.split(key)
        start = {"start": jax.random.uniform(starting, (len(visible), len(self.intercept_hidden)), visible.dtype)}
        return start | gibbs_noise(self, walking, (self.gibbs_steps, rows), visible.dtype)

    def scores(self, images: jax.Array, keys: jax.Array) -> Arrays:
        """Free energies as "nll", which lack `offsets`, and the error of reconstructions."""
        return {
            "nll": self.free_energy(self.flat(images)),
            "error": pixel_error(self(images)["images"], images),
        }

    def offsets(self, key: jax.Array) -> Arrays:
        """What the mean of a score lacks: log Z, by annealed importance sampling."""
        return {"nll": annealed_log_partition(self, key, TEMPERATURES, RUNS)}

    def sample(self, key: jax.Array, count: int, steps: int | None = None) -> jax.Array:
        """New images: means of visible units after 1,000 `steps` of Gibbs sampling, from persistent chains on."""
        return self.unflat(self.visible_means(self.sample_hidden(key, count, steps)))

    def sample_hidden(self, key: jax.Array, count: int, steps: int | None = None) -> jax.Array:
        starting, walking = jax.random.split(key)
        if self.chains is None:
            hidden = jax.random.bernoulli(starting, 0.5, (count, len(self.intercept_hidden)))
        else:
            hidden = jax.random.choice(starting, self.chains.get_value(), (count,))

        def step(hidden: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
            return gibbs(self, hidden, gibbs_noise(self, key, (1, count), hidden.dtype)).hidden, None

        hidden = hidden.astype(self.components.dtype)
        return jax.lax.scan(step, hidden, jax.random.split(walking, steps or WARM_UP))[0]

    def filters(self) -> jax.Array:
        """The weights of each hidden unit, as images (hidden, H, W, C)."""
        return self.unflat(self.components[...])


class GaussianRBM(RBM):
    """Normal visible units of standard deviation σ: E(v, h) = |v - b|² / 2σ² - c·h - hᵀWv / σ (Hinton 2012, §13.2)."""

    def __init__(
        self,
        shape: tuple[int, ...],
        hidden: int = 256,
        chains: int = 64,
        gibbs_steps: int = 1,
        sigma: float = 0.3,
        *,
        rngs: nnx.Rngs,
    ):
        if sigma <= 0:
            raise UsageError(f"sigma is {sigma}; it must be above 0")
        super().__init__(shape, hidden, chains, gibbs_steps, rngs=rngs)
        self.sigma = sigma

    def hidden_inputs(self, visible: jax.Array) -> jax.Array:
        return super().hidden_inputs(visible / self.sigma)

    def visible_means(self, hidden: jax.Array, beta: float = 1.0) -> jax.Array:
        return self.intercept_visible[...] + beta * self.sigma * (hidden @ self.components[...])

    def visible_sample(self, means: jax.Array, noise: jax.Array) -> jax.Array:
        return means + self.sigma * noise

    def visible_noise(self, key: jax.Array, shape: tuple[int, ...], dtype) -> jax.Array:
        return jax.random.normal(key, shape, dtype)

    def free_energy(self, visible: jax.Array, beta: float = 1.0) -> jax.Array:
        distance = per_image(jnp.square(visible - self.intercept_visible[...]))
        return distance / (2 * self.sigma**2) - self._softplus(visible, beta)

    def statistics(self, visible: jax.Array) -> Arrays:
        found = super().statistics(visible)
        return found | {"components": found["components"] / self.sigma}

    def visible_statistics(self, visible: jax.Array) -> jax.Array:
        return (visible - self.intercept_visible[...]).sum(0) / self.sigma**2

    def log_partition_apart(self) -> jax.Array:
        hidden, visible = self.components.shape
        return jnp.asarray(hidden * math.log(2) + visible / 2 * math.log(2 * math.pi * self.sigma**2))

    def log_weight(self, hidden: jax.Array) -> jax.Array:
        moved = hidden @ self.components[...]
        shifted = jnp.square(moved).sum(-1) / 2 + moved @ self.intercept_visible[...] / self.sigma
        integral = moved.shape[-1] / 2 * math.log(2 * math.pi * self.sigma**2)
        return hidden @ self.intercept_hidden[...] + shifted + integral


class Walk(NamedTuple):
    """Where Gibbs sampling is: visible (M, visible), hidden (M, hidden), and the means that `hidden` is drawn with."""

    visible: jax.Array
    hidden: jax.Array
    hidden_means: jax.Array


def gibbs_noise(rbm: RBM, key: jax.Array, steps_and_rows: tuple[int, int], dtype=jnp.float32) -> Noise:
    """Of `gibbs`: `visible` (steps, M, visible) and `hidden` (steps, M, hidden)."""
    seeing, hiding = jax.random.split(key)
    hidden, visible = rbm.components.shape
    return {
        "visible": rbm.visible_noise(seeing, (*steps_and_rows, visible), dtype),
        "hidden": jax.random.uniform(hiding, (*steps_and_rows, hidden), dtype),
    }


def gibbs(rbm: RBM, hidden: jax.Array, noise: Noise) -> Walk:
    """Gibbs sampling from hidden states (M, hidden): v given h, then h given v, for each step that `noise` has."""
    for seeing, hiding in zip(noise["visible"], noise["hidden"], strict=True):
        visible = rbm.visible_sample(rbm.visible_means(hidden), seeing)
        means = rbm.hidden_means(visible)
        hidden = (hiding < means).astype(means.dtype)
    return Walk(visible, hidden, means)


def contrastive_divergence(rbm: RBM, visible: jax.Array, chains: jax.Array, noise: Noise) -> tuple[Arrays, Walk]:
    """What to descend along to make `visible` likelier, and where the chains are after their steps.

    These are no gradients of a function. They estimate those of the mean of -log p(v): the mean statistics of the
    chains' last samples minus those of the data. (scikit-learn divides both sums by N, also where M is larger, as in a
    last batch that is short.)

    Args:
      visible: data (N, visible).
      chains: hidden states (M, hidden): drawn given the data (CD-k), or where the last update left them (persistent).
      noise: see `gibbs`; as many steps as it has.
    """
    walk = gibbs(rbm, chains, noise)
    found, wanted = rbm.statistics(walk.visible), rbm.statistics(visible)
    return {name: found[name] / len(chains) - wanted[name] / len(visible) for name in wanted}, walk


@register_reconstruction(paper="Hinton 2002, doi:10.1162/089976602760128018", twin="convert.twins.rbm:rbm")
def rbm(
    *,
    hidden: int = 256,
    chains: int = 64,
    gibbs_steps: int = 1,
    image_size: int = 28,
    in_channels: int = 1,
    rngs: nnx.Rngs,
) -> RBM:
    return RBM((image_size, image_size, in_channels), hidden, chains, gibbs_steps, rngs=rngs)


@register_reconstruction(paper="Hinton 2012, doi:10.1007/978-3-642-35289-8_32", twin="convert.twins.rbm:gaussian_rbm")
def gaussian_rbm(
    *,
    hidden: int = 256,
    chains: int = 64,
    gibbs_steps: int = 1,
    sigma: float = 0.3,
    image_size: int = 28,
    in_channels: int = 1,
    rngs: nnx.Rngs,
) -> GaussianRBM:
    shape = (image_size, image_size, in_channels)
    return GaussianRBM(shape, hidden, chains, gibbs_steps, sigma=sigma, rngs=rngs)
