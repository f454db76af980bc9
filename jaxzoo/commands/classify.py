"""`python -m jaxzoo predict` for classifiers: the likeliest classes of images."""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from PIL import Image

from jaxzoo.cache import keep_compiled_programs
from jaxzoo.commands.annotate import annotated
from jaxzoo.commands.pictures import read_in_batches, unused
from jaxzoo.imagenet import imagenet_classes
from jaxzoo.outputs import class_logits
from jaxzoo.preprocess import Preprocess, eval_transform


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One class and how likely it is, 0–1."""

    index: int
    name: str
    probability: float


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A network with its weights, what images it wants, and the names of its classes if they are known."""

    run: Callable[[np.ndarray], jax.Array]  # (N, crop, crop, 3) to logits (N, classes)
    preprocess: Preprocess
    classes: Sequence[str] | None

    def prepare(self, picture: Image.Image) -> np.ndarray:
        return eval_transform(picture, self.preprocess)

    def logits(self, ready: Sequence[np.ndarray], size: int) -> Sequence[np.ndarray]:
        """Of prepared images, run as a batch of `size`: one program serves for a last batch that is smaller."""
        if not ready:
            return []
        blank = [np.zeros_like(ready[0])] * (size - len(ready))
        return np.asarray(self.run(np.stack([*ready, *blank])), np.float64)[: len(ready)]


def classified(
    paths: Sequence[Path],
    model: str,
    weights: str,
    *,
    top: int,
    temperature: float,
    batch_size: int,
    annotate: Path | None,
) -> dict[Path, list[Prediction]]:
    """The `top` likeliest classes of each image that can be read, printed as they are found."""
    classify = _classifier(model, weights)
    if annotate:
        annotate.mkdir()
    size = min(batch_size, len(paths))
    found: dict[Path, list[Prediction]] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for pictures in read_in_batches(paths, size, pool):
            ready = list(pool.map(classify.prepare, pictures.values()))
            for path, logits in zip(pictures, classify.logits(ready, size), strict=True):
                found[path] = _likeliest(logits, classify.classes, top, temperature)
                _show(path, found[path])
                if annotate:
                    bars = [(p.name, p.probability) for p in found[path]]
                    annotated(pictures[path], bars).save(unused(annotate / f"{path.stem}.jpg"), quality=90)
    return found


def _classifier(name: str, weights: str) -> Classifier:
    from convert.loading import load_model
    from convert.sources import read_weights
    from convert.weights import preprocess_of

    keep_compiled_programs()
    found = read_weights(name, weights)
    model, arguments = load_model(name, found)
    graph, state = nnx.split(model)
    run = jax.jit(lambda state, pixels: class_logits(nnx.merge(graph, state)(pixels)))
    return Classifier(functools.partial(run, state), preprocess_of(name, found, arguments), found.classes)


def _likeliest(logits: np.ndarray, classes: Sequence[str] | None, top: int, temperature: float) -> list[Prediction]:
    if not classes or len(classes) != len(logits):
        classes = imagenet_classes() if len(logits) == 1000 else [f"class {i}" for i in range(len(logits))]
    likely = np.exp((logits - logits.max()) / temperature)
    likely /= likely.sum()
    return [Prediction(int(i), classes[i], float(likely[i])) for i in np.argsort(-likely, kind="stable")[:top]]


def _show(path: Path, predictions: Sequence[Prediction]) -> None:
    print(path)
    for p in predictions:
        print(f"{100 * p.probability:8.2f} %  {p.name} ({p.index})")
