"""Faster R-CNN on feature pyramids.

Ren et al. 2015, Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks,
https://arxiv.org/abs/1506.01497; its second version after Li et al. 2021, https://arxiv.org/abs/2111.11429. Reference:
torchvision.models.detection.faster_rcnn.
"""

from collections.abc import Sequence
from functools import partial

import jax
from flax import nnx

from jaxzoo.detection.backbone import (
    OUT_CHANNELS,
    BackboneWithFPN,
    batch_norm,
    mobilenet_fpn_backbone,
    resnet_fpn_backbone,
)
from jaxzoo.detection.coco_weights import published
from jaxzoo.detection.dense import Detections, check_classes, whole_canvas, with_a_row
from jaxzoo.detection.roi_heads import RoIHeads
from jaxzoo.detection.rpn import Losses, RegionProposalNetwork, RPNHead, Targets
from jaxzoo.detection.transform import DetectionTransform
from jaxzoo.errors import UsageError
from jaxzoo.nn import BatchNorm, ConvNormActivation, Flatten, Layer, Linear, ReLU, Sequential, flatten, init, relu
from jaxzoo.nn.ops import AnchorGenerator, MultiScaleRoIAlign
from jaxzoo.preprocess import IMAGENET_MEAN, IMAGENET_STD
from jaxzoo.registry import register_model

SIZES = (32, 64, 128, 256, 512)  # of anchors, in pixels
SHAPES = (0.5, 1.0, 2.0)
REPRESENTATION = 1024  # width of what the heads make of a region
he = {"kernel_init": init.kaiming_normal("fan_out"), "bias_init": init.zeros}


def default_anchors() -> AnchorGenerator:
    """One size in three shapes on every level (Lin et al. 2017, §4.1)."""
    return AnchorGenerator([(size,) for size in SIZES], SHAPES)


class TwoMLPHead(nnx.Module):
    """Regions (R, h, w, C) to vectors (R, representation_size) by two hidden layers."""

    def __init__(self, in_channels: int, representation_size: int, *, rngs: nnx.Rngs):
        self.fc6 = Linear(in_channels, representation_size, rngs=rngs)
        self.fc7 = Linear(representation_size, representation_size, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return relu(self.fc7(relu(self.fc6(flatten(x)))))


class FastRCNNConvFCHead(Sequential):
    """Regions (R, h, w, C) to vectors by convolutions, then hidden layers.

    Args:
      input_size: (C, h, w), as torchvision has it.
      conv_layers, fc_layers: the width of each.
    """

    def __init__(
        self,
        input_size: tuple[int, int, int],
        conv_layers: Sequence[int],
        fc_layers: Sequence[int],
        norm_layer: Layer | None = None,
        *,
        rngs: nnx.Rngs,
    ):
        width, height, breadth = input_size
        layers = []
        for channels in conv_layers:
            layers.append(ConvNormActivation(width, channels, norm_layer=norm_layer, **he, rngs=rngs))
            width = channels
        layers.append(Flatten())
        width *= height * breadth
        for channels in fc_layers:
            layers += [Linear(width, channels, rngs=rngs), ReLU()]
            width = channels
        super().__init__(*layers)


class FastRCNNPredictor(nnx.Module):
    """Vectors (R, in_channels) to logits (R, num_classes) and offsets (R, num_classes · 4)."""

    def __init__(self, in_channels: int, num_classes: int, *, rngs: nnx.Rngs):
        self.cls_score = Linear(in_channels, num_classes, rngs=rngs)
        self.bbox_pred = Linear(in_channels, num_classes * 4, rngs=rngs)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return self.cls_score(x), self.bbox_pred(x)


class FasterRCNN(nnx.Module):
    """Images (N, H, W, in_channels) on a canvas, and the size of each, to the `detections_per_img` best boxes of each.

    Returns `boxes` (N, D, 4) in pixels of the canvas, `labels` (N, D) and `scores` (N, D), best first, and `valid`
    (N, D), False where there are fewer.

    torchvision infers how much smaller than the images feature maps are from the largest image of its first batch; this
    does from the canvas, which is as large but for padding.

    Args:
      backbone: maps images to a dictionary of levels, each with `out_channels`.
      num_classes: with the background, class 0; None where `box_predictor` is given.
      min_size, max_size, image_mean, image_std: as of `DetectionTransform`.
      rpn_anchor_generator, rpn_head, box_roi_pool, box_head, box_predictor: torchvision's unless given.
      rpn_pre_nms_top_n_train, ..., rpn_score_thresh: as of `RegionProposalNetwork`.
      box_score_thresh, ..., bbox_reg_weights: as of `RoIHeads`.

    Raises:
      UsageError: no class beside the background, or both or none of `num_classes` and `box_predictor`.
    """

    roi_heads_type = RoIHeads

    def __init__(
        self,
        backbone: BackboneWithFPN,
        num_classes: int | None = 91,
        min_size: int | Sequence[int] = 800,
        max_size: int = 1333,
        image_mean: Sequence[float] = IMAGENET_MEAN,
        image_std: Sequence[float] = IMAGENET_STD,
        rpn_anchor_generator: AnchorGenerator | None = None,
        rpn_head: nnx.Module | None = None,
        rpn_pre_nms_top_n_train: int = 2000,
        rpn_pre_nms_top_n_test: int = 1000,
        rpn_post_nms_top_n_train: int = 2000,
        rpn_post_nms_top_n_test: int = 1000,
        rpn_nms_thresh: float = 0.7,
        rpn_fg_iou_thresh: float = 0.7,
        rpn_bg_iou_thresh: float = 0.3,
        rpn_batch_size_per_image: int = 256,
        rpn_positive_fraction: float = 0.5,
        rpn_score_thresh: float = 0.0,
        box_roi_pool: MultiScaleRoIAlign | None = None,
        box_head: nnx.Module | None = None,
        box_predictor: nnx.Module | None = None,
        box_score_thresh: float = 0.05,
        box_nms_thresh: float = 0.5,
        box_detections_per_img: int = 100,
        box_fg_iou_thresh: float = 0.5,
        box_bg_iou_thresh: float = 0.5,
        box_batch_size_per_image: int = 512,
        box_positive_fraction: float = 0.25,
        bbox_reg_weights: tuple[float, float, float, float] | None = None,
        *,
        rngs: nnx.Rngs,
    ):
        if (num_classes is None) == (box_predictor is None):
            raise UsageError("give num_classes or box_predictor, which decides how many classes there are, not both")
        if num_classes is not None:
            check_classes(num_classes)
        channels = backbone.out_channels
        anchors = rpn_anchor_generator or default_anchors()
        self.backbone = backbone
        self.rpn = RegionProposalNetwork(
            anchors,
            rpn_head or RPNHead(channels, anchors.num_anchors_per_location()[0], rngs=rngs),
            rpn_fg_iou_thresh,
            rpn_bg_iou_thresh,
            rpn_batch_size_per_image,
            rpn_positive_fraction,
            {"training": rpn_pre_nms_top_n_train, "testing": rpn_pre_nms_top_n_test},
            {"training": rpn_post_nms_top_n_train, "testing": rpn_post_nms_top_n_test},
            rpn_nms_thresh,
            rpn_score_thresh,
            rngs=rngs,
        )
        pool = box_roi_pool or MultiScaleRoIAlign(["0", "1", "2", "3"], output_size=7, sampling_ratio=2)
        self.roi_heads = self.roi_heads_type(
            pool,
            box_head or TwoMLPHead(channels * pool.output_size[0] ** 2, REPRESENTATION, rngs=rngs),
            box_predictor or FastRCNNPredictor(REPRESENTATION, num_classes, rngs=rngs),
            box_fg_iou_thresh,
            box_bg_iou_thresh,
            box_batch_size_per_image,
            box_positive_fraction,
            bbox_reg_weights,
            box_score_thresh,
            box_nms_thresh,
            box_detections_per_img,
            rngs=rngs,
        )
        self.transform = DetectionTransform.of(min_size, max_size, image_mean, image_std)

    def __call__(self, images: jax.Array, sizes: jax.Array | None = None) -> Detections:
        canvas, sizes = images.shape[1:3], whole_canvas(images, sizes)
        features = self.backbone(images)
        proposals = self.rpn.proposals(self.rpn(features, canvas), sizes)
        return self.roi_heads(features, *proposals, canvas, sizes)

    def losses(self, images: jax.Array, sizes: jax.Array | None, targets: Targets) -> Losses:
        """`loss_objectness`, `loss_rpn_box_reg`, `loss_classifier` and `loss_box_reg`.

        Args:
          images: (N, H, W, in_channels).
          sizes: heights and widths (N, 2), those of the canvas unless given.
          targets: `boxes` (N, M, 4) in pixels of the canvas, `labels` (N, M), and `valid` (N, M), False where an image
            has fewer than M.
        """
        canvas, sizes, targets = images.shape[1:3], whole_canvas(images, sizes), with_a_row(targets)
        features = self.backbone(images)
        predicted = self.rpn(features, canvas)
        proposals = self.rpn.proposals(predicted, sizes)
        return self.rpn.losses(predicted, targets) | self.roi_heads.losses(features, *proposals, canvas, targets)


register_rcnn = partial(
    register_model,
    task="detection",
    input_size=800,
    parts={"resnet50": {"": "backbone.body."}},
    tables=("torchvision.DETECTION",),
)
register_faster_rcnn = partial(
    register_rcnn,
    paper="Ren et al. 2015, https://arxiv.org/abs/1506.01497",
    head=("roi_heads.box_predictor",),
)


@register_faster_rcnn(
    weights=published(box_map=37.0, freeze_batch_norm=True, batch_norm_eps=0.0),
)
def fasterrcnn_resnet50_fpn(
    *,
    trainable_backbone_layers: int | None = None,
    freeze_batch_norm: bool = False,
    batch_norm_eps: float = 1e-5,
    in_channels: int = 3,
    rngs: nnx.Rngs,
    **kwargs,
) -> FasterRCNN:
    backbone = resnet50_fpn(trainable_backbone_layers, freeze_batch_norm, batch_norm_eps, in_channels, rngs)
    return FasterRCNN(backbone, **kwargs, rngs=rngs)


def resnet50_fpn(
    trainable_layers: int | None, freeze_batch_norm: bool, batch_norm_eps: float, in_channels: int, rngs: nnx.Rngs
) -> BackboneWithFPN:
    """The backbone of the first versions."""
    norm_layer = batch_norm(freeze_batch_norm, batch_norm_eps)
    return resnet_fpn_backbone(
        norm_layer=norm_layer, trainable_layers=trainable_layers, in_channels=in_channels, rngs=rngs
    )


def second_version(trainable_layers: int | None, in_channels: int, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
    """The modules of the second versions: batch norm in pyramid and head, more convolutions."""
    return {
        "backbone": resnet_fpn_backbone(
            trainable_layers=trainable_layers, pyramid_norm_layer=BatchNorm, in_channels=in_channels, rngs=rngs
        ),
        "rpn_head": RPNHead(OUT_CHANNELS, len(SHAPES), conv_depth=2, rngs=rngs),
        "box_head": FastRCNNConvFCHead(
            (OUT_CHANNELS, 7, 7), [OUT_CHANNELS] * 4, [REPRESENTATION], BatchNorm, rngs=rngs
        ),
    }


@register_faster_rcnn(
    weights=published(box_map=46.7),
)
def fasterrcnn_resnet50_fpn_v2(
    *, trainable_backbone_layers: int | None = None, in_channels: int = 3, rngs: nnx.Rngs, **kwargs
) -> FasterRCNN:
    return FasterRCNN(**second_version(trainable_backbone_layers, in_channels, rngs) | kwargs, rngs=rngs)


def mobilenet_rcnn(
    trainable_layers: int | None, freeze_batch_norm: bool, in_channels: int, rngs: nnx.Rngs, **arguments
) -> FasterRCNN:
    """On MobileNetV3, with anchors of all sizes on every level."""
    norm_layer = batch_norm(freeze_batch_norm, 1e-5)
    backbone = mobilenet_fpn_backbone(
        norm_layer=norm_layer, trainable_layers=trainable_layers, in_channels=in_channels, rngs=rngs
    )
    defaults = {"rpn_anchor_generator": AnchorGenerator([SIZES] * 3, SHAPES), "rpn_score_thresh": 0.05}
    return FasterRCNN(backbone, **defaults | arguments, rngs=rngs)


register_mobilenet_rcnn = partial(register_faster_rcnn, parts={"mobilenet_v3_large": {"features.": "backbone.body."}})


@register_mobilenet_rcnn(
    weights=published(box_map=32.8, freeze_batch_norm=True),
)
def fasterrcnn_mobilenet_v3_large_fpn(
    *,
    trainable_backbone_layers: int | None = None,
    freeze_batch_norm: bool = False,
    in_channels: int = 3,
    rngs: nnx.Rngs,
    **kwargs,
) -> FasterRCNN:
    return mobilenet_rcnn(trainable_backbone_layers, freeze_batch_norm, in_channels, rngs, **kwargs)


@register_mobilenet_rcnn(
    input_size=320,
    weights=published(DetectionTransform((320,), 640), box_map=22.8, freeze_batch_norm=True),
)
def fasterrcnn_mobilenet_v3_large_320_fpn(
    *,
    trainable_backbone_layers: int | None = None,
    freeze_batch_norm: bool = False,
    in_channels: int = 3,
    rngs: nnx.Rngs,
    **kwargs,
) -> FasterRCNN:
    small = {"min_size": 320, "max_size": 640, "rpn_pre_nms_top_n_test": 150, "rpn_post_nms_top_n_test": 150}
    return mobilenet_rcnn(trainable_backbone_layers, freeze_batch_norm, in_channels, rngs, **small | kwargs)
