"""Images reconstructed from codes, and new ones: likelihoods in nats, errors of pixels, linear probes on the codes."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

import convert.shapes
import jaxzoo
from convert.weights import Weights
from jaxzoo.generative.drawing import pictures
from jaxzoo.generative.pixels import pixel_error
from jaxzoo.preprocess import Pixels, from_dict
from train.config.options import Augmentation, Config, Detection, Segmentation
from train.config.options import model_arguments as given_arguments
from train.data import Data
from train.metrics import LOSS, Quantity, States
from train.metrics.loss import MeanLoss
from train.metrics.probe import Codes
from train.metrics.scores import Scores
from train.reporting import generated
from train.reporting.contact_sheet import Tile, draw_sheet
from train.reporting.sample import evenly_spread
from train.tasks import Apply, Arrays, Batch, Outputs, Parts, Task

BATCH_SIZE = 64
DEMO_EPOCHS, DEMO_LR_SCALE = 100, 1.0
SHOWN = 64  # images of a first batch that are drawn, and filters
INAPPLICABLE_OPTIONS = {
    *(field.name for of in (Augmentation, Segmentation, Detection) for field in dataclasses.fields(of)),
    *("train_size", "progressive", "cache_features", "label_smoothing", "dropout", "drop_path"),
} - {"repeats"}
PLANE = 8  # images along each side of the plane of codes
PROBED = 2000  # held-out images whose codes the probe sees, at most
RECONSTRUCTED = {"image": "as they are", "reconstructed": "reconstructed", "noisy": "noisy", "denoised": "denoised"}


def preparation(config: Config, data: Data, weights: Weights | None) -> Pixels:
    """Images from 0 to 1, of as many channels as the model has: one, unless --model-args or weights say otherwise."""
    base = jaxzoo.card(config.model).preprocess
    if weights and weights.preprocess:
        base = from_dict(weights.preprocess)
    base = dataclasses.replace(base, channels=given_arguments(config).get("in_channels", base.channels))
    side = config.image_size or (None if weights else data.image_size)
    return base.at(side) if side else base


def model_arguments(config: Config, data: Data, preprocess: Pixels, weights: Weights | None) -> dict[str, Any]:
    """What the model is built with: --model-args, and the shape of images."""
    return {"image_size": preprocess.crop, "in_channels": preprocess.channels} | given_arguments(config)


def tasks_of(config: Config, data: Data, preprocess: Pixels) -> list[Task]:
    """As it evaluates, and then for each stage of training: a model of several layers trains one after the other."""
    model = convert.shapes.abstract(config.model, **model_arguments(config, data, preprocess, None))
    stages = range(model.layers) if hasattr(model, "layers") else [None]

    def task(layer: int | None) -> Task:
        return Reconstruction(data, preprocess, model, layer=layer, dtype=jnp.dtype(config.precision))

    return [task(None), *map(task, stages)]


def head_words(arguments: Mapping[str, Any]) -> str:
    """Nothing: there is no head."""
    return ""


def usual_options(data: Data, side: int) -> dict[str, Any]:
    """Options that nobody gave, by name."""
    demo = {"lr": 3e-3, "epochs": DEMO_EPOCHS} if data.image_size else {}
    return {"lr": 1e-3, "clip_norm": 0.0} | demo


def augmentation_line(asked: Config, config: Config, data: Data, side: int) -> str:
    return ""


class Reconstruction(Task):
    """Batches are `image` (N, S, S, C) uint8 and `label` (N,) int32, which only the probe looks at.

    Args:
      model: any of `jaxzoo.generative`, of shapes only: what it has decides how it is trained and judged.
      layer: the one to train, of a model whose layers are trained one after the other.
    """

    collected = ("code", "label", "image", "reconstructed")

    def __init__(
        self, data: Data, preprocess: Pixels, model: nnx.Module, *, layer: int | None = None, dtype=jnp.float32
    ):
        self.items, self.classes, self.preprocess = len(data.held_out), data.classes, preprocess
        self.layer, self.dtype = layer, dtype
        self.contrastive, offsets = hasattr(model, "contrastive_divergence"), hasattr(model, "offsets")
        self.metric = next(iter(model.measures))
        self.quantities = {"loss": LOSS} | {name: Quantity("lower", unit) for name, unit in model.measures.items()}
        self.training_metrics = {"loss": MeanLoss(jnp.promote_types(dtype, jnp.float32))}
        self.evaluation_metrics = {"scores": Scores(tuple(model.measures), ("nll",) * offsets)}
        self.collected += ("noisy", "denoised") * hasattr(model, "corrupted")
        self.collected += ("sample",) * hasattr(model, "sample") + ("filter",)
        self.collected += ("plane",) * (getattr(model, "code", None) == 2)

    # Batches

    def training_example(self, item: tuple[Image.Image, int], rng: np.random.Generator) -> Batch:
        return self.evaluation_example(item)

    def evaluation_example(self, item: tuple[Image.Image, int]) -> Batch:
        image, label = item
        return {"image": self.preprocess.uint8(image), "label": np.int32(label)}

    # Computation

    def images(self, batch: Batch) -> jax.Array:
        """From 0 to 1, as the model sees them."""
        return (batch["image"] / jnp.float32(255)).astype(self.dtype)

    def training_loss(self, model: nnx.Module, batch: Batch, key: jax.Array) -> tuple[jax.Array, tuple[Parts, Outputs]]:
        parts = model.losses(self.images(batch))
        loss = sum(parts.values()).astype(jnp.promote_types(self.dtype, jnp.float32))
        return loss, (parts if len(parts) > 1 else {}, self.counted(loss, batch))

    def counted(self, loss: jax.Array, batch: Batch) -> Outputs:
        """The loss of a batch as that of its images."""
        losses = jnp.broadcast_to(loss, len(batch["label"]))
        return {"losses": losses, "mask": jnp.ones(losses.shape, bool)}

    def loss_and_gradients(
        self, apply: Apply, params: Arrays, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Arrays, tuple[Parts, Outputs, Arrays]]:
        """By contrastive divergence, where the model learns so; its loss is then the error of reconstructions."""
        if not self.contrastive:
            return super().loss_and_gradients(apply, params, batch, key)

        def learn(model: nnx.Module) -> tuple[Arrays, Parts, jax.Array]:
            images = self.images(batch)
            of_layer = {} if self.layer is None else {"layer": self.layer}
            error = pixel_error(model(images)["images"], images).mean().astype(jnp.float32)
            return *model.contrastive_divergence(images, **of_layer), error

        (found, parts, error), variables = apply(params, learn)
        gradients = {
            name: found[name].astype(value.dtype) if name in found else jnp.zeros_like(value)
            for name, value in params.items()
        }
        return error, gradients, (parts, self.counted(error, batch), variables)

    def evaluation_outputs(self, model: nnx.Module, batch: Batch) -> Outputs:
        """Noise is that of an image's place in the data, so figures do not depend on batches."""
        images, indices = self.images(batch), batch["indices"]
        rows, seed = len(indices), jax.random.key(0)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(seed, indices.astype(jnp.uint32))
        first = ((indices >= 0) & (indices < rows)).any()
        found = model(images)
        outputs = {
            "scores": model.scores(images, keys),
            "offsets": self.once(first, model.offsets, seed) if hasattr(model, "offsets") else {},
            "offered": first,
            "image": images,
            "reconstructed": found["images"],
            "code": found["code"],
            "filter": jnp.resize(model.filters()[:SHOWN], (rows, *model.filters().shape[1:])),
        }
        if "sample" in self.collected:
            outputs["sample"] = self.once(first, lambda key: model.sample(key, rows), seed)
        if "plane" in self.collected:
            outputs["plane"] = model.means(jnp.resize(plane(PLANE), (rows, 2)))
        if "noisy" in self.collected:
            outputs["noisy"] = model.corrupted(images, jax.vmap(model.noise)(keys, images))
            outputs["denoised"] = model(outputs["noisy"])["images"]
        return outputs | {name: batch[name] for name in ("label", "mask")}

    @staticmethod
    def once(first: jax.Array, function: Any, key: jax.Array) -> Any:
        """What costs as much as a whole evaluation: of the first batch alone, and zeros of the others."""
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(function, key))
        return jax.lax.cond(first, function, lambda key: zeros, key)

    # Records

    def collector(self) -> Codes:
        return Codes(evenly_spread(self.items, PROBED), SHOWN)

    def table(self, numbers: Mapping[str, float]) -> str:
        if "nll" not in numbers:
            return ""
        bits = numbers["nll"] / math.log(2)
        values = self.preprocess.crop**2 * self.preprocess.channels
        return f"  {numbers['nll']:.2f} nats are {bits:.2f} bits an image, {bits / values:.3f} a pixel"

    def draw_first_batches(self, training: Batch, evaluation: Batch, key: jax.Array, folder: Path) -> None:
        for batch, title, name in ((training, "training", "train"), (evaluation, "held-out", "val")):
            draw_sheet(self.tiles(batch, key)[:SHOWN], f"first {title} batch", folder / f"{name}_batch.png")

    def tiles(self, batch: Batch, key: jax.Array) -> list[Tile]:
        found = pictures(np.asarray(batch["image"]) / 255)
        labels = np.asarray(batch["label"]).tolist()
        return [
            Tile(picture, [self.classes[label]] if 0 <= label < len(self.classes) else [])
            for picture, label in zip(found, labels, strict=True)
        ]

    def counts(self, source: Sequence) -> dict[str, tuple[np.ndarray, int]]:
        return {"images": (np.bincount(source.labels, minlength=len(self.classes)), len(source))}

    def draw(self, states: States, source: Sequence, folder: Path, collector: Codes | None = None) -> None:
        rows = collector.rows
        if not rows:
            return
        drawn = {name: words for name, words in RECONSTRUCTED.items() if name in self.collected}
        generated.draw_reconstructions(rows, drawn, folder / "reconstructions.png")
        first = [rows[i] for i in sorted(rows)]
        generated.draw_filters(np.stack([row["filter"] for row in first]), folder / "filters.png")
        if "sample" in self.collected:
            generated.draw_samples(np.stack([row["sample"] for row in first]), folder)
        if "plane" in self.collected and len(first) >= PLANE**2:
            generated.draw_plane(np.stack([row["plane"] for row in first[: PLANE**2]]), folder / "plane.png")
        generated.draw_codes(*collector.arrays(), self.classes, folder / "codes.png")


def plane(side: int) -> jax.Array:
    """Codes (side², 2) that divide a standard normal distribution into parts of equal probability, in rows."""
    quantiles = jax.scipy.special.ndtri((jnp.arange(side, dtype=jnp.float32) + 0.5) / side)
    return jnp.stack(jnp.meshgrid(quantiles, quantiles), -1).reshape(-1, 2)
