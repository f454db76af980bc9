"""The objects in images: a detector's own losses, COCO's average precision."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
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
from jaxzoo.detection.transform import (
    DetectionTransform,
    Size,
    resize_boxes,
    resize_keypoints,
    resize_masks,
)
from jaxzoo.inspect.cam import Score
from jaxzoo.preprocess import from_dict
from train.augment.object_canvases import training_canvases
from train.augment.objects import preset
from train.config.options import Augmentation, Config, Segmentation
from train.config.options import model_arguments as given_arguments
from train.data import Data, is_default_source
from train.data.batches import Bucket
from train.data.masks import mean_color
from train.data.objects import Objects, count, said
from train.metrics import LOSS, Collector, States
from train.metrics.average_precision import CocoMetrics, coco_table
from train.metrics.loss import MeanLoss
from train.reporting import detections
from train.reporting.batch import denormalised
from train.reporting.boxes import draw_sizes
from train.reporting.contact_sheet import Tile, draw_sheet
from train.reporting.object_tiles import tiles
from train.tasks import Batch, Outputs, Parts, Task
from train.tasks.images import head_words, smallest, takes  # noqa: F401

Item = tuple[Image.Image, Objects]

BATCH_SIZE = 16
DEMO_EPOCHS, DEMO_LR_SCALE = 6, 2.0
DEMO_REGIONS = 32  # of a scene, which a detector in two stages learns its classes from; 512 for 3 objects take long
SHOWN = 32  # images of a first batch that are drawn
SAMPLED = 500  # images whose objects are measured before a run begins
INAPPLICABLE_OPTIONS = {
    *(field.name for of in (Augmentation, Segmentation) for field in dataclasses.fields(of)),
    *("train_size", "progressive", "cache_features", "label_smoothing"),
} - {"repeats"}


def preparation(config: Config, data: Data, weights: Weights | None) -> DetectionTransform:
    """That of the weights, or else of the model, at the size of this run."""
    base = jaxzoo.card(config.model).preprocess
    if weights and weights.preprocess:
        base = from_dict(weights.preprocess)
    if not isinstance(base, DetectionTransform):  # a model of one's own without published weights
        base = convert.shapes.abstract(config.model, **given_arguments(config)).transform
    side = config.image_size
    if not side and data.image_size and not weights:
        side = smallest(config, data.image_size, base.side)
    return base.at(side) if side else base


def model_arguments(
    config: Config, data: Data, preprocess: DetectionTransform, weights: Weights | None
) -> dict[str, Any]:
    """What the model is built with: --model-args, the classes, its image size, which layers of its backbone learn."""
    background = takes(config, "num_boxes") is None  # of YOLO's classes none stands for the background
    arguments = {"num_classes": len(data.classes) - (not background)}
    if takes(config, "num_keypoints") and data.skeleton:
        arguments["num_keypoints"] = len(data.skeleton.names)
    if takes(config, "image_size"):
        arguments["image_size"] = preprocess.side
    elif preprocess.fixed_size:
        arguments["size"] = preprocess.fixed_size
    else:
        arguments |= {"min_size": preprocess.min_size, "max_size": preprocess.max_size}
    if is_default_source(config.data) and takes(config, "box_batch_size_per_image"):
        arguments["box_batch_size_per_image"] = DEMO_REGIONS
    if config.weights_backbone and takes(config, "reduced_tail"):
        arguments["reduced_tail"] = False
    if config.trainable_backbone_layers is not None:
        arguments["trainable_backbone_layers"] = config.trainable_backbone_layers
    return arguments | given_arguments(config)


def tasks_of(config: Config, data: Data, preprocess: DetectionTransform) -> list[Task]:
    """As it evaluates, and then as it trains."""
    sides = {"train": data.train, "held_out": data.held_out}
    arguments = {"masks": "mask_roi_pool", "keypoints": "num_keypoints"}  # of models that have them
    parts = {part: takes(config, name) is not None for part, name in arguments.items()}
    sides = {side: source.with_parts(**parts) if len(source) else source for side, source in sides.items()}
    said([problem for source in sides.values() if len(source) for problem in source.problems], config.strict_data)
    task = Detection(
        dataclasses.replace(data, **sides),
        preprocess,
        augmentation=config.data_augmentation,
        background=takes(config, "num_boxes") is None,
        batch_size=config.batch_size,
        dtype=jnp.dtype(config.precision),
        **parts,
    )
    return [task, task]


def usual_options(data: Data, side: int) -> dict[str, Any]:
    """Options that nobody gave, by name."""
    return {"data_augmentation": "hflip" if data.photographs else "none"}


def augmentation_line(asked: Config, config: Config, data: Data, side: int) -> str:
    """What training images go through."""
    return f"augmentation: {config.data_augmentation}, as torchvision's references call it"


class Detection(Task):
    """Batches are `image` (N, H, W, 3) float32, normalised and resized, on a canvas, and `size` (N, 2) int32, their own
    heights and widths on it. Those of training have `boxes` (N, M, 4), `labels` (N, M) and `valid` (N, M) of M objects
    each, with `masks` (N, M, H, W) uint8 and `keypoints` (N, M, K, 3) where the model learns them.

    Args:
      data: with sources of `train.data.objects`.
      preprocess: how images are normalised and resized.
      augmentation: one of `train.augment.objects.PRESETS`.
      masks, keypoints: whether the model has them.
      background: whether class 0 of the model's is the background.
      batch_size: that of training; each canvas is for as many images at least.
    """

    metric = "map"
    headline = ("loss", "map", "map_50", "segm_map", "keypoints_map")
    quantities = {"loss": LOSS}
    evaluation_metrics: Mapping = {}

    def __init__(
        self,
        data: Data,
        preprocess: DetectionTransform,
        *,
        augmentation: str = "none",
        masks: bool = False,
        keypoints: bool = False,
        background: bool = True,
        batch_size: int = 1,
        dtype: jnp.dtype = jnp.float32,
    ):
        self.data, self.preprocess, self.augmentation, self.batch_size = data, preprocess, augmentation, batch_size
        self.augmented, self.fill = preset(augmentation), mean_color(tuple(preprocess.image_mean))
        self.masks, self.keypoints, self.first, self.dtype = masks, keypoints, 0 if background else 1, dtype
        self.training_metrics = {"loss": MeanLoss(jnp.promote_types(dtype, jnp.float32))}
        self.collected = ("boxes", "labels", "scores", "valid", "size")
        self.collected += ("masks",) * masks + ("keypoints",) * keypoints
        self.kinds = ("bbox", *("segm",) * masks, *("keypoints",) * keypoints)

    @functools.cached_property
    def canvases(self) -> dict[Size, Size]:
        """The canvas of training images by their own size."""
        source = self.data.train
        sizes = [source.size(i) for i in range(len(source))]
        found = training_canvases(sizes, self.preprocess, self.augmentation, least=self.batch_size)
        return {sizes[i]: canvas.size for canvas in found for i in canvas.indices}

    @functools.cached_property
    def most(self) -> int:
        """Objects of a training image."""
        source = self.data.train
        if known := getattr(source, "most_objects", None):
            return known
        return max((len(source.objects(i)) for i in range(len(source))), default=0) or 1

    # Batches

    def training_example(self, item: Item, rng: np.random.Generator) -> Batch:
        image, objects = item
        canvas = self.canvases[image.height, image.width]
        image, objects = self.augmented(image, objects, rng, self.data.skeleton if self.keypoints else None, self.fill)
        pixels = self.at_random_size(rng)(image)
        return on_canvas(pixels, canvas) | self.targets(objects, (image.height, image.width), pixels.shape[:2], canvas)

    def at_random_size(self, rng: np.random.Generator) -> DetectionTransform:
        """With one of the shorter sides, where there are several."""
        sides = self.preprocess.min_size
        if len(sides) == 1:
            return self.preprocess
        return dataclasses.replace(self.preprocess, min_size=(int(rng.choice(sides)),))

    def training_buckets(self, source: Sequence) -> Sequence[Sequence[int]]:
        return list(by_canvas(source, self.canvases.__getitem__).values())

    def targets(self, objects: Objects, own: Size, size: Size, canvas: Size) -> Batch:
        """The objects of an image that is resized from its own size to another, on a canvas."""
        objects = objects.some(~objects.crowd)

        def padded(array: np.ndarray) -> np.ndarray:
            return np.pad(array, [(0, self.most - len(array)), *[(0, 0)] * (array.ndim - 1)])

        found = {
            "boxes": padded(resize_boxes(objects.boxes, own, size).astype(np.float32)),
            "labels": padded(objects.labels - self.first),
            "valid": np.arange(self.most) < len(objects),
        }
        if self.masks:
            resized = resize_masks(objects.masks, size)
            border = [(0, whole - part) for whole, part in zip(canvas, size, strict=True)]
            found["masks"] = padded(np.pad(resized, [(0, 0), *border]))
        if self.keypoints:
            found["keypoints"] = padded(resize_keypoints(objects.keypoints, own, size).astype(np.float32))
        return found

    def evaluation_example(self, item: Item, canvas: Size | None = None) -> Batch:
        image, _ = item
        return on_canvas(self.preprocess(image), canvas or self.evaluation_canvas((image.height, image.width)))

    def evaluation_canvas(self, size: Size) -> Size:
        """One of those that photographs have, so that a few programs do for images of all sizes."""
        return self.preprocess.canvas([self.preprocess.size(*size)], buckets=True)

    def evaluation_buckets(self, source: Sequence, batch_size: int, wanted: int | None, multiple: int) -> list[Bucket]:
        def bucket(canvas: Size, indices: list[int]) -> Bucket:
            blank = on_canvas(np.zeros((*canvas, 3), np.float32), canvas)
            example = functools.partial(self.evaluation_example, canvas=canvas)
            return Bucket(indices, max((wanted or batch_size) // multiple * multiple, multiple), example, lambda: blank)

        return [bucket(*group) for group in by_canvas(source, self.evaluation_canvas).items()]

    # Computation

    def training_loss(self, model: nnx.Module, batch: Batch, key: jax.Array) -> tuple[jax.Array, tuple[Parts, Outputs]]:
        names = ("boxes", "labels", "valid", "masks", "keypoints")
        targets = {name: batch[name] for name in names if name in batch}
        losses = model.losses(batch["image"].astype(self.dtype), batch["size"], targets)
        loss, parts = sum(losses.values()), {name.removeprefix("loss_"): part for name, part in losses.items()}
        count = len(batch["image"])
        return loss, (parts, {"losses": jnp.full(count, loss), "mask": jnp.ones(count, bool)})

    def evaluation_outputs(self, model: nnx.Module, batch: Batch) -> Outputs:
        found = model(batch["image"].astype(self.dtype), batch["size"])
        found["labels"] += self.first
        return found | {name: batch[name] for name in ("size", "mask", "indices")}

    def explained(self, batch: Batch) -> tuple[tuple[jax.Array, ...], Score] | None:
        """The object that the model is surest of."""
        return (batch["image"].astype(self.dtype), batch["size"]), surest

    # Records

    def explained_tiles(self, batch: Batch) -> list[Tile]:
        pictures = denormalised(batch["image"], self.preprocess.image_mean, self.preprocess.image_std)
        sizes = np.asarray(batch["size"]).tolist()
        return [
            Tile(Image.fromarray(picture[:height, :width]), ["surest object"])
            for picture, (height, width) in zip(pictures, sizes, strict=True)
        ]

    def collector(self) -> Collector:
        source, skeleton = self.data.held_out, self.data.skeleton
        sigmas = skeleton.sigmas if skeleton else ()
        return InImages(self.preprocess, source, CocoMetrics(source, self.data.classes, self.kinds, sigmas))

    def draw_first_batches(self, training: Batch, evaluation: Batch, key: jax.Array, folder: Path) -> None:
        draw_sheet(self.tiles(training, key)[:SHOWN], "first training batch", folder / "train_batch.png")
        draw_sizes(self.data.train, folder / "sizes.png", SAMPLED)

    def draw_data(self, source: Sequence, path: Path) -> bool:
        draw_sizes(source, path)
        return True

    def tiles(self, batch: Batch, key: jax.Array) -> list[Tile]:
        pixels = denormalised(batch["image"], self.preprocess.image_mean, self.preprocess.image_std)
        labels = {"labels": np.where(batch["valid"], batch["labels"] + self.first, 0)}
        return tiles(pixels, dict(batch) | labels, self.data.classes, self.data.skeleton)

    def counts(self, source: Sequence) -> dict[str, tuple[np.ndarray, int]]:
        found = count(source, len(self.data.classes))
        return {"objects": (found.objects, int(found.objects.sum())), "images": (found.images, len(source))}

    def draw(self, states: States, source: Sequence, folder: Path, collector: "InImages | None" = None) -> None:
        detections.draw(collector.collector, source, self.data.classes, folder, self.data.skeleton)

    def table(self, numbers: Mapping[str, float]) -> str:
        return coco_table(numbers)


class InImages:
    """A collector that is given what a model found in images, in pixels of the images themselves."""

    def __init__(self, preprocess: DetectionTransform, source: Sequence, collector: Collector):
        self.preprocess, self.source, self.collector = preprocess, source, collector

    def add(self, index: int, result: dict[str, Any]) -> None:
        size, valid = tuple(result.pop("size").tolist()), result.pop("valid")
        found = {name: rows[valid] for name, rows in result.items()}
        self.collector.add(index, self.preprocess.postprocess(found, size, self.source.size(index)))

    def compute(self) -> dict[str, float]:
        return self.collector.compute()


def by_canvas(source: Sequence, canvas: Callable[[Size], Size]) -> dict[Size, list[int]]:
    """The images of a source by the canvas that those of their size have."""
    groups: dict[Size, list[int]] = {}
    for index in range(len(source)):
        groups.setdefault(canvas(source.size(index)), []).append(index)
    return groups


def on_canvas(pixels: np.ndarray, canvas: Size) -> Batch:
    """An image (h, w, C) on a canvas, zeros right of and below it, and its size."""
    image = np.zeros((*canvas, pixels.shape[2]), np.float32)
    image[: pixels.shape[0], : pixels.shape[1]] = pixels
    return {"image": image, "size": np.array(pixels.shape[:2], np.int32)}


def surest(outputs: Mapping[str, jax.Array]) -> jax.Array:
    """The highest score (N,) of a detector's outputs."""
    return jnp.where(outputs["valid"], outputs["scores"], 0).max(-1)
