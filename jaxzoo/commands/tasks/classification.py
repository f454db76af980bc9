"""Classifiers: the likeliest classes of images."""

import dataclasses
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax.tree_util import Partial
from PIL import Image

from jaxzoo.commands.annotate import annotated
from jaxzoo.commands.pictures import read_in_batches, unused
from jaxzoo.commands.tasks import TOP, Network, PredictOptions, Target, View, load_network, refuse
from jaxzoo.errors import UsageError
from jaxzoo.imagenet import imagenet_classes
from jaxzoo.inspect import class_score
from jaxzoo.outputs import class_logits
from jaxzoo.preprocess import Preprocess, normalised, resize_and_crop


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One class and how likely it is, 0–1."""

    index: int
    name: str
    probability: float


def described(preprocess: Preprocess) -> str:
    return preprocess.described()


def example_labels(inputs: jax.Array, classes: int, generator: np.random.Generator) -> np.ndarray:
    return generator.integers(0, classes, len(inputs), np.int32)


def check(model: str, options: PredictOptions) -> None:
    refuse(model, options, "out", "crf", "score", "max_detections", "canvas")


def predict(
    paths: Sequence[Path], model: str, weights: str, options: PredictOptions
) -> dict[Path, Sequence[Prediction]]:
    """The likeliest classes of each image that can be read, printed as they are found."""
    network = load_network(model, weights, class_logits)
    if options.annotate:
        options.annotate.mkdir()
    size = min(options.batch_size, len(paths))
    found: dict[Path, Sequence[Prediction]] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for pictures in read_in_batches(paths, size, pool):
            ready = list(pool.map(network.preprocess, pictures.values()))
            for path, logits in zip(pictures, _logits(network, ready, size), strict=True):
                found[path] = _likeliest(logits, network.classes, options.top or TOP, options.temperature or 1.0)
                _show(path, found[path])
                if options.annotate:
                    bars = [(p.name, p.probability) for p in found[path]]
                    target = unused(options.annotate / f"{path.stem}.jpg")
                    annotated(pictures[path], bars).save(target, quality=90)
    return found


def _logits(network: Network, ready: Sequence[np.ndarray], size: int) -> Sequence[np.ndarray]:
    """Of prepared images, run as a batch of `size`: one program serves for a last batch that is smaller."""
    if not ready:
        return []
    blank = [np.zeros_like(ready[0])] * (size - len(ready))
    return np.asarray(network.run(np.stack([*ready, *blank])), np.float64)[: len(ready)]


def _likeliest(logits: np.ndarray, classes: Sequence[str] | None, top: int, temperature: float) -> list[Prediction]:
    classes = class_names(classes, len(logits))
    likely = np.exp((logits - logits.max()) / temperature)
    likely /= likely.sum()
    return [Prediction(int(i), classes[i], float(likely[i])) for i in np.argsort(-likely, kind="stable")[:top]]


def class_names(known: Sequence[str] | None, count: int) -> Sequence[str]:
    count = max(count, 2)  # a single logit is of two classes
    if known and len(known) == count:
        return known
    return imagenet_classes() if count == 1000 else [f"class {i}" for i in range(count)]


def view(model: nnx.Module, preprocess: Preprocess, picture: Image.Image) -> View:
    return View((normalised(seen := resize_and_crop(picture, preprocess), preprocess)[None],), seen)


def targets(outputs: jax.Array, names: Sequence[str], labels: Sequence[int], box: np.ndarray | None) -> list[Target]:
    if box is not None:
        raise UsageError("--box is for detection and segmentation; a classifier's score is that of the whole image")
    likely = np.asarray(jax.nn.softmax(class_logits(outputs)[0]))
    return [
        Target(f"{names[i]} ({i}) {100 * likely[i]:.1f} %", Partial(class_score, label=np.int32(i)))
        for i in labels or [int(likely.argmax())]
    ]


def _show(path: Path, predictions: Sequence[Prediction]) -> None:
    print(path)
    for p in predictions:
        print(f"{100 * p.probability:8.2f} %  {p.name} ({p.index})")
