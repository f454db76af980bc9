"""One label per image: cross-entropy with label smoothing, top-1 and top-5 accuracy, a confusion matrix."""

import csv
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from PIL import Image

from jaxzoo.preprocess import Preprocess, resize_and_crop
from train.tasks import Batch, Sums


class Classification:
    """Batches are `image` (N, S, S, 3) uint8 RGB and `label` (N,) int32.

    A network with auxiliary heads returns a tuple in train mode, its logits first; the loss of each other head counts
    `model.aux_weight` times.
    """

    metric = "accuracy"

    def __init__(
        self,
        classes: list[str],
        preprocess: Preprocess,
        *,
        crop_area: float = 1.0,
        shift: int = 0,
        flip: bool = False,
        label_smoothing: float = 0.0,
        dtype: jnp.dtype = jnp.float32,
    ):
        self.classes, self.preprocess = classes, preprocess
        self.crop_area, self.shift, self.flip = crop_area, shift, flip
        self.label_smoothing, self.dtype = label_smoothing, dtype

    def training_example(self, item: tuple[Image.Image, int], rng: np.random.Generator) -> Batch:
        image, label = item
        if self.crop_area < 1:
            side = self.preprocess.crop
            resample = getattr(Image.Resampling, self.preprocess.interpolation.upper())
            image = image.resize((side, side), resample, random_box(image.size, self.crop_area, rng))
        else:
            image = resize_and_crop(image, self.preprocess)
        return {"image": shifted(np.asarray(image), self.shift, rng), "label": np.int32(label)}

    def evaluation_example(self, item: tuple[Image.Image, int]) -> Batch:
        image, label = item
        return {"image": np.asarray(resize_and_crop(image, self.preprocess)), "label": np.int32(label)}

    def training_loss(self, model: nnx.Module, batch: Batch, key: jax.Array) -> tuple[jax.Array, Sums]:
        images = batch["image"]
        if self.flip:
            mirrored = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
            images = jnp.where(mirrored, images[:, :, ::-1], images)
        outputs = model(self.normalise(images))
        logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        targets = optax.smooth_labels(
            jax.nn.one_hot(batch["label"], len(self.classes), dtype=jnp.float32), self.label_smoothing
        )
        losses, *others = (
            optax.softmax_cross_entropy(y.astype(jnp.float32), targets) for y in (logits, *auxiliary) if y is not None
        )
        loss = losses.mean() + sum(model.aux_weight * other.mean() for other in others)
        return loss, self.sums(losses, logits, batch["label"], jnp.ones(losses.shape, bool))

    def evaluation_sums(self, model: nnx.Module, batch: Batch) -> Sums:
        logits = model(self.normalise(batch["image"])).astype(jnp.float32)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        confusion = jnp.zeros((len(self.classes), len(self.classes)), jnp.int32)
        confusion = confusion.at[batch["label"], logits.argmax(-1)].add(batch["mask"].astype(jnp.int32))
        return self.sums(losses, logits, batch["label"], batch["mask"]) | {"confusion": confusion}

    def sums(self, losses: jax.Array, logits: jax.Array, labels: jax.Array, mask: jax.Array) -> Sums:
        best = jax.lax.top_k(logits, 5 if len(self.classes) > 10 else 1)[1] == labels[:, None]  # (N, 5) or (N, 1)
        sums = {"loss": jnp.where(mask, losses, 0).sum(), "correct": (mask & best[:, 0]).sum(), "count": mask.sum()}
        return sums | ({"correct5": (mask & best.any(-1)).sum()} if best.shape[-1] == 5 else {})

    def normalise(self, images: jax.Array) -> jax.Array:
        """uint8 (N, S, S, 3) to what the model was made for, in the dtype it computes in."""
        mean, std = (jnp.asarray(values, jnp.float32) for values in (self.preprocess.mean, self.preprocess.std))
        return ((images / jnp.float32(255) - mean) / std).astype(self.dtype)

    def metrics(self, sums: dict[str, np.ndarray]) -> dict[str, float]:
        names = {"loss": "loss", "accuracy": "correct", "top5": "correct5"}
        return {name: float(sums[key] / sums["count"]) for name, key in names.items() if key in sums}

    def pictures(self, sums: dict[str, np.ndarray], folder: Path) -> None:
        from train.pictures import draw_confusion

        with (folder / "confusion.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["true \\ predicted", *self.classes])
            rows.writerows([name, *row] for name, row in zip(self.classes, sums["confusion"].tolist(), strict=True))
        draw_confusion(sums["confusion"], self.classes, folder / "confusion.png")


def random_box(size: tuple[int, int], least_area: float, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """A random part of an image of `size` (width, height), in pixels: at least `least_area` of it, sides 3:4 to 4:3.

    Inception's crop, as in torchvision's RandomResizedCrop but for sides that are not rounded to whole pixels.
    """
    width, height = size
    for _ in range(10):
        area = rng.uniform(least_area, 1) * width * height
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = np.sqrt(area * ratio), np.sqrt(area / ratio)
        if w <= width and h <= height:
            x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
            return x, y, x + w, y + h
    side = min(width, height)
    x, y = (width - side) / 2, (height - side) / 2
    return x, y, x + side, y + side


def shifted(image: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """The image (H, W, 3) moved by up to `most` pixels each way; what comes in repeats the border."""
    if most == 0:
        return image
    top, left = rng.integers(0, 2 * most + 1, 2)
    padded = np.pad(image, ((most, most), (most, most), (0, 0)), mode="edge")
    return padded[top : top + len(image), left : left + image.shape[1]]
