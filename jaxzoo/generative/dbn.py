"""Deep belief networks: restricted Boltzmann machines on top of each other, trained one after the other.

Hinton, Osindero and Teh 2006, A Fast Learning Algorithm for Deep Belief Nets. Reference: convert/twins/rbm.py.
"""

from collections.abc import Mapping, Sequence

import jax
from flax import nnx

from jaxzoo.errors import UsageError
from jaxzoo.generative.pixels import pixel_error
from jaxzoo.generative.rbm import RBM, Arrays, Noise
from jaxzoo.generative.registration import register_reconstruction
from jaxzoo.nn import Flatten, Linear, Sequential, Sigmoid, flatten, unflatten


class DBN(nnx.Module):
    """Restricted Boltzmann machines, each of which learns what the hidden units below it do.

    Args:
      shape: of images, (H, W, C).
      hidden: the numbers of hidden units, from below.
      chains, gibbs_steps: see `RBM`.
    """

    measures: Mapping[str, str] = {"error": ""}

    def __init__(
        self,
        shape: tuple[int, int, int],
        hidden: Sequence[int] = (256, 256),
        chains: int = 64,
        gibbs_steps: int = 1,
        *,
        rngs: nnx.Rngs,
    ):
        if not hidden:
            raise UsageError("a deep belief network needs at least one layer of hidden units")
        self.shape = tuple(shape)
        below = [self.shape, *((units,) for units in hidden)]  # and above the last one
        self.rbms = nnx.List(
            [RBM(of, units, chains, gibbs_steps, rngs=rngs) for of, units in zip(below[:-1], hidden, strict=True)]
        )

    @property
    def layers(self) -> int:
        """How many machines there are to train, one after the other."""
        return len(self.rbms)

    def encode(self, images: jax.Array, layers: int | None = None) -> jax.Array:
        """The means of the hidden units above this many machines, all unless given: (N, hidden)."""
        found = flatten(images)
        for rbm in list(self.rbms)[:layers]:
            found = rbm.hidden_means(found)
        return found

    def decode(self, code: jax.Array) -> jax.Array:
        """The way back down by means, as images."""
        for rbm in reversed(self.rbms):
            code = rbm.visible_means(code)
        return unflatten(code, self.shape)

    def __call__(self, images: jax.Array) -> Arrays:
        code = self.encode(images)
        return {"images": self.decode(code), "code": code}

    def contrastive_divergence(
        self, images: jax.Array, noise: Noise | None = None, layer: int = 0
    ) -> tuple[Arrays, Arrays]:
        """Gradients for the machine `layer`, by dotted path, given the means of the units below it; see `RBM`."""
        visible = self.encode(images, layer) if layer else images
        gradients, parts = self.rbms[layer].contrastive_divergence(visible, noise)
        return {f"rbms.{layer}.{name}": value for name, value in gradients.items()}, parts

    def scores(self, images: jax.Array, keys: jax.Array) -> Arrays:
        return {"error": pixel_error(self(images)["images"], images)}

    def sample(self, key: jax.Array, count: int, steps: int | None = None) -> jax.Array:
        """New images: Gibbs sampling in the uppermost machine, and from there down by means."""
        return self.decode(self.rbms[-1].sample_hidden(key, count, steps))

    def filters(self) -> jax.Array:
        return self.rbms[0].filters()

    def classifier(self, num_classes: int, *, rngs: nnx.Rngs) -> Sequential:
        """A network of sigmoid layers that begins with these weights: (N, H, W, C) to logits (N, num_classes)."""
        layers: list[nnx.Module] = [Flatten()]
        for rbm in self.rbms:
            hidden, visible = rbm.components.shape
            linear = Linear(visible, hidden, rngs=rngs)
            linear.kernel[...], linear.bias[...] = rbm.components[...].T, rbm.intercept_hidden[...]
            layers += [linear, Sigmoid()]
        return Sequential(*layers, Linear(hidden, num_classes, rngs=rngs))


@register_reconstruction(paper="Hinton et al. 2006, doi:10.1162/neco.2006.18.7.1527", twin="convert.twins.rbm:dbn")
def dbn(
    *,
    hidden: Sequence[int] = (256, 256),
    chains: int = 64,
    gibbs_steps: int = 1,
    image_size: int = 28,
    in_channels: int = 1,
    rngs: nnx.Rngs,
) -> DBN:
    return DBN((image_size, image_size, in_channels), hidden, chains, gibbs_steps, rngs=rngs)
