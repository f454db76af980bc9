"""Mask R-CNN.

He et al. 2017, Mask R-CNN, https://arxiv.org/abs/1703.06870; its second version after Li et al. 2021,
https://arxiv.org/abs/2111.11429. Reference: torchvision.models.detection.mask_rcnn.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from jaxzoo.detection.backbone import OUT_CHANNELS, BackboneWithFPN
from jaxzoo.detection.coco_weights import published
from jaxzoo.detection.dense import Detections
from jaxzoo.detection.faster_rcnn import FasterRCNN, he, register_rcnn, resnet50_fpn, second_version
from jaxzoo.detection.roi_heads import Features, RoIHeads, Samples, on_regions, run_head, takes_whole
from jaxzoo.detection.rpn import Losses, Targets
from jaxzoo.errors import UsageError
from jaxzoo.nn import BatchNorm, Conv, ConvNormActivation, ConvTranspose, Layer, NamedSequential, ReLU, Sequential, init
from jaxzoo.nn.ops import MultiScaleRoIAlign, project_masks_on_boxes
from jaxzoo.nn.precision import wide


class MaskRCNNHeads(Sequential):
    """Regions (R, h, w, in_channels) to as many of `layers[-1]` channels, by dilated convolutions."""

    _version = 2  # of the layout of torchvision's state_dict

    def __init__(
        self,
        in_channels: int,
        layers: Sequence[int],
        dilation: int,
        norm_layer: Layer | None = None,
        *,
        rngs: nnx.Rngs,
    ):
        widths = zip((in_channels, *layers), layers, strict=False)
        block = partial(ConvNormActivation, dilation=dilation, norm_layer=norm_layer, **he, rngs=rngs)
        super().__init__(*(block(before, width) for before, width in widths))


class MaskRCNNPredictor(NamedSequential):
    """Regions (R, h, w, in_channels) to logits of a mask for each class, (R, 2h, 2w, num_classes)."""

    def __init__(self, in_channels: int, dim_reduced: int, num_classes: int, *, rngs: nnx.Rngs):
        start = {"kernel_init": init.kaiming_normal("fan_out"), "rngs": rngs}
        super().__init__(
            conv5_mask=ConvTranspose(in_channels, dim_reduced, 2, 2, **start),
            relu=ReLU(),
            mask_fcn_logits=Conv(dim_reduced, num_classes, 1, **start),
        )


class MaskRoIHeads(RoIHeads):
    """Classes, boxes and masks of proposals, by `mask_roi_pool`, `mask_head` and `mask_predictor` (§3)."""

    def __call__(
        self, features: Features, proposals: jax.Array, valid: jax.Array, canvas: tuple[int, int], sizes: jax.Array
    ) -> Detections:
        found = super().__call__(features, proposals, valid, canvas, sizes)
        masks = jax.nn.sigmoid(self._mask_logits(features, found["boxes"], found["labels"], found["valid"], canvas))
        return found | {"masks": jnp.where(found["valid"][..., None, None], masks, 0)}

    def _losses(self, features: Features, samples: Samples, canvas: tuple[int, int], targets: Targets) -> Losses:
        losses = super()._losses(features, samples, canvas, targets)
        samples = self.positives(samples)
        logits = self._mask_logits(features, samples.boxes, samples.labels, samples.valid, canvas)
        project = partial(project_masks_on_boxes, size=logits.shape[-2:])
        goals = jax.vmap(project)(targets["masks"], samples.boxes, samples.matched)
        entropy = (jax.nn.softplus(logits) - logits * goals).mean((2, 3))
        return losses | {"loss_mask": jnp.where(samples.valid, entropy, 0).sum() / jnp.maximum(samples.valid.sum(), 1)}

    def _mask_logits(
        self, features: Features, boxes: jax.Array, labels: jax.Array, valid: jax.Array, canvas: tuple[int, int]
    ) -> jax.Array:
        """(N, D, 2h, 2w) of boxes (N, D, 4), each those of its class (N, D)."""

        def run(x: jax.Array, valid: jax.Array) -> jax.Array:
            return self.mask_predictor(run_head(self.mask_head, x, valid))

        pooled = self.mask_roi_pool(features, boxes, canvas[0])
        logits = on_regions(run, pooled, valid, whole=takes_whole(self.mask_head))
        return wide(jnp.take_along_axis(logits, labels[:, :, None, None, None], 4)[..., 0])


class MaskRCNN(FasterRCNN):
    """`FasterRCNN` with a mask for every box: `masks` (N, D, 28, 28), the probability of the object in each cell.

    `jaxzoo.nn.ops.paste_masks_in_image` puts them into the image. Training takes `masks` (N, M, H, W) of 0 and 1 among
    its targets.

    Args:
      mask_roi_pool, mask_head, mask_predictor: torchvision's unless given.
      **kwargs: those of `FasterRCNN`.
    """

    roi_heads_type = MaskRoIHeads

    def __init__(
        self,
        backbone: BackboneWithFPN,
        num_classes: int | None = 91,
        mask_roi_pool: MultiScaleRoIAlign | None = None,
        mask_head: nnx.Module | None = None,
        mask_predictor: nnx.Module | None = None,
        *,
        rngs: nnx.Rngs,
        **kwargs,
    ):
        if num_classes is None and mask_predictor is None:
            raise UsageError("give num_classes or mask_predictor, which decides how many classes there are")
        super().__init__(backbone, num_classes, **kwargs, rngs=rngs)
        layers = (256, 256, 256, 256)
        self.roi_heads.mask_roi_pool = mask_roi_pool or MultiScaleRoIAlign(["0", "1", "2", "3"], 14, 2)
        self.roi_heads.mask_head = mask_head or MaskRCNNHeads(backbone.out_channels, layers, 1, rngs=rngs)
        self.roi_heads.mask_predictor = mask_predictor or MaskRCNNPredictor(256, 256, num_classes, rngs=rngs)


register_mask_rcnn = partial(
    register_rcnn,
    paper="He et al. 2017, https://arxiv.org/abs/1703.06870",
    head=("roi_heads.box_predictor", "roi_heads.mask_predictor.mask_fcn_logits"),
)


@register_mask_rcnn(
    weights=published(box_map=37.9, mask_map=34.6, freeze_batch_norm=True, batch_norm_eps=0.0),
)
def maskrcnn_resnet50_fpn(
    *,
    trainable_backbone_layers: int | None = None,
    freeze_batch_norm: bool = False,
    batch_norm_eps: float = 1e-5,
    in_channels: int = 3,
    rngs: nnx.Rngs,
    **kwargs,
) -> MaskRCNN:
    backbone = resnet50_fpn(trainable_backbone_layers, freeze_batch_norm, batch_norm_eps, in_channels, rngs)
    return MaskRCNN(backbone, **kwargs, rngs=rngs)


@register_mask_rcnn(
    weights=published(box_map=47.4, mask_map=41.8),
)
def maskrcnn_resnet50_fpn_v2(
    *, trainable_backbone_layers: int | None = None, in_channels: int = 3, rngs: nnx.Rngs, **kwargs
) -> MaskRCNN:
    head = MaskRCNNHeads(OUT_CHANNELS, [OUT_CHANNELS] * 4, 1, BatchNorm, rngs=rngs)
    modules = second_version(trainable_backbone_layers, in_channels, rngs) | {"mask_head": head}
    return MaskRCNN(**modules | kwargs, rngs=rngs)
