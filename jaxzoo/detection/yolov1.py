"""YOLO, the first one, and its tiny sister.

Redmon et al. 2016, You Only Look Once: Unified, Real-Time Object Detection, https://arxiv.org/abs/1506.02640.
Reference: Darknet's yolov1.cfg and yolov1-tiny.cfg, with two boxes for each cell as in the published weights, where the
first of these files says three. Layers bear libreyolo's names: their places in these files.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxzoo.detection.dense import Detections, best_candidates, detections, whole_canvas
from jaxzoo.detection.transform import DetectionTransform
from jaxzoo.errors import UsageError
from jaxzoo.nn import (
    Conv,
    DarknetBatchNorm,
    Dropout,
    Flatten,
    LeakyReLU,
    Linear,
    LocallyConnected2d,
    MaxPool,
    NamedSequential,
    Sequential,
    init,
    leaky_relu,
)
from jaxzoo.nn.ops import box_convert, box_iou, clip_boxes_to_image
from jaxzoo.nn.precision import wide
from jaxzoo.registry import Published, register_model

STRIDE = 64  # of the cells, in pixels
SLOPE = 0.1  # of the leaky ReLU (§2.2)
SMALLEST = 0.005  # of the image's sides: smaller boxes Darknet does not learn
COORDINATES, NO_OBJECT = 5.0, 0.5  # what these count in the loss (§2.2)

# Filters, side of the kernel and stride of the convolutions, between which None stands for a max pooling (figure 3).
Plan = Sequence[tuple[int, int, int] | None]
# fmt: off
YOLO = (
    (64, 7, 2), None,
    (192, 3, 1), None,
    (128, 1, 1), (256, 3, 1), (256, 1, 1), (512, 3, 1), None,
    *((256, 1, 1), (512, 3, 1)) * 4, (512, 1, 1), (1024, 3, 1), None,
    *((512, 1, 1), (1024, 3, 1)) * 2, (1024, 3, 1), (1024, 3, 2),
    (1024, 3, 1), (1024, 3, 1),
)
TINY = (
    (16, 3, 1), None, (32, 3, 1), None, (64, 3, 1), None, (128, 3, 1), None, (256, 3, 1), None, (512, 3, 1), None,
    (1024, 3, 1), (256, 3, 1),
)
# fmt: on


def convolution(
    in_channels: int, out_channels: int, kernel_size: int, stride: int, *, rngs: nnx.Rngs
) -> NamedSequential:
    return NamedSequential(
        conv=Conv(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            kernel_size // 2,
            bias=False,
            kernel_init=init.kaiming_normal(),
            rngs=rngs,
        ),
        bn=DarknetBatchNorm(out_channels),
        act=LeakyReLU(SLOPE),
    )


class Local(LocallyConnected2d):
    """Darknet's layer `local` of 3 × 3 kernels, with its activation."""

    def __init__(self, in_channels: int, out_channels: int, side: int, *, rngs: nnx.Rngs):
        start = init.uniform(math.sqrt(2 / (9 * in_channels)))
        super().__init__(in_channels, out_channels, side, 3, 1, 1, kernel_init=start, bias_init=init.zeros, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return leaky_relu(super().__call__(x), SLOPE)


def connected(in_features: int, out_features: int, *, rngs: nnx.Rngs) -> NamedSequential:
    start = init.uniform(math.sqrt(2 / in_features))
    linear = Linear(in_features, out_features, kernel_init=start, bias_init=init.zeros, rngs=rngs)
    return NamedSequential(flatten=Flatten(), linear=linear)


class Cells(NamedTuple):
    """What the network says of each of S × S cells, in float32 at least."""

    classes: jax.Array  # (N, S, S, num_classes) of an object, if one has its centre there
    confidences: jax.Array  # (N, S, S, num_boxes) the IoU of each box with that object
    boxes: jax.Array  # (N, S, S, num_boxes, 4) centre from the cell's corner in cells, roots of shares of the image


class YOLOv1(nnx.Module):
    """Images (N, image_size, image_size, in_channels) of values from 0 to 1 to the best boxes of each.

    Returns `boxes` (N, D, 4) in pixels, `labels` (N, D) and `scores` (N, D), best first, and `valid` (N, D), False
    where there are fewer than D = `detections_per_img`. There is no class for the background: labels start from 0.

    Args:
      plan: the convolutions.
      local_channels: of a locally connected layer after them, and of dropout; there are none where it is None.
      num_classes: of objects, without background.
      num_boxes: of each cell.
      image_size: height and width in pixels, a multiple of 64; a cell has 64 of them.
      dropout: its rate.
      score_thresh: above which a box is an object of a class: the confidence times what the cell says of the class.
      nms_thresh: IoU above which the better of two boxes of a class removes the other.
      detections_per_img: most boxes of an image; a box counts for each of its classes.
    """

    def __init__(
        self,
        plan: Plan,
        local_channels: int | None,
        num_classes: int = 20,
        num_boxes: int = 2,
        image_size: int = 448,
        dropout: float = 0.5,
        score_thresh: float = 0.2,
        nms_thresh: float = 0.4,
        detections_per_img: int = 100,
        in_channels: int = 3,
        *,
        rngs: nnx.Rngs,
    ):
        if image_size < STRIDE or image_size % STRIDE:
            raise UsageError(f"image_size is {image_size}; it must be a multiple of {STRIDE}")
        self.plan, self.local_channels = tuple(plan), local_channels
        self.side, self.num_classes, self.num_boxes = image_size // STRIDE, num_classes, num_boxes
        self.transform = DetectionTransform(
            image_mean=(0.0,) * in_channels, image_std=(1.0,) * in_channels, fixed_size=(image_size, image_size)
        )
        self.score_thresh, self.nms_thresh, self.detections_per_img = score_thresh, nms_thresh, detections_per_img
        layers, channels = [], in_channels
        for step in plan:
            layers.append(convolution(channels, *step, rngs=rngs) if step else MaxPool(2))
            channels = step[0] if step else channels
        if local_channels is not None:
            layers += [Local(channels, local_channels, self.side, rngs=rngs), Dropout(dropout, rngs=rngs)]
            channels = local_channels
        places = self.side**2
        layers.append(connected(places * channels, places * (num_classes + 5 * num_boxes), rngs=rngs))
        self.layers = Sequential(*layers)

    def cells(self, images: jax.Array) -> Cells:
        """The network's outputs as they are, with no thresholds."""
        size = self.transform.fixed_size[0]
        if images.shape[1:3] != (size, size):
            raise UsageError(
                f"this network is built for images of {size} × {size} pixels and was given {images.shape}: resize them "
                "with its transform, or build it with another image_size"
            )
        y, grid = wide(self.layers(images)), (self.side, self.side)
        places = self.side**2
        classes, confidences, boxes = jnp.split(
            y, [places * self.num_classes, places * (self.num_classes + self.num_boxes)], axis=1
        )
        return Cells(
            classes.reshape(-1, *grid, self.num_classes),
            confidences.reshape(-1, *grid, self.num_boxes),
            boxes.reshape(-1, *grid, self.num_boxes, 4),
        )

    def __call__(self, images: jax.Array, sizes: jax.Array | None = None) -> Detections:
        cells = self.cells(images)
        height, width = images.shape[1:3]
        boxes = box_convert(self._in_image(cells.boxes), "cxcywh", "xyxy") * jnp.array([width, height, width, height])

        def one(cells: Cells, boxes: jax.Array, size: jax.Array) -> Detections:
            scores = cells.confidences[..., None] * cells.classes[..., None, :]
            found = best_candidates(scores.reshape(-1, self.num_classes), self.score_thresh, scores.size)
            rest = detections(
                boxes.reshape(-1, 4)[found.anchors],
                found.scores,
                found.labels,
                found.valid,
                self.nms_thresh,
                self.detections_per_img,
            )
            return rest | {"boxes": clip_boxes_to_image(rest["boxes"], size)}

        return jax.vmap(one)(cells, boxes, whole_canvas(images, sizes))

    def losses(
        self, images: jax.Array, sizes: jax.Array | None, targets: Mapping[str, jax.Array]
    ) -> dict[str, jax.Array]:
        """`classification`, `objectness`, `no_objectness` and `bbox_regression`, means over the images.

        Their sum is half of the paper's: its gradient is the one by which Darknet learns. Of several objects with their
        centre in one cell, the first counts.

        Args:
          images: (N, image_size, image_size, in_channels).
          sizes: heights and widths (N, 2), which do not matter here.
          targets: `boxes` (N, M, 4) in pixels of the canvas, `labels` (N, M) from 0, and `valid` (N, M), False where an
            image has fewer than M.
        """
        cells = self.cells(images)
        height, width = images.shape[1:3]
        found, label, truth = self._objects(targets, (height, width))
        overlap = box_iou(self._in_image(cells.boxes), self._in_image(truth[..., None, :]), "cxcywh")[..., 0]
        apart = jnp.square(self._in_image(cells.boxes) - self._in_image(truth[..., None, :])).sum(-1)
        best = jnp.where((overlap > 0).any(-1), overlap.argmax(-1), apart.argmin(-1))  # (N, S, S)
        responsible = found[..., None] & (best[..., None] == jnp.arange(self.num_boxes))
        overlap = jax.lax.stop_gradient(jnp.where(responsible, overlap, 0))
        right = label[..., None] == jnp.arange(self.num_classes)

        def half_squares(error: jax.Array, where: jax.Array, weight: float = 1.0) -> jax.Array:
            return weight / 2 * jnp.where(where, jnp.square(error), 0).sum() / images.shape[0]

        return {
            "classification": half_squares(cells.classes - right, found[..., None]),
            "objectness": half_squares(cells.confidences - overlap, responsible),
            "no_objectness": half_squares(cells.confidences, ~responsible, NO_OBJECT),
            "bbox_regression": half_squares(cells.boxes - truth[..., None, :], responsible[..., None], COORDINATES),
        }

    def _corners(self) -> jax.Array:
        """Of the cells, (S, S, 1, 2) as x and y, in cells."""
        return jnp.stack(jnp.meshgrid(jnp.arange(self.side), jnp.arange(self.side)), -1)[:, :, None]

    def _in_image(self, boxes: jax.Array) -> jax.Array:
        """Boxes (N, S, S, ..., 4) of cells as centre, width and height, shares of the image."""
        centres = (boxes[..., :2] + self._corners()) / self.side
        return jnp.concatenate([centres, jnp.square(boxes[..., 2:])], -1)

    def _objects(
        self, targets: Mapping[str, jax.Array], size: tuple[int, int]
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Whether an object has its centre in a cell (N, S, S), its label, and its box (N, S, S, 4) as in `Cells`."""
        height, width = size
        boxes = box_convert(wide(targets["boxes"]) / jnp.array([width, height, width, height]), "xyxy", "cxcywh")
        centres, sides = boxes[..., :2] * self.side, boxes[..., 2:]
        inside = (centres >= 0) & (centres <= self.side) & (sides >= SMALLEST)
        counts = targets["valid"] & inside.all(-1)
        corners = jnp.clip(jnp.floor(centres), 0, self.side - 1)
        own = jnp.where(counts[..., None], jnp.concatenate([centres - corners, jnp.sqrt(sides)], -1), 0)
        place = jnp.where(counts, corners[..., 1] * self.side + corners[..., 0], -1)
        there = place[..., None] == jnp.arange(self.side**2)  # (N, M, S²)
        first, grid = there.argmax(1), (self.side, self.side)
        return (
            there.any(1).reshape(-1, *grid),
            jnp.take_along_axis(targets["labels"], first, 1).reshape(-1, *grid),
            jnp.take_along_axis(own, first[..., None], 1).reshape(-1, *grid, 4),
        )


def published(box_map: float) -> Mapping[str, Published]:
    """Of the authors' file, for which the thresholds were 0.001 and 0.5."""
    transform = DetectionTransform(image_mean=(0.0,) * 3, image_std=(1.0,) * 3, fixed_size=(448, 448))
    return {"VOC": Published(transform, {"box_map@50": box_map}, data="VOC2007-test")}


register_yolo = partial(
    register_model, task="detection", paper="Redmon et al. 2016, https://arxiv.org/abs/1506.02640", input_size=448
)


@register_yolo(twin="convert.twins.yolov1:yolov1", weights=published(63.4), head=("layers.30.linear",))
def yolov1(*, rngs: nnx.Rngs, **kwargs) -> YOLOv1:
    return YOLOv1(YOLO, 256, **kwargs, rngs=rngs)


@register_yolo(twin="convert.twins.yolov1:yolov1_tiny", weights=published(52.7), head=("layers.14.linear",))
def yolov1_tiny(*, rngs: nnx.Rngs, **kwargs) -> YOLOv1:
    return YOLOv1(TINY, None, **kwargs, rngs=rngs)
