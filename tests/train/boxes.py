"""A small detector, on `blocks`, with everything that options of the trainer reach for: two stages, of which each draws
boxes to learn from, dropout and batch normalisation."""

from pathlib import Path

import jax
import numpy as np
from flax import nnx
from PIL import Image

from jaxzoo import nn, register_model
from jaxzoo.detection.backbone import freeze_first
from jaxzoo.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, TwoMLPHead
from jaxzoo.nn.ops import AnchorGenerator, MultiScaleRoIAlign
from tests.train.blocks import Blocks


class Backbone(nnx.Module):
    """The blocks' map, at a quarter of the image's size."""

    out_channels = 8

    def __init__(self, trainable_layers: int | None, *, rngs: nnx.Rngs):
        self.body = nn.IntermediateLayers(Blocks(rngs=rngs), {"blocks": "0"})
        freeze_first([[self.body.stem], [self.body.blocks]], trainable_layers)

    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        return self.body(x)


class Boxes(FasterRCNN):
    def __init__(
        self,
        num_classes: int = 91,
        min_size: int = 48,
        max_size: int = 64,
        trainable_backbone_layers: int | None = None,
        *,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            Backbone(trainable_backbone_layers, rngs=rngs),
            None,
            min_size,
            max_size,
            rpn_anchor_generator=AnchorGenerator(((12, 24),), ((0.5, 1.0, 2.0),)),
            rpn_pre_nms_top_n_train=60,
            rpn_pre_nms_top_n_test=60,
            rpn_post_nms_top_n_train=30,
            rpn_post_nms_top_n_test=20,
            rpn_batch_size_per_image=24,
            box_roi_pool=MultiScaleRoIAlign(["0"], 3, 1),
            box_head=TwoMLPHead(8 * 3**2, 16, rngs=rngs),
            box_predictor=FastRCNNPredictor(16, num_classes, rngs=rngs),
            box_batch_size_per_image=16,
            box_detections_per_img=8,
            rngs=rngs,
        )


def paint(folder: Path, count: int) -> Path:
    """Writes images with one or two coloured rectangles of two classes, every fifth without, and the list of them."""
    folder.mkdir(parents=True)
    rng, lines = np.random.default_rng(0), ["path,x1,y1,x2,y2,label"]
    for i in range(count):
        pixels = rng.normal(90, 20, (40 + i % 3, 56 - i % 2, 3))
        for number in range(1 + i % 2 if i % 5 else 0):
            (x, y), (width, height) = rng.integers(1, 20, 2), rng.integers(10, 18, 2)
            kind = ("red", "blue")[(i + number) % 2]
            pixels[y : y + height, x : x + width] = (220, 40, 30) if kind == "red" else (20, 60, 230)
            lines.append(f"{i}.png,{x},{y},{x + width},{y + height},{kind}")
        lines += [f"{i}.png,,,,,"] * (i % 5 == 0)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    (folder / "boxes.csv").write_text("\n".join(lines) + "\n")
    return folder / "boxes.csv"


def register() -> None:
    """Enters the network, whose backbone starts from weights of `blocks` where that is asked for."""

    @register_model(paper="none", task="detection", input_size=48, parts={"blocks": {"": "backbone.body."}})
    def boxes(*, rngs: nnx.Rngs, **arguments) -> Boxes:
        return Boxes(rngs=rngs, **arguments)
