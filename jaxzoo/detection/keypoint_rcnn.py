"""Keypoint R-CNN.

He et al. 2017, Mask R-CNN, §5, https://arxiv.org/abs/1703.06870. Reference:
torchvision.models.detection.keypoint_rcnn.
"""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from jaxzoo.detection.backbone import BackboneWithFPN
from jaxzoo.detection.coco_weights import published
from jaxzoo.detection.dense import Detections
from jaxzoo.detection.faster_rcnn import FasterRCNN, he, register_rcnn, resnet50_fpn
from jaxzoo.detection.roi_heads import Features, RoIHeads, Samples, on_regions, pick, run_head, takes_whole
from jaxzoo.detection.rpn import Losses, Targets
from jaxzoo.detection.transform import DetectionTransform
from jaxzoo.errors import UsageError
from jaxzoo.nn import Conv, ConvTranspose, ReLU, Sequential, resize
from jaxzoo.nn.ops import MultiScaleRoIAlign, heatmaps_to_keypoints, keypoints_to_heatmap
from jaxzoo.nn.precision import wide

MIN_SIZES = (640, 672, 704, 736, 768, 800)  # of which training draws


class KeypointRCNNHeads(Sequential):
    """Regions (R, h, w, in_channels) to as many of `layers[-1]` channels."""

    def __init__(self, in_channels: int, layers: Sequence[int], *, rngs: nnx.Rngs):
        pairs = zip((in_channels, *layers), layers, strict=False)
        convs = (Conv(before, width, 3, padding=1, **he, rngs=rngs) for before, width in pairs)
        super().__init__(*itertools.chain(*((conv, ReLU()) for conv in convs)))


class KeypointRCNNPredictor(nnx.Module):
    """Regions (R, h, w, in_channels) to a heatmap of each keypoint, (R, 4h, 4w, num_keypoints)."""

    up_scale = 2  # after the transposed convolution

    def __init__(self, in_channels: int, num_keypoints: int, *, rngs: nnx.Rngs):
        self.kps_score_lowres = ConvTranspose(in_channels, num_keypoints, 4, 2, 1, **he, rngs=rngs)
        self.out_channels = num_keypoints

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.kps_score_lowres(x)
        return resize(x, [self.up_scale * side for side in x.shape[1:3]], mode="bilinear")


class KeypointRoIHeads(RoIHeads):
    """Classes, boxes and keypoints of proposals, by `keypoint_roi_pool`, `keypoint_head` and `keypoint_predictor`."""

    def __call__(
        self, features: Features, proposals: jax.Array, valid: jax.Array, canvas: tuple[int, int], sizes: jax.Array
    ) -> Detections:
        found = super().__call__(features, proposals, valid, canvas, sizes)
        maps = self._heatmaps(features, found["boxes"], found["valid"], canvas)
        images, most, *shape = maps.shape
        places, scores = heatmaps_to_keypoints(maps.reshape(images * most, *shape), found["boxes"].reshape(-1, 4))
        named = {"keypoints": places, "keypoints_scores": scores}
        return found | {
            name: jnp.where(found["valid"][:, :, *[None] * (x.ndim - 1)], x.reshape(images, most, *x.shape[1:]), 0)
            for name, x in named.items()
        }

    def _losses(self, features: Features, samples: Samples, canvas: tuple[int, int], targets: Targets) -> Losses:
        losses = super()._losses(features, samples, canvas, targets)
        samples = self.positives(samples)
        maps = self._heatmaps(features, samples.boxes, samples.valid, canvas)
        *regions, height, width, points = maps.shape
        keypoints = pick(targets["keypoints"], samples.matched).astype(samples.boxes.dtype)
        cells, counts = jax.vmap(keypoints_to_heatmap, (0, 0, None))(keypoints, samples.boxes, height)
        likelihood = jax.nn.log_softmax(maps.reshape(*regions, height * width, points), 2)
        likelihood = jnp.take_along_axis(likelihood, cells[:, :, None], 2)[:, :, 0]  # (N, P, points)
        counts &= samples.valid[..., None]
        return losses | {"loss_keypoint": -jnp.where(counts, likelihood, 0).sum() / jnp.maximum(counts.sum(), 1)}

    def _heatmaps(self, features: Features, boxes: jax.Array, valid: jax.Array, canvas: tuple[int, int]) -> jax.Array:
        """(N, D, 4h, 4w, points) of boxes (N, D, 4)."""

        def run(x: jax.Array, valid: jax.Array) -> jax.Array:
            return self.keypoint_predictor(run_head(self.keypoint_head, x, valid))

        pooled = self.keypoint_roi_pool(features, boxes, canvas[0])
        return wide(on_regions(run, pooled, valid, whole=takes_whole(self.keypoint_head)))


class KeypointRCNN(FasterRCNN):
    """`FasterRCNN` with keypoints: `keypoints` (N, D, K, 3) as (x, y, 1) on the canvas, `keypoints_scores` (N, D, K).

    Training takes `keypoints` (N, M, K, 3) as (x, y, visibility) among its targets, of which those count whose
    visibility is above 0.

    Args:
      keypoint_roi_pool, keypoint_head, keypoint_predictor: torchvision's unless given.
      num_keypoints: K; 17, as COCO has of people, unless given.
      **kwargs: those of `FasterRCNN`.
    """

    roi_heads_type = KeypointRoIHeads

    def __init__(
        self,
        backbone: BackboneWithFPN,
        num_classes: int | None = 2,
        min_size: int | Sequence[int] = MIN_SIZES,
        keypoint_roi_pool: MultiScaleRoIAlign | None = None,
        keypoint_head: nnx.Module | None = None,
        keypoint_predictor: nnx.Module | None = None,
        num_keypoints: int | None = None,
        *,
        rngs: nnx.Rngs,
        **kwargs,
    ):
        if num_keypoints is not None and keypoint_predictor is not None:
            raise UsageError("give num_keypoints or keypoint_predictor, which decides how many there are, not both")
        super().__init__(backbone, num_classes, min_size, **kwargs, rngs=rngs)
        self.roi_heads.keypoint_roi_pool = keypoint_roi_pool or MultiScaleRoIAlign(["0", "1", "2", "3"], 14, 2)
        self.roi_heads.keypoint_head = keypoint_head or KeypointRCNNHeads(backbone.out_channels, [512] * 8, rngs=rngs)
        self.roi_heads.keypoint_predictor = keypoint_predictor or KeypointRCNNPredictor(
            512, num_keypoints or 17, rngs=rngs
        )


@register_rcnn(
    paper="He et al. 2017, https://arxiv.org/abs/1703.06870",
    head=("roi_heads.box_predictor",),
    weights=published(
        DetectionTransform(MIN_SIZES), box_map=54.6, kp_map=65.0, freeze_batch_norm=True, batch_norm_eps=0.0
    )
    | published(DetectionTransform(MIN_SIZES), "COCO_LEGACY", box_map=50.6, kp_map=61.1, freeze_batch_norm=True),
)
def keypointrcnn_resnet50_fpn(
    *,
    trainable_backbone_layers: int | None = None,
    freeze_batch_norm: bool = False,
    batch_norm_eps: float = 1e-5,
    in_channels: int = 3,
    rngs: nnx.Rngs,
    **kwargs,
) -> KeypointRCNN:
    backbone = resnet50_fpn(trainable_backbone_layers, freeze_batch_norm, batch_norm_eps, in_channels, rngs)
    return KeypointRCNN(backbone, **kwargs, rngs=rngs)
