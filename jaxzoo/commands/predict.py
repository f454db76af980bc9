"""`python -m jaxzoo predict`: what is in these pictures."""

import csv as tables
import dataclasses
import functools
import json as texts
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import tyro
from flax import nnx
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from jaxzoo.cache import keep_compiled_programs
from jaxzoo.commands.annotate import annotated
from jaxzoo.errors import UsageError
from jaxzoo.imagenet import imagenet_classes
from jaxzoo.preprocess import Preprocess, eval_transform, image_files, read_image


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One class and how likely it is, 0–1."""

    index: int
    name: str
    probability: float


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A network with its weights, what images it wants, and the names of its classes if they are known."""

    run: Callable[[np.ndarray], jax.Array]  # (N, crop, crop, 3) to (N, classes)
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


def predict(
    images: tyro.conf.Positional[tuple[Path, ...]],
    /,
    model: str,
    weights: str,
    top: int = 5,
    temperature: float = 1.0,
    batch_size: int = 16,
    annotate: Path | None = None,
    json: Path | None = None,
    csv: Path | None = None,
) -> int:
    """The likeliest classes of images, with their probabilities.

    Images are prepared exactly as the weights were evaluated. Those that cannot be read are named on stderr and left
    out; the exit code is 1 then, or 2 if none could be read.

    Args:
        images: image files, and folders, which stand for all images below them.
        model: name of the model; `python -m jaxzoo list` has them all.
        weights: a .pth, .pt or .safetensors file, a converted directory, the folder of a training run, or the name of
            published weights such as DEFAULT, which is downloaded.
        top: how many classes to name for each image.
        temperature: the logits are divided by this before the softmax; above 1 it makes the model less sure.
        batch_size: images in each pass through the model.
        annotate: a new folder for a copy of each image with its classes below it.
        json: a new file for the results.
        csv: a new file for the results, one row for each class of each image.
    """
    if top < 1 or batch_size < 1 or not 0 < temperature < float("inf"):
        raise UsageError("--top and --batch-size must be at least 1, and --temperature a number above 0")
    for path in filter(None, (annotate, json, csv)):
        _check_new(path)
    paths = _paths(images)
    classify = _classifier(model, weights)
    if annotate:
        annotate.mkdir()
    size = min(batch_size, len(paths))
    found: dict[Path, list[Prediction]] = {}
    with _progress(len(paths) > size) as bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        task = bar.add_task("", total=len(paths))
        for start in range(0, len(paths), size):
            batch = paths[start : start + size]
            read = zip(batch, pool.map(_read, batch), strict=True)
            pictures = {path: picture for path, picture in read if picture}
            ready = list(pool.map(classify.prepare, pictures.values()))
            for path, logits in zip(pictures, classify.logits(ready, size), strict=True):
                found[path] = _likeliest(logits, classify.classes, top, temperature)
                _show(path, found[path])
                if annotate:
                    bars = [(p.name, p.probability) for p in found[path]]
                    annotated(pictures[path], bars).save(_unused(annotate / f"{path.stem}.jpg"), quality=90)
            bar.update(task, advance=len(batch))
    if json:
        _write_json(json, found, model=model, weights=weights, temperature=temperature)
    if csv:
        _write_csv(csv, found)
    return 0 if len(found) == len(paths) else 1 if found else 2


def _check_new(path: Path) -> None:
    if path.exists():
        raise UsageError(f"{path} exists already: remove it or choose another place")
    if not os.access(path.absolute().parent, os.W_OK):
        raise UsageError(f"there is no folder {path.parent} that {path.name} can be written to")


def _paths(images: Sequence[Path]) -> list[Path]:
    """Every image once, in the order given."""
    paths: dict[Path, None] = {}
    for path in images:
        if not path.exists():
            raise UsageError(f"there is no image or folder at {path}")
        inside = image_files(path) if path.is_dir() else [path]
        if not inside:
            raise UsageError(f"folder {path} holds no images")
        paths |= dict.fromkeys(inside)
    if not paths:
        raise UsageError("name at least one image, or a folder of them")
    return list(paths)


def _classifier(name: str, weights: str) -> Classifier:
    from convert.weights import filled, find, preprocess_of

    keep_compiled_programs()
    found = find(name, weights)
    model, arguments = filled(name, found)
    graph, state = nnx.split(model)
    run = jax.jit(lambda state, pixels: nnx.merge(graph, state)(pixels))
    return Classifier(functools.partial(run, state), preprocess_of(name, found, arguments), found.classes)


def _progress(many: bool) -> Progress:
    """A bar on stderr, if there is somebody to watch it."""
    columns = ("images", MofNCompleteColumn(), BarColumn(None), TimeRemainingColumn())
    console = Console(stderr=True)
    seen = many and console.is_terminal
    return Progress(
        *columns, console=console, transient=True, disable=not seen, redirect_stdout=sys.stdout.isatty(), expand=True
    )


def _read(path: Path) -> Image.Image | None:
    try:
        return read_image(path)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return None


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


def _unused(path: Path) -> Path:
    """The path, with a number if a picture of the same name from another folder is there already."""
    free, number = path, 1
    while free.exists():
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free


def _write_json(path: Path, found: dict[Path, list[Prediction]], **about: str | float) -> None:
    rows = [{"image": str(image), "top": [dataclasses.asdict(p) for p in top]} for image, top in found.items()]
    path.write_text(texts.dumps(about | {"images": rows}, indent=1) + "\n")


def _write_csv(path: Path, found: dict[Path, list[Prediction]]) -> None:
    with path.open("w", newline="") as file:
        writer = tables.writer(file)
        writer.writerow(["image", "rank", "index", "class", "probability"])
        for image, top in found.items():
            writer.writerows([image, rank, p.index, p.name, p.probability] for rank, p in enumerate(top, 1))
