"""A class for every pixel: cross-entropy over labelled pixels, exact counts of confusions, intersection over union."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.tree_util import Partial
from PIL import Image

from jaxzoo.inspect import pixel_score
from jaxzoo.inspect.cam import Score
from jaxzoo.nn import resize
from jaxzoo.outputs import class_logits
from jaxzoo.preprocess import Preprocess
from jaxzoo.voc import IGNORED
from train.augment.device import flipped, normalised
from train.augment.host import color_jitter
from train.config.options import Augmentation, Config, Detection, stages
from train.data import Data, masks
from train.data.batches import Bucket
from train.metrics import LOSS, States
from train.metrics.mean_iou import KeptImages, PixelScores, confusions, mean_iou, whole
from train.reporting import segments
from train.reporting.batch import denormalised
from train.reporting.contact_sheet import Tile, draw_sheet
from train.tasks import Batch, Outputs, Parts, Task
from train.tasks.images import head_words, line_of, model_arguments, preparation  # noqa: F401

BATCH_SIZE = 16
DEMO_EPOCHS, DEMO_LR_SCALE = 15, 2.0
# They move pixels without their classes, mix labels of whole images, or remember features of one size.
INAPPLICABLE_OPTIONS = {
    *(field.name for of in (Augmentation, Detection) for field in dataclasses.fields(of)),
    "cache_features",
} - {"flip", "color_jitter", "repeats"}

SHOWN = 32  # images of a first batch that are drawn
LIGHTER = 4  # times more pixels fit in memory without gradients
PADDING = 32  # networks need multiples of it, of images that are looked at in other sizes


@dataclasses.dataclass(frozen=True)
class SegmentationAugmentation:
    """What training makes of image and mask together; without arguments, nothing.

    `scale` is the range of the random factor by which both are enlarged before they are cropped; `flip` mirrors half of
    them; `color_jitter` is brightness, contrast, saturation and hue of the image, as in torchvision's ColorJitter.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    flip: bool = False
    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)


PLAIN = SegmentationAugmentation()


def tasks_of(config: Config, data: Data, preprocess: Preprocess) -> list[Task]:
    """As it evaluates, and then for each stage of training, which differ in the size of crops."""
    augmentation = SegmentationAugmentation(
        config.scale or usual_scale(data), config.flip == "yes", config.color_jitter
    )
    canvases = masks.canvases(data.held_out)

    def task(size: int) -> Task:
        return Segmentation(
            data.classes,
            dataclasses.replace(preprocess, crop=size, resize=0),
            canvases=canvases,
            augmentation=augmentation,
            aux_weight=config.aux_weight,
            label_smoothing=config.label_smoothing,
            scales=config.eval_scales,
            mirrored=config.eval_flip,
            dtype=jnp.dtype(config.precision),
        )

    return [*map(task, [preprocess.crop, *(stages(config) or [config.train_size or preprocess.crop])])]


def usual_options(data: Data, side: int) -> dict[str, Any]:
    """Options that nobody gave, by name."""
    return {"flip": "yes" if data.photographs else "no", "label_smoothing": 0.0}


def augmentation_line(asked: Config, config: Config, data: Data, side: int) -> str:
    """What training images go through."""
    low, high = config.scale or usual_scale(data)
    return line_of(config, [f"scaled by {low:g} to {high:g}", "cropped"])


def usual_scale(data: Data) -> tuple[float, float]:
    """The factors by which training enlarges images unless others are given: less of those that come with jaxzoo."""
    return (0.8, 1.25) if data.image_size else (0.5, 2.0)


class Segmentation(Task):
    """Batches are `image` (N, H, W, 3) uint8 RGB and `target` (N, H, W) uint8: classes, 255 where none counts.

    Training images are random crops of S x S pixels, S being `preprocess.crop`. Held-out images are looked at in their
    own size, in the upper left of a canvas that those of like sizes fit on; what is left of it does not count. A
    network returns logits of the image's size by name: what comes first counts, and in training the others too,
    `aux_weight` times. Two classes may share one logit, see `jaxzoo.outputs`.

    Args:
      preprocess: of it `crop`, `mean` and `std` are used.
      canvases: for the held-out images, see `train.data.masks.canvases`.
      aux_weight: the model's own unless given.
      scales: evaluation averages the probabilities that the model sees in the image at these sizes, times its own.
      mirrored: and in the image mirrored left to right.
    """

    metric = "miou"
    quantities = {"loss": LOSS}

    def __init__(
        self,
        classes: list[str],
        preprocess: Preprocess,
        *,
        canvases: Sequence[masks.Canvas],
        augmentation: SegmentationAugmentation = PLAIN,
        aux_weight: float | None = None,
        label_smoothing: float = 0.0,
        scales: Sequence[float] = (1.0,),
        mirrored: bool = False,
        dtype: jnp.dtype = jnp.float32,
    ):
        self.classes, self.preprocess, self.canvases, self.augmentation = classes, preprocess, canvases, augmentation
        self.aux_weight, self.label_smoothing = aux_weight, label_smoothing
        self.scales, self.mirrored, self.dtype = tuple(scales), mirrored, dtype
        self.fill = masks.mean_color(tuple(preprocess.mean))
        self.training_metrics = {"pixels": PixelScores(len(classes), jnp.promote_types(dtype, jnp.float32))}
        largest = tuple(max(sides) for sides in zip(*(canvas.size for canvas in canvases), strict=True))
        kept = {kind: KeptImages(kind, largest) for kind in ("first", "worst")}
        self.evaluation_metrics = self.training_metrics | kept

    def training_example(self, item: masks.Item, rng: np.random.Generator) -> Batch:
        wanted, side = self.augmentation, self.preprocess.crop
        image, mask = masks.rescaled(*item, rng.uniform(*wanted.scale))
        if any(wanted.color_jitter):
            image = color_jitter(image, rng, *wanted.color_jitter)
        pixels, target = masks.random_window(image, mask, (side, side), self.fill, rng)
        return {"image": pixels, "target": target}

    def evaluation_example(self, item: masks.Item, size: tuple[int, int] | None = None) -> Batch:
        pixels, target = masks.window(*item, (0, 0), size or self.canvases[0].size, self.fill)
        return {"image": pixels, "target": target}

    def blank(self, size: tuple[int, int] | None = None) -> Batch:
        size = size or self.canvases[0].size
        return {"image": np.zeros((*size, 3), np.uint8), "target": np.full(size, IGNORED, np.uint8)}

    def evaluation_buckets(self, source: Sequence, batch_size: int, wanted: int | None, multiple: int) -> list[Bucket]:
        """Those of larger images have fewer in a batch, so that no batch has many more pixels than the usual one, or
        unless its size is `wanted`, than a few of training: evaluation needs less memory."""
        usual = math.prod(self.canvases[0].size)
        most = wanted * usual if wanted else LIGHTER * batch_size * self.preprocess.crop**2

        def bucket(canvas: masks.Canvas) -> Bucket:
            rows = min(wanted or batch_size, most // math.prod(canvas.size)) // multiple * multiple
            parts = (functools.partial(of, size=canvas.size) for of in (self.evaluation_example, self.blank))
            return Bucket(canvas.indices, max(rows, multiple), *parts)

        return list(map(bucket, self.canvases))

    def training_loss(self, model: nnx.Module, batch: Batch, key: jax.Array) -> tuple[jax.Array, tuple[Parts, Outputs]]:
        images, targets = self.augmented(batch, key)
        logits, *auxiliary = map(class_logits, model(images.astype(self.dtype)).values())
        weight = model.aux_weight if self.aux_weight is None and auxiliary else self.aux_weight
        count = jnp.maximum((targets != IGNORED).sum(), 1)
        found, *others = (losses(y, targets, self.label_smoothing) for y in (logits, *auxiliary))
        main, other = found.sum(), sum(weight * other.sum() for other in others)
        parts = {"main": main / count, "auxiliary": other / count} if others else {}
        return (main + other) / count, (parts, {"losses": found, "counts": confusions(logits, targets)})

    def augmented(self, batch: Batch, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What the model sees of a training batch, float32, and its targets, uint8."""
        images, targets = batch["image"], batch["target"]
        if self.augmentation.flip:  # both by the same draws
            images, targets = flipped(images, key), flipped(targets[..., None], key)[..., 0]
        return self.normalised(images), targets

    def evaluation_outputs(self, model: nnx.Module, batch: Batch) -> Outputs:
        targets = jnp.where(batch["mask"][:, None, None], batch["target"], IGNORED)
        logits = self.logits(model, self.normalised(batch["image"]).astype(self.dtype))
        counts = confusions(logits, targets)  # (2, N, C, C)
        scored = {"losses": losses(logits, targets), "counts": counts, "iou": mean_iou(counts)}
        items = {name: batch[name] for name in ("mask", "indices")}
        return scored | {"predicted": logits.argmax(-1).astype(jnp.uint8)} | items

    def logits(self, model: nnx.Module, images: jax.Array) -> jax.Array:
        """Of normalised images: the model's, or logarithms of probabilities averaged over sizes and mirror images."""
        views = [(scale, mirror) for scale in self.scales for mirror in (False, True)[: 1 + self.mirrored]]
        if views == [(1.0, False)]:
            return class_logits(next(iter(model(images).values())))
        total = 0
        for scale, mirror in views:
            seen = at_scale(model, images[:, :, ::-1] if mirror else images, scale)
            total += jax.nn.softmax(seen.astype(jnp.float32))[:, :, :: -1 if mirror else 1]
        return jnp.log(jnp.maximum(total / len(views), jnp.finfo(jnp.float32).tiny))

    def normalised(self, images: jax.Array) -> jax.Array:
        """uint8 (N, H, W, 3) to float32 as the model was made for it."""
        return normalised(images, self.preprocess.mean, self.preprocess.std)

    def draw_first_batches(self, training: Batch, evaluation: Batch, key: jax.Array, folder: Path) -> None:
        draw_sheet(self.tiles(training, key)[:SHOWN], "first training batch", folder / "train_batch.png")
        held_out = segments.tiles(evaluation["image"][:SHOWN], evaluation["target"][:SHOWN], self.classes)
        draw_sheet(held_out, "first held-out batch", folder / "val_batch.png")

    def explained(self, batch: Batch) -> tuple[jax.Array, Score] | None:
        """The pixels of the class that covers most of an image, but for the first class, the background."""
        label = main_class(batch["target"], len(self.classes))
        region = batch["target"] == label[:, None, None]
        return self.normalised(batch["image"]).astype(self.dtype), Partial(pixel_score, label=label, region=region)

    def explained_tiles(self, batch: Batch) -> list[Tile]:
        labels = np.asarray(main_class(batch["target"], len(self.classes)))
        return [
            Tile(Image.fromarray(image), [self.classes[label]])
            for image, label in zip(batch["image"], labels, strict=True)
        ]

    def tiles(self, batch: Batch, key: jax.Array) -> list[Tile]:
        """Pictures of a training batch as the model sees it, masks over images."""
        images, targets = jax.jit(self.augmented)({name: batch[name] for name in ("image", "target")}, key)
        pixels = denormalised(images, self.preprocess.mean, self.preprocess.std)
        return segments.tiles(pixels, np.asarray(targets), self.classes)

    def counts(self, source: Sequence) -> dict[str, tuple[np.ndarray, int]]:
        found = masks.count(source, len(self.classes))
        return {"pixels": (found.pixels, int(found.pixels.sum())), "images": (found.images, len(source))}

    def draw(self, states: States, source: Sequence, folder: Path, collector: None = None) -> None:
        segments.write_tables(whole(states["pixels"]["confusion"]), self.classes, folder)
        rows, seen = [], set()
        for part in ("first", "worst"):
            found = states[part]
            for i in np.flatnonzero(found["rank"] > 0):
                index = int(found["index"][i])
                if index not in seen:
                    seen.add(index)
                    image, mask = source[index]
                    predicted = found["predicted"][i][: mask.shape[0], : mask.shape[1]]
                    caption = f"{Path(source.name(index)).name}, IoU {found['iou'][i]:.1%}"
                    rows.append(segments.Row(np.asarray(image), mask, predicted, caption, part))
        segments.draw_rows(rows, self.classes, folder / "segments.png")


def losses(logits: jax.Array, targets: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Cross-entropy of every pixel (N, H, W), 0 where it is ignored; float32 at least.

    `smoothing` is the part of the target that is spread evenly over all classes.
    """
    parts = jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
    right = targets[..., None] == jnp.arange(parts.shape[-1])  # compared rather than gathered, which does not fuse
    found = -(1 - smoothing) * jnp.where(right, parts, 0).sum(-1)
    if smoothing:
        found -= smoothing * parts.mean(-1)
    return jnp.where(targets == IGNORED, 0, found)


def at_scale(model: Any, images: jax.Array, scale: float) -> jax.Array:
    """Logits of images that are looked at `scale` times as large, at the images' size."""
    size = images.shape[1:3]
    scaled = tuple(max(1, round(side * scale)) for side in size)
    padding = [(0, -side % PADDING) for side in scaled]
    seen = jnp.pad(resize(images, scaled, mode="bilinear"), [(0, 0), *padding, (0, 0)])
    logits = class_logits(next(iter(model(seen).values())))[:, : scaled[0], : scaled[1]]
    return resize(logits, size, mode="bilinear")


def main_class(targets: jax.Array, classes: int) -> jax.Array:
    """The class (N,) that covers most of each mask (N, H, W), but for class 0 where there is another."""
    counts = jax.nn.one_hot(targets, classes).sum((1, 2))
    return jnp.where(counts[:, 1:].any(-1), counts[:, 1:].argmax(-1) + 1, 0)
