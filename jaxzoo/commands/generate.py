"""`python -m jaxzoo generate`: new images."""

import math
from pathlib import Path

from jaxzoo.commands.pictures import check_new
from jaxzoo.errors import UsageError

SIDE = 48  # pixels that an image has at least, on the sheet


def generate(weights: str, count: int = 64, seed: int = 0, out: Path = Path("samples.png")) -> None:
    """Draw new images from a model that has learnt to, on one sheet.

    A variational autoencoder decodes codes from its prior; a restricted Boltzmann machine, alone or on top of others,
    takes 1,000 steps of Gibbs sampling.

    Args:
        weights: The folder of a training run of a vae, rbm, dbn, …, or a converted directory.
        count: Number of images.
        seed: Seed of the random numbers.
        out: PNG file to write; it must not exist.
    """
    import jax
    import numpy as np
    from flax import nnx

    from jaxzoo.commands.tasks.reconstruction import read_reconstruction
    from jaxzoo.generative.drawing import enlarged, grid

    if count < 1:
        raise UsageError(f"--count is {count}; it must be at least 1")
    check_new(out)
    name, model, preprocess = read_reconstruction(weights)
    if not hasattr(model, "sample"):
        raise UsageError(f"{name} learns to reconstruct images, not to draw new ones: vae, rbm and dbn do")
    graph, state = nnx.split(model)
    draw = jax.jit(lambda state, key: nnx.merge(graph, state).sample(key, count))
    sheet = grid(np.asarray(draw(state, jax.random.key(seed))), math.ceil(math.sqrt(count)))
    enlarged(sheet, math.ceil(SIDE / preprocess.side)).save(out)
    print(f"{count} images of {name}: {out}")
