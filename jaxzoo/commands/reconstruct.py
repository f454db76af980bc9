"""`python -m jaxzoo reconstruct`: images as an autoencoder sees them, such as noisy ones without their noise."""

from pathlib import Path

import tyro

from jaxzoo.commands.pictures import check_new, image_paths, read_in_batches, unused
from jaxzoo.errors import UsageError


def reconstruct(
    images: tyro.conf.Positional[tuple[Path, ...]], /, weights: str, out: Path, batch_size: int = 64
) -> int:
    """Reconstruct images, which takes noise away from them if the model has learnt that.

    Each is resized as the model takes it. Those that cannot be read are named on stderr and left out; the exit code is
    1 then, or 2 if none could be read.

    Args:
        images: Image files, or folders, of which all images are taken, subfolders too.
        weights: The folder of a training run of a denoising_autoencoder, vae, …, or a converted directory.
        out: New folder for the reconstruction of each image, NAME.png.
        batch_size: Images per forward pass.
    """
    import os
    from concurrent.futures import ThreadPoolExecutor

    import jax
    import numpy as np
    from flax import nnx

    from jaxzoo.commands.tasks.reconstruction import read_reconstruction
    from jaxzoo.generative.drawing import pictures

    if batch_size < 1:
        raise UsageError(f"--batch-size is {batch_size}; it must be at least 1")
    check_new(out)
    paths = image_paths(images)
    _, model, preprocess = read_reconstruction(weights)
    graph, state = nnx.split(model)
    run = jax.jit(lambda state, images: nnx.merge(graph, state)(images)["images"])
    out.mkdir()
    done, size = 0, min(batch_size, len(paths))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for found in read_in_batches(paths, size, pool):
            ready = [preprocess(image) for image in found.values()]
            if not ready:
                continue
            blank = [np.zeros_like(ready[0])] * (size - len(ready))
            results = np.asarray(run(state, np.stack([*ready, *blank])))[: len(ready)]
            for path, image, result, picture in zip(found, ready, results, pictures(results), strict=True):
                target = unused(out / f"{path.stem}.png")
                picture.save(target)
                print(f"{path}: squared error of a pixel {np.square(result - image).mean():.4f}, {target}")
                done += 1
    return 0 if done == len(paths) else 1 if done else 2
