"""Small detectors, on `blocks`, with everything that options of the trainer reach for: two stages, of which each draws
boxes to learn from, dropout and batch normalisation. One finds masks too."""

import json
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from PIL import Image

from jaxzoo import nn, register_model
from jaxzoo.detection.backbone import freeze_first
from jaxzoo.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, TwoMLPHead
from jaxzoo.detection.mask_rcnn import MaskRCNN, MaskRCNNHeads, MaskRCNNPredictor
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


def settings(num_classes: int, *, rngs: nnx.Rngs) -> dict:
    """Anchors, sampling and heads of a size for blocks."""
    return {
        "num_classes": None,
        "rpn_anchor_generator": AnchorGenerator(((12, 24),), ((0.5, 1.0, 2.0),)),
        "rpn_pre_nms_top_n_train": 60,
        "rpn_pre_nms_top_n_test": 60,
        "rpn_post_nms_top_n_train": 30,
        "rpn_post_nms_top_n_test": 20,
        "rpn_batch_size_per_image": 24,
        "box_roi_pool": MultiScaleRoIAlign(["0"], 3, 1),
        "box_head": TwoMLPHead(8 * 3**2, 16, rngs=rngs),
        "box_predictor": FastRCNNPredictor(16, num_classes, rngs=rngs),
        "box_batch_size_per_image": 16,
        "box_detections_per_img": 8,
        "rngs": rngs,
    }


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
        backbone = Backbone(trainable_backbone_layers, rngs=rngs)
        super().__init__(backbone, min_size=min_size, max_size=max_size, **settings(num_classes, rngs=rngs))


class Masks(MaskRCNN):
    def __init__(
        self,
        num_classes: int = 91,
        min_size: int = 48,
        max_size: int = 64,
        mask_roi_pool: MultiScaleRoIAlign | None = None,
        *,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            Backbone(None, rngs=rngs),
            min_size=min_size,
            max_size=max_size,
            mask_roi_pool=mask_roi_pool or MultiScaleRoIAlign(["0"], 7, 1),
            mask_head=MaskRCNNHeads(8, (16, 16), 1, rngs=rngs),
            mask_predictor=MaskRCNNPredictor(16, 16, num_classes, rngs=rngs),
            **settings(num_classes, rngs=rngs),
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


def paint_diamonds(folder: Path, count: int) -> Path:
    """Writes images with a red or blue diamond each, half of its box, and their outlines in COCO's format."""
    folder.mkdir(parents=True)
    rng, images, annotations = np.random.default_rng(0), [], []
    for i in range(count):
        center, (a, b) = rng.uniform(16, 32, 2), rng.uniform(9, 14, 2)
        x, y = np.arange(48) + 0.5 - center[:, None]
        inside = abs(x) / a + abs(y)[:, None] / b <= 1
        pixels = rng.normal(90, 20, (48, 48, 3))
        pixels[inside] = (220, 40, 30) if i % 2 else (20, 60, 230)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
        corners = center + np.array([(-a, 0), (0, -b), (a, 0), (0, b)])
        images.append({"id": i, "file_name": f"{i}.png", "width": 48, "height": 48})
        annotations.append(
            {
                "id": i + 1,
                "image_id": i,
                "category_id": 1 + i % 2,
                "bbox": [*(center - (a, b)), 2 * a, 2 * b],
                "area": 2 * a * b,
                "iscrowd": 0,
                "segmentation": [corners.ravel().tolist()],
            }
        )
    categories = [{"id": 1, "name": "blue"}, {"id": 2, "name": "red"}]
    found = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "_annotations.coco.json").write_text(json.dumps(found))
    return folder


def register() -> None:
    """Enters the networks; the backbone of `boxes` starts from weights of `blocks` where that is asked for."""

    @register_model(paper="none", task="detection", input_size=48, parts={"blocks": {"": "backbone.body."}})
    def boxes(*, rngs: nnx.Rngs, **arguments) -> Boxes:
        return Boxes(rngs=rngs, **arguments)

    @register_model(paper="none", task="detection", input_size=48)
    def masks(*, rngs: nnx.Rngs, **arguments) -> Masks:
        return Masks(rngs=rngs, **arguments)
