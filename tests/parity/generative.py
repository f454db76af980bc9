"""Models that generate and their twins: pixels from 0 to 1, and the noise that both sides are given."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

import jaxzoo
from tests.parity import ladder

CHANNELS = 3  # so that the order of pixels counts
STRONGER = 20  # times the weights of a machine, whose units would otherwise be even


class GenerativePair(ladder.Pair):
    """A model and its twin in float64, with the same numbers. Labels are the noise of a step."""

    def arguments(self, name: str) -> dict:
        return {"in_channels": CHANNELS}

    @torch.no_grad()
    def randomise(self) -> None:
        super().randomise()
        generator = torch.Generator().manual_seed(1)
        for key, tensor in self.twin.state_dict().items():
            if key.endswith("components"):
                tensor *= STRONGER
            elif key.endswith("chains"):
                tensor.random_(2, generator=generator)

    @staticmethod
    def first_size(name: str) -> tuple[int, int]:
        return (jaxzoo.card(name).input_size,) * 2

    def inputs(self, seed: int = 0, size: tuple[int, int] | None = None, batch: int | None = None) -> tuple:
        shape = (batch or self.batch, *(size or self.size), CHANNELS)
        return (np.random.default_rng(seed).uniform(size=shape),)

    def labels(self, seed: int) -> Any:
        """Noise as the model draws it, for each machine where it has several."""
        images, key = jnp.asarray(self.inputs()[0]), jax.random.key(seed)
        model = self.model
        if hasattr(model, "rbms"):
            found = [rbm.noise(key, model.encode(images, i)) for i, rbm in enumerate(model.rbms)]
        elif hasattr(model, "contrastive_divergence"):
            found = model.noise(key, model.flat(images))
        elif hasattr(model, "posterior"):
            found = jax.random.normal(key, (self.batch, model.code))
        else:
            found = model.noise(key, images) if hasattr(model, "noise") else jnp.zeros(())
        return jax.tree.map(np.asarray, found)

    def losses(self, model: nnx.Module, inputs: tuple, labels) -> tuple[dict, dict]:
        if not hasattr(model, "contrastive_divergence"):
            losses = model.losses(*inputs, labels)
            return losses, losses
        if hasattr(model, "rbms"):
            found = [model.contrastive_divergence(*inputs, labels[i], layer=i) for i in range(model.layers)]
        else:
            found = [model.contrastive_divergence(*inputs, labels)]
        gradients = {name: value for part, _ in found for name, value in part.items()}
        params = {".".join(map(str, path)): p.get_value() for path, p in nnx.to_flat_state(nnx.state(model, nnx.Param))}
        # A function that has these gradients.
        losses = {name: (jax.lax.stop_gradient(value) * params[name]).sum() for name, value in gradients.items()}
        return losses, {str(i): parts["free_energy_gap"] for i, (_, parts) in enumerate(found)} | chains(model)

    def twin_losses(self, inputs: tuple, labels) -> tuple[dict, dict[str, np.ndarray]]:
        for key, tensor in self.twin.state_dict().items():
            if key.endswith("chains"):  # begin anew, as ours do
                tensor.copy_(torch.from_numpy(self._start[key]))
        noise = jax.tree.map(torch.from_numpy, jax.tree.map(np.array, labels))
        noise = noise.movedim(-1, 1) if isinstance(noise, torch.Tensor) and noise.ndim == 4 else noise
        losses = self.twin.losses(*map(ladder.as_torch, inputs), noise)
        if not hasattr(self.model, "contrastive_divergence"):
            return losses, {name: loss.detach().numpy() for name, loss in losses.items()}
        found = {str(i): loss.detach().numpy() for i, loss in enumerate(losses.values())}
        return losses, found | {k: v.numpy() for k, v in self.twin.state_dict().items() if k.endswith("chains")}

    def total(self, losses: dict):
        return sum(losses.values())


def chains(model: nnx.Module) -> dict[str, jax.Array]:
    """Where the chains of machines are, by path."""
    state = nnx.to_flat_state(nnx.state(model, jaxzoo.nn.Buffer))
    return {".".join(map(str, path)): variable.get_value() for path, variable in state}
