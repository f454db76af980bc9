"""One label per image: cross-entropy with label smoothing, top-1 and top-5 accuracy, a confusion matrix."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.tree_util import Partial
from PIL import Image

from jaxzoo.inspect import class_score
from jaxzoo.inspect.cam import Score
from jaxzoo.outputs import class_logits
from jaxzoo.preprocess import Preprocess, resize_and_crop
from train.augment import Augmentation, strengths
from train.augment.device import erased, flipped, mixed, normalised
from train.augment.host import augmented
from train.config.options import Config, Detection, Segmentation, stages
from train.data import Data, picture_side
from train.metrics import LOSS, Quantity, States
from train.metrics.confusion import Confusion
from train.metrics.errors import ConfidentErrors
from train.metrics.loss import MeanLoss
from train.metrics.top_k import TopK
from train.reporting import confusion, mistakes
from train.reporting.batch import batch_tiles
from train.reporting.contact_sheet import Tile, draw_sheet
from train.tasks import Batch, Outputs, Parts, Task
from train.tasks.images import head_words, line_of, model_arguments, preparation  # noqa: F401

PLAIN = Augmentation()
BATCH_SIZE = 64
DEMO_EPOCHS, DEMO_LR_SCALE = 9, 1.0
SHOWN = 32  # images of a first batch that are drawn
INAPPLICABLE_OPTIONS = {field.name for of in (Segmentation, Detection) for field in dataclasses.fields(of)}
SMALL, MANY = 64, 10_000  # pixels of a picture's shorter side; images
CHARACTER = re.compile(r"\d+|.|zero|one|two|three|four|five|six|seven|eight|nine", re.IGNORECASE)


def tasks_of(config: Config, data: Data, preprocess: Preprocess) -> list[Task]:
    """As it evaluates, and then for each stage of training, which differ in image size and strength."""
    sizes = stages(config) or [config.train_size or preprocess.crop]
    options = {field.name: getattr(config, field.name) for field in dataclasses.fields(Augmentation)}
    augmentation = Augmentation(**options | {"flip": config.flip == "yes"})

    def task(size: int, strength: float) -> Task:
        return Classification(
            data.classes,
            dataclasses.replace(preprocess, crop=size, resize=size) if data.image_size else preprocess.at(size),
            augmentation=dataclasses.replace(augmentation, ra_magnitude=round(config.ra_magnitude * strength)),
            label_smoothing=config.label_smoothing,
            dtype=jnp.dtype(config.precision),
        )

    return [task(preprocess.crop, 1), *map(task, sizes, strengths(len(sizes)))]


def usual_options(data: Data, side: int) -> dict[str, Any]:
    """Options that nobody gave, by name, where training images have `side` pixels."""
    return usual_augmentation(data, side)[0] | {"label_smoothing": 0.1}


def augmentation_line(asked: Config, config: Config, data: Data, side: int) -> str:
    """What training images go through, and why, where nobody `asked` for it."""
    parts = [f"crops of at least {config.crop_area:.0%} of the area"] if config.crop_area < 1 else []
    parts += [f"moved by up to {config.shift} pixels"] if config.shift else []
    chosen, why = usual_augmentation(data, side)
    kept = all(getattr(config, name) == value for name, value in chosen.items())
    free = any(getattr(asked, name) in (None, "auto") for name in chosen)
    return line_of(config, parts) + (why and f" ({why})" if kept and free else "")


def usual_augmentation(data: Data, side: int) -> tuple[dict[str, Any], str]:
    """How training images of `side` pixels are cropped, moved and mirrored, and why.

    Random crops that may leave a twelfth, as for ImageNet, or a third where images are few. Of small pictures they
    would leave too little: these are moved within a border, by 2 pixels of 32, and mirrored unless their classes are
    called as characters are. (Long runs bear the 4 pixels that are usual for CIFAR, short ones learn less with them.)
    """
    if not data.photographs:
        return {"crop_area": 1.0, "shift": 2, "flip": "no"}, "for these pictures"
    pictures = picture_side(data.train) if len(data.train) else None
    if pictures and pictures < SMALL:
        characters = all(map(CHARACTER.fullmatch, data.classes))
        why = f"for pictures of {pictures} pixels, under {SMALL}"
        why += f", and classes such as {data.classes[0]} and {data.classes[-1]}" if characters else ""
        return {"crop_area": 1.0, "shift": round(side / 16), "flip": "no" if characters else "yes"}, why
    few = len(data.train) < MANY
    why = f"for {'fewer than' if few else 'at least'} {MANY:,} images"
    return {"crop_area": 0.35 if few else 0.08, "shift": 0, "flip": "yes"}, why


class Classification(Task):
    """Batches are `image` (N, S, S, 3) uint8 RGB and `label` (N,) int32.

    A network with auxiliary heads returns a tuple in train mode, its logits first; the loss of each other head counts
    `model.aux_weight` times. Two classes may share one logit, see `jaxzoo.outputs`: then this is the binary
    cross-entropy.
    """

    metric = "accuracy"
    quantities = {"loss": LOSS, "accuracy": Quantity(), "top5": Quantity()}

    def __init__(
        self,
        classes: list[str],
        preprocess: Preprocess,
        *,
        augmentation: Augmentation = PLAIN,
        label_smoothing: float = 0.0,
        dtype: jnp.dtype = jnp.float32,
    ):
        self.classes, self.preprocess, self.augmentation = classes, preprocess, augmentation
        self.label_smoothing, self.dtype = label_smoothing, dtype
        top = {"accuracy": TopK()} | ({"top5": TopK(5)} if len(classes) > 10 else {})
        self.training_metrics = {"loss": MeanLoss(jnp.promote_types(dtype, jnp.float32))} | top
        drawn = {"confusion": Confusion(len(classes)), "errors": ConfidentErrors()}
        self.evaluation_metrics = self.training_metrics | drawn

    def training_example(self, item: tuple[Image.Image, int], rng: np.random.Generator) -> Batch:
        image, label = item
        if self.augmentation.crop_area == 1:
            image = resize_and_crop(image, self.preprocess)
        image = augmented(image, rng, self.augmentation, self.preprocess.crop, self.preprocess.interpolation)
        return {"image": shifted(np.asarray(image), self.augmentation.shift, rng), "label": np.int32(label)}

    def evaluation_example(self, item: tuple[Image.Image, int]) -> Batch:
        image, label = item
        return {"image": np.asarray(resize_and_crop(image, self.preprocess)), "label": np.int32(label)}

    def training_loss(self, model: nnx.Module, batch: Batch, key: jax.Array) -> tuple[jax.Array, tuple[Parts, Outputs]]:
        inputs, targets = self.augmented(batch, key)
        outputs = self.outputs(model, inputs.astype(self.dtype))
        logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        targets = optax.smooth_labels(targets, self.label_smoothing)
        logits, *auxiliary = (class_logits(y) for y in (logits, *auxiliary) if y is not None)
        losses, *others = (optax.softmax_cross_entropy(y.astype(targets.dtype), targets) for y in (logits, *auxiliary))
        main, other = losses.mean(), sum(model.aux_weight * other.mean() for other in others)
        outputs = {"losses": losses, "logits": logits, "labels": batch["label"], "mask": jnp.ones(losses.shape, bool)}
        return main + other, ({"main": main, "auxiliary": other} if others else {}, outputs)

    def augmented(self, batch: Batch, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What the model sees of a training batch, and its targets (N, classes); both float32."""
        wanted, (flipping, erasing, mixing) = self.augmentation, jax.random.split(key, 3)
        images = flipped(batch["image"], flipping) if wanted.flip else batch["image"]
        images = self.normalised(images)
        targets = jax.nn.one_hot(batch["label"], len(self.classes), dtype=images.dtype)
        if wanted.random_erase:
            images = erased(images, erasing, wanted.random_erase)
        if wanted.mixup or wanted.cutmix:
            images, targets = mixed(images, targets, mixing, wanted.mixup, wanted.cutmix)
        return images, targets

    def evaluation_outputs(self, model: nnx.Module, batch: Batch) -> Outputs:
        logits = class_logits(self.outputs(model, self.inputs(batch).astype(self.dtype)))
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        items = {name: batch[name] for name in ("mask", "indices")}
        return {"losses": losses, "logits": logits, "labels": batch["label"]} | items

    def inputs(self, batch: Batch) -> jax.Array:
        """What the model sees of a batch that is not augmented."""
        return self.normalised(batch["image"])

    def outputs(self, model: nnx.Module, inputs: jax.Array) -> Any:
        """What the model makes of its inputs."""
        return model(inputs)

    def normalised(self, images: jax.Array) -> jax.Array:
        """uint8 (N, S, S, 3) to float32 as the model was made for it."""
        return normalised(images, self.preprocess.mean, self.preprocess.std)

    def draw_first_batches(self, training: Batch, evaluation: Batch, key: jax.Array, folder: Path) -> None:
        draw_sheet(self.tiles(training, key)[:SHOWN], "first training batch", folder / "train_batch.png")
        seen = self.shown(self.normalised(evaluation["image"][:SHOWN]), evaluation["label"][:SHOWN])
        draw_sheet(seen, "first held-out batch", folder / "val_batch.png")

    def explained(self, batch: Batch) -> tuple[jax.Array, Score] | None:
        return self.inputs(batch).astype(self.dtype), Partial(class_score, label=batch["label"])

    def explained_tiles(self, batch: Batch) -> list[Tile]:
        return self.shown(self.normalised(batch["image"]), batch["label"])

    def tiles(self, batch: Batch, key: jax.Array) -> list[Tile]:
        return self.shown(*jax.jit(self.augmented)({name: batch[name] for name in ("image", "label")}, key))

    def shown(self, images: jax.Array, labels: jax.Array) -> list[Tile]:
        """Images as they go into the model, and their labels (N,) or the parts of them (N, C)."""
        return batch_tiles(images, labels, self.classes, mean=self.preprocess.mean, std=self.preprocess.std)

    def counts(self, source: Sequence) -> dict[str, tuple[np.ndarray, int]]:
        return {"images": (np.bincount(source.labels, minlength=len(self.classes)), len(source))}

    def draw(self, states: States, source: Sequence, folder: Path, collector: None = None) -> None:
        def picture(index: int) -> np.ndarray:
            return np.asarray(resize_and_crop(source[index][0], self.preprocess))

        confusion.write(states["confusion"], self.classes, folder)
        mistakes.write(states["errors"], self.classes, picture, source.name, folder)


def shifted(image: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """The image (H, W, 3) moved by up to `most` pixels each way; what comes in repeats the border."""
    if most == 0:
        return image
    top, left = rng.integers(0, 2 * most + 1, 2)
    padded = np.pad(image, ((most, most), (most, most), (0, 0)), mode="edge")
    return padded[top : top + len(image), left : left + image.shape[1]]
