"""The network that proposes regions (Ren et al. 2015, §3.1). Reference: torchvision.models.detection.rpn."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from jaxzoo.detection.dense import by_anchor, smooth_l1
from jaxzoo.nn import Conv, ConvNormActivation, Sequential, init
from jaxzoo.nn.dropout import Stream
from jaxzoo.nn.ops import (
    AnchorGenerator,
    BalancedPositiveNegativeSampler,
    BoxCoder,
    Matcher,
    box_iou,
    clip_boxes_to_image,
    nms,
    remove_small_boxes,
    top_k,
)
from jaxzoo.nn.ops.matching import BELOW_LOW_THRESHOLD
from jaxzoo.nn.precision import wide

Targets = Mapping[str, jax.Array]
Losses = dict[str, jax.Array]

BETA = 1 / 9  # where the loss of offsets turns from squares to absolute values


class Sampler(nnx.Module):
    """`BalancedPositiveNegativeSampler` for a batch, random but where `deterministic`, which `eval()` sets."""

    def __init__(self, batch_size_per_image: int, positive_fraction: float, *, rngs: nnx.Rngs):
        self.choose = BalancedPositiveNegativeSampler(batch_size_per_image, positive_fraction)
        self.most_positive = int(batch_size_per_image * positive_fraction)
        self.deterministic = False
        self.stream = Stream(rngs.sampling(), tag="sampling")

    def __call__(self, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Labels (N, A) to masks (N, A) of chosen positives and negatives."""
        if self.deterministic:
            return jax.vmap(self.choose)(labels)
        return jax.vmap(self.choose)(labels, jax.random.split(self.stream(), len(labels)))


class RPNHead(nnx.Module):
    """Maps (N, h, w, in_channels) of several levels to logits (N, h · w · num_anchors) and offsets (…, 4) of each."""

    _version = 2  # of the layout of torchvision's state_dict

    def __init__(self, in_channels: int, num_anchors: int, conv_depth: int = 1, *, rngs: nnx.Rngs):
        start = {"kernel_init": init.normal(0.01), "bias_init": init.zeros, "rngs": rngs}
        self.conv = Sequential(
            *(ConvNormActivation(in_channels, in_channels, norm_layer=None, **start) for _ in range(conv_depth))
        )
        self.cls_logits = Conv(in_channels, num_anchors, 1, **start)
        self.bbox_pred = Conv(in_channels, num_anchors * 4, 1, **start)

    def __call__(self, x: Sequence[jax.Array]) -> tuple[list[jax.Array], list[jax.Array]]:
        hidden = [self.conv(level) for level in x]
        logits = [wide(self.cls_logits(level).reshape(level.shape[0], -1)) for level in hidden]
        return logits, [wide(by_anchor(self.bbox_pred(level), 4)) for level in hidden]


class Predicted(NamedTuple):
    """The head's outputs and the anchors of every level."""

    logits: list[jax.Array]  # (N, A)
    offsets: list[jax.Array]  # (N, A, 4)
    anchors: tuple[jax.Array, ...]  # (A, 4)


class RegionProposalNetwork(nnx.Module):
    """Proposes boxes that may hold an object, of any class.

    Args:
      fg_iou_thresh, bg_iou_thresh: IoU from which an anchor is an object's, and below which it is background.
      batch_size_per_image, positive_fraction: how many anchors are learned from, and which share is objects' at most.
      pre_nms_top_n, post_nms_top_n: "training" and "testing", so many boxes of each level are looked at and so many of
        all are proposed.
      nms_thresh: IoU above which the better of two boxes of a level removes the other.
      score_thresh: least probability of an object.
    """

    min_size = 1e-3  # pixels

    def __init__(
        self,
        anchor_generator: AnchorGenerator,
        head: RPNHead,
        fg_iou_thresh: float,
        bg_iou_thresh: float,
        batch_size_per_image: int,
        positive_fraction: float,
        pre_nms_top_n: Mapping[str, int],
        post_nms_top_n: Mapping[str, int],
        nms_thresh: float,
        score_thresh: float = 0.0,
        *,
        rngs: nnx.Rngs,
    ):
        self.anchor_generator, self.head, self.box_coder = anchor_generator, head, BoxCoder()
        self.proposal_matcher = Matcher(fg_iou_thresh, bg_iou_thresh, allow_low_quality_matches=True)
        self.fg_bg_sampler = Sampler(batch_size_per_image, positive_fraction, rngs=rngs)
        self.top_n = tuple((pre_nms_top_n[mode], post_nms_top_n[mode]) for mode in ("training", "testing"))
        self.nms_thresh, self.score_thresh = nms_thresh, score_thresh
        self.use_running_average = False  # `train()` and `eval()` set it

    def __call__(self, features: Mapping[str, jax.Array], canvas: tuple[int, int]) -> Predicted:
        maps = list(features.values())
        logits, offsets = self.head(maps)
        anchors = self.anchor_generator(canvas, [x.shape[1:3] for x in maps], logits[0].dtype)
        return Predicted(logits, offsets, anchors)

    def proposals(self, predicted: Predicted, sizes: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Boxes (N, P, 4), the best first, and a mask (N, P) of those that count; no gradient flows through them."""
        pre, post = self.top_n[self.use_running_average]
        logits, offsets = lax.stop_gradient((predicted.logits, predicted.offsets))

        def of_level(logits: jax.Array, offsets: jax.Array, anchors: jax.Array, size: jax.Array) -> tuple:
            logits, chosen = top_k(logits, min(pre, len(logits)))
            boxes = clip_boxes_to_image(self.box_coder.decode(offsets[chosen], anchors[chosen]), size)
            scores = jax.nn.sigmoid(logits)
            valid = remove_small_boxes(boxes, self.min_size) & (scores >= self.score_thresh)
            keep, valid = nms(boxes, scores, self.nms_thresh, valid, min(post, len(boxes)))
            return boxes[keep], jnp.where(valid, scores[keep], -1)

        def of_image(logits: list[jax.Array], offsets: list[jax.Array], size: jax.Array) -> tuple:
            levels = map(partial(of_level, size=size), logits, offsets, predicted.anchors)
            boxes, scores = map(jnp.concatenate, zip(*levels, strict=True))
            scores, best = lax.top_k(scores, min(post, len(scores)))
            return jnp.where(scores[:, None] >= 0, boxes[best], 0), scores >= 0

        return jax.vmap(of_image)(logits, offsets, sizes)

    def losses(self, predicted: Predicted, targets: Targets) -> Losses:
        """`loss_objectness` and `loss_rpn_box_reg` (equation 1), both divided by the number of anchors chosen."""
        logits, offsets, anchors = jnp.concatenate(predicted.logits, 1), predicted.offsets, predicted.anchors
        offsets, anchors = jnp.concatenate(offsets, 1), jnp.concatenate(anchors)

        def assign(given: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            boxes, valid = given
            matched = self.proposal_matcher(box_iou(boxes, anchors), valid)
            goal = jnp.where(matched[:, None] >= 0, boxes[matched].astype(anchors.dtype), anchors)
            labels = jnp.where(matched >= 0, 1, jnp.where(matched == BELOW_LOW_THRESHOLD, 0, -1))
            return labels, self.box_coder.encode(goal, anchors)

        # One image after the other: the overlaps of 300,000 anchors with 100 objects take 100 MB.
        labels, goals = lax.map(assign, (targets["boxes"], targets["valid"]))
        positive, negative = self.fg_bg_sampler(labels)
        chosen = positive | negative
        count = jnp.maximum(chosen.sum(), 1)
        entropy = jax.nn.softplus(logits) - jnp.where(positive, logits, 0)
        return {
            "loss_objectness": jnp.where(chosen, entropy, 0).sum() / count,
            "loss_rpn_box_reg": jnp.where(positive[..., None], smooth_l1(offsets - goals, BETA), 0).sum() / count,
        }
