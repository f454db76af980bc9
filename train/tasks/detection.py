"""The objects in images: a detector's own losses, COCO's average precision."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
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
from jaxzoo.preprocess import from_dict
from train.config.options import Augmentation, Config, Segmentation
from train.config.options import model_arguments as given_arguments
from train.data import Data
from train.data.batches import Bucket
from train.data.objects import Objects
from train.metrics import LOSS, Collector
from train.metrics.average_precision import CocoMetrics, coco_table
from train.metrics.loss import MeanLoss
from train.tasks import Batch, Outputs, Parts, Task
from train.tasks.images import head_words, smallest, takes  # noqa: F401

Item = tuple[Image.Image, Objects]

BATCH_SIZE = 16
DEMO_EPOCHS, DEMO_LR_SCALE = 4, 2.0
INAPPLICABLE_OPTIONS = {
    *(field.name for of in (Augmentation, Segmentation) for field in dataclasses.fields(of)),
    *("train_size", "progressive", "cache_features", "label_smoothing"),
} - {"flip", "repeats"}


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
    if config.weights_backbone and takes(config, "reduced_tail"):
        arguments["reduced_tail"] = False
    if config.trainable_backbone_layers is not None:
        arguments["trainable_backbone_layers"] = config.trainable_backbone_layers
    return arguments | given_arguments(config)


def tasks_of(config: Config, data: Data, preprocess: DetectionTransform) -> list[Task]:
    """As it evaluates, and then as it trains."""
    task = Detection(
        data,
        preprocess,
        masks=takes(config, "mask_roi_pool") is not None,
        keypoints=takes(config, "num_keypoints") is not None,
        background=takes(config, "num_boxes") is None,
        dtype=jnp.dtype(config.precision),
    )
    return [task, task]


def usual_options(data: Data, side: int) -> dict[str, Any]:
    """Options that nobody gave, by name."""
    return {"flip": "yes" if data.photographs else "no"}


def augmentation_line(asked: Config, config: Config, data: Data, side: int) -> str:
    """What training images go through."""
    return f"augmentation: {config.data_augmentation}"


class Detection(Task):
    """Batches are `image` (N, H, W, 3) float32, normalised and resized, on a canvas, and `size` (N, 2) int32, their own
    heights and widths on it. Those of training have `boxes` (N, M, 4), `labels` (N, M) and `valid` (N, M) of M objects
    each, with `masks` (N, M, H, W) uint8 and `keypoints` (N, M, K, 3) where the model learns them.

    Args:
      data: with sources of `train.data.objects`.
      preprocess: how images are normalised and resized.
      masks, keypoints: whether the model has them.
      background: whether class 0 of the model's is the background.
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
        masks: bool = False,
        keypoints: bool = False,
        background: bool = True,
        dtype: jnp.dtype = jnp.float32,
    ):
        self.data, self.preprocess = data, preprocess
        self.masks, self.keypoints, self.first, self.dtype = masks, keypoints, 0 if background else 1, dtype
        self.training_metrics = {"loss": MeanLoss(jnp.promote_types(dtype, jnp.float32))}
        self.collected = ("boxes", "labels", "scores", "valid", "size")
        self.collected += ("masks",) * masks + ("keypoints",) * keypoints
        self.kinds = ("bbox", *("segm",) * masks, *("keypoints",) * keypoints)

    @functools.cached_property
    def canvases(self) -> list[Size]:
        """Those of all images, the smallest first."""
        sizes = {source.size(i) for source in (self.data.train, self.data.held_out) for i in range(len(source))}
        return [self.preprocess.canvas([self.preprocess.size(*size) for size in sizes], buckets=True)]

    @functools.cached_property
    def most(self) -> int:
        """Objects of a training image."""
        source = self.data.train
        if known := getattr(source, "most_objects", None):
            return known
        return max((len(source.objects(i)) for i in range(len(source))), default=0) or 1

    def canvas(self, size: Size) -> Size:
        """The smallest that images of this size, before they are resized, fit on."""
        height, width = self.preprocess.size(*size)
        return next(canvas for canvas in self.canvases if canvas[0] >= height and canvas[1] >= width)

    # Batches

    def training_example(self, item: Item, rng: np.random.Generator) -> Batch:
        image, objects = item
        canvas = self.canvas((image.height, image.width))
        pixels = self.preprocess(image)
        return on_canvas(pixels, canvas) | self.targets(objects, (image.height, image.width), pixels.shape[:2], canvas)

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
        return on_canvas(self.preprocess(image), canvas or self.canvas((image.height, image.width)))

    def evaluation_buckets(self, source: Sequence, batch_size: int, wanted: int | None, multiple: int) -> list[Bucket]:
        groups: dict[Size, list[int]] = {}
        for index in range(len(source)):
            groups.setdefault(self.canvas(source.size(index)), []).append(index)

        def bucket(canvas: Size, indices: list[int]) -> Bucket:
            blank = on_canvas(np.zeros((*canvas, 3), np.float32), canvas)
            example = functools.partial(self.evaluation_example, canvas=canvas)
            return Bucket(indices, max((wanted or batch_size) // multiple * multiple, multiple), example, lambda: blank)

        return [bucket(*group) for group in groups.items()]

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

    # Records

    def collector(self) -> Collector:
        source, skeleton = self.data.held_out, self.data.skeleton
        sigmas = skeleton.sigmas if skeleton else ()
        return InImages(self.preprocess, source, CocoMetrics(source, self.data.classes, self.kinds, sigmas))

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


def on_canvas(pixels: np.ndarray, canvas: Size) -> Batch:
    """An image (h, w, C) on a canvas, zeros right of and below it, and its size."""
    image = np.zeros((*canvas, pixels.shape[2]), np.float32)
    image[: pixels.shape[0], : pixels.shape[1]] = pixels
    return {"image": image, "size": np.array(pixels.shape[:2], np.int32)}
