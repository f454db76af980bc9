"""A small detector, on `blocks`, with everything that options of the trainer reach for: two stages, of which each draws
boxes to learn from, dropout and batch normalisation."""

import jax
from flax import nnx

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


def register() -> None:
    """Enters the network, whose backbone starts from weights of `blocks` where that is asked for."""

    @register_model(paper="none", task="detection", input_size=48, parts={"blocks": {"": "backbone.body."}})
    def boxes(*, rngs: nnx.Rngs, **arguments) -> Boxes:
        return Boxes(rngs=rngs, **arguments)
