"""Segmentation: the class of each pixel."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.tree_util import Partial
from PIL import Image

from jaxzoo import voc
from jaxzoo.commands.pictures import others_go_on, read_in_batches, unused
from jaxzoo.commands.tasks import TOP, PredictOptions, Target, View, load_network, refuse
from jaxzoo.crf import mean_field
from jaxzoo.errors import UsageError
from jaxzoo.inspect import pixel_score
from jaxzoo.nn import resize
from jaxzoo.outputs import class_logits
from jaxzoo.preprocess import Preprocess, normalised
from jaxzoo.registry import card

COARSEST = 32  # height and width are multiples of this for networks that refuse others


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One class and how much of the image it covers, 0–1."""

    index: int
    name: str
    share: float


@dataclasses.dataclass(frozen=True)
class Segmenter:
    """A network with its weights, the preparation of its images, and the names of its classes."""

    run: Callable[[jax.Array], jax.Array]  # (1, h, w, 3) to logits (1, h, w, classes)
    preprocess: Preprocess
    classes: Sequence[str]

    def mask(self, picture: Image.Image, temperature: float, crf: bool) -> np.ndarray:
        """Classes (H, W) uint8, at the image's own size."""
        seen = resized(self.run, self.preprocess, picture)
        logits = self.run(jnp.asarray(normalised(seen, self.preprocess)[None]))
        own = picture.size[::-1]
        if crf:
            # Its distances are pixels of photographs as large as VOC's: larger ones are refined as they were seen.
            place = min(picture, seen, key=lambda p: p.width * p.height)
            likely = jax.nn.softmax(resize(logits, place.size[::-1], mode="bilinear")[0] / temperature)
            logits = mean_field(likely, np.asarray(place))[None]
        return np.asarray(_likeliest(logits, own)).astype(np.uint8)


def resized(run: Callable[[jax.Array], Any], preprocess: Preprocess, picture: Image.Image) -> Image.Image:
    """An image in the size at which the network sees it: its own, or the shorter side as the weights were evaluated,
    where the network takes that, else the nearest multiples of 32.
    """
    short = preprocess.crop if preprocess.resize is None else preprocess.resize
    size = tuple(int(short * side / min(picture.size)) if short else side for side in picture.size)
    try:
        jax.eval_shape(run, jax.ShapeDtypeStruct((1, *size[::-1], 3), jnp.float32))
    except UsageError:
        size = tuple(max(1, round(side / COARSEST)) * COARSEST for side in size)
    how = getattr(Image.Resampling, preprocess.interpolation.upper())
    return picture.resize(size, how) if size != picture.size else picture


def described(preprocess: Preprocess) -> str:
    return preprocess.described(crops=False)


def example_labels(inputs: jax.Array, classes: int, generator: np.random.Generator) -> np.ndarray:
    return generator.integers(0, classes, inputs.shape[:3], np.int32)


@functools.partial(jax.jit, static_argnums=1)
def _likeliest(logits: jax.Array, size: tuple[int, int]) -> jax.Array:
    return resize(logits, size, mode="bilinear")[0].argmax(-1)


def check(model: str, options: PredictOptions) -> None:
    refuse(model, options, "score", "max_detections", "canvas")
    if options.annotate or not options.out:
        raise UsageError(f"{model} is for segmentation: --out FOLDER (not --annotate) is where its pictures go")


def predict(
    paths: Sequence[Path], model: str, weights: str, options: PredictOptions
) -> dict[Path, Sequence[Prediction]]:
    """The classes that cover most of each image that can be read, printed as they are found.

    Writes into the new folder `options.out`, for each image NAME: NAME.png, whose palette indices are the classes, and
    NAME-overlay.jpg, their colours over the image with a legend.
    """
    network = _segmenter(model, weights)
    options.out.mkdir()
    found: dict[Path, Sequence[Prediction]] = {}
    with ThreadPoolExecutor(1) as pool:
        for pictures in read_in_batches(paths, 1, pool):
            for path, picture in pictures.items():
                with others_go_on(path):
                    mask = network.mask(picture, options.temperature or 1.0, options.crf)
                    found[path] = _predictions(mask, network.classes)[: options.top or TOP]
                    _show(path, found[path])
                    target = unused(options.out / f"{path.stem}.png")
                    voc.colored(mask).save(target)
                    overlaid(picture, mask, network.classes).save(
                        target.with_name(f"{target.stem}-overlay.jpg"), quality=90
                    )
    return found


def overlaid(picture: Image.Image, mask: np.ndarray, classes: Sequence[str]) -> Image.Image:
    """The image with its classes' colours, and a legend of those in it below, largest first."""
    image = Image.fromarray(voc.overlay(np.asarray(picture), mask))
    width = max(image.width, 240)
    legend = voc.legend(classes, width, [part.index for part in _predictions(mask, classes)])
    sheet = Image.new("RGB", (width, image.height + legend.height), "white")
    sheet.paste(image, ((width - image.width) // 2, 0))
    sheet.paste(legend, (0, image.height))
    return sheet


def _logits_of(outputs: jax.Array | dict[str, jax.Array]) -> jax.Array:
    return class_logits(next(iter(outputs.values())) if isinstance(outputs, dict) else outputs)


def _segmenter(name: str, weights: str) -> Segmenter:
    network = load_network(name, weights, _logits_of)
    count = jax.eval_shape(network.run, card(name).example_inputs(1, 4 * COARSEST)).shape[-1]
    if count > voc.IGNORED:
        raise UsageError(f"{name} with {weights} has {count} classes; a palette image holds {voc.IGNORED}")
    return Segmenter(network.run, network.preprocess, class_names(network.classes, count))


def class_names(known: Sequence[str] | None, count: int) -> Sequence[str]:
    count = max(count, 2)  # a single logit is of two classes
    if known and len(known) == count:
        return known
    return voc.VOC_CLASSES if count == len(voc.VOC_CLASSES) else [f"class {i}" for i in range(count)]


def view(model: nnx.Module, preprocess: Preprocess, picture: Image.Image) -> View:
    seen = resized(model, preprocess, picture)
    return View((normalised(seen, preprocess)[None],), seen)


def targets(
    outputs: jax.Array | dict[str, jax.Array], names: Sequence[str], labels: Sequence[int], box: np.ndarray | None
) -> list[Target]:
    """Of these classes, or else of the one that covers most, but for the first, the background, if there is another;
    inside a box if there is one."""
    mask = np.asarray(_logits_of(outputs)[0].argmax(-1))
    region = np.ones(mask.shape, bool)
    if box is not None:
        y, x = np.ogrid[: mask.shape[0], : mask.shape[1]]
        x1, y1, x2, y2 = box
        region = (x1 <= x + 0.5) & (x + 0.5 <= x2) & (y1 <= y + 0.5) & (y + 0.5 <= y2)
        if not region.any():
            raise UsageError(f"no pixel is in --box {' '.join(f'{side:g}' for side in box)}, as the network sees it")
    counts = np.bincount(mask[region], minlength=len(names))
    usual = int(counts[1:].argmax()) + 1 if counts[1:].any() else 0
    where = "" if box is None else " in the box"
    return [
        Target(
            f"{names[i]} ({i}), {100 * counts[i] / region.sum():.1f} % of the pixels{where}",
            Partial(pixel_score, label=np.int32(i), region=region),
            box,
        )
        for i in labels or [usual]
    ]


def _predictions(mask: np.ndarray, classes: Sequence[str]) -> list[Prediction]:
    counts = np.bincount(mask.ravel(), minlength=len(classes))
    order = np.argsort(-counts, kind="stable")
    return [Prediction(int(i), classes[i], float(counts[i] / mask.size)) for i in order if counts[i]]


def _show(path: Path, parts: Sequence[Prediction]) -> None:
    print(path)
    for part in parts:
        print(f"{100 * part.share:8.2f} %  {part.name} ({part.index})")
