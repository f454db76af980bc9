"""FCOS against torchvision's, on a shallow backbone."""

from functools import partial

import numpy as np
import pytest
import torch
from flax import nnx
from torchvision.models import resnet
from torchvision.models.detection import FCOS as Reference
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor as extractor
from torchvision.ops.feature_pyramid_network import LastLevelP6P7 as ReferenceP6P7

import jaxzoo
from convert.twins.detection import on_canvas
from jaxzoo.classification.resnet import BasicBlock, ResNet
from jaxzoo.detection.backbone import resnet_fpn_backbone
from jaxzoo.detection.fcos import FCOS
from jaxzoo.nn.ops import AnchorGenerator, LastLevelP6P7
from tests.detection.pair import SmallPair, check_citizenship, nothing

CANVAS = (128, 160)
CLASSES = 21
SHALLOW = (1, 1, 1, 1)
LEVELS = (2, 3, 4)


def build(num_classes: int = CLASSES, **options) -> FCOS:
    rngs = nnx.Rngs(0)
    extra = LastLevelP6P7(256, 256, rngs=rngs)
    shallow = partial(ResNet, BasicBlock, SHALLOW)
    backbone = resnet_fpn_backbone(shallow, returned_layers=LEVELS, extra_blocks=extra, rngs=rngs)
    return FCOS(backbone, num_classes, **options, rngs=rngs)


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    backbone = extractor(resnet.ResNet(resnet.BasicBlock, SHALLOW), 5, LEVELS, ReferenceP6P7(256, 256))
    return SmallPair(build, on_canvas(Reference(backbone, CLASSES)), CANVAS)


def test_fewer_detections_than_there_is_room_for(pair):
    with pair.changed(topk_candidates=15, nms_thresh=0.3):
        found = pair.same_detections()
    assert min(found) > 0 and max(found) <= 75


def test_of_several_boxes_around_a_point_it_learns_the_smallest(pair):
    """Boxes around one centre, from a few pixels to the whole image; two are equal, and their labels are not."""
    half = np.array([4, 10, 10, 24, 40, 62])[:, None] * np.array([-1, -0.9, 1, 0.9])
    boxes = np.stack([half + np.array([64, 62, 64, 62.0]), half + np.array([70, 64, 70, 64.0])])
    labels = np.stack([np.arange(1, 7), np.arange(7, 13)]).astype(np.int32)
    losses = pair.same_losses({"boxes": boxes, "labels": labels, "valid": np.ones((2, 6), bool)})
    shifted = pair.same_losses({"boxes": boxes, "labels": labels, "valid": np.arange(6) < np.array([[6], [4]])})
    assert all(losses[name] != shifted[name] for name in losses)


def test_images_without_objects_learn_the_background_only(pair):
    for rows in (0, 2):
        losses = pair.same_losses(nothing(rows))
        assert losses["classification"] > 0 and losses["bbox_regression"] == losses["bbox_ctrness"] == 0


def test_programs_take_it_and_find_boxes_in_float32():
    check_citizenship(nnx.eval_shape(build), CANVAS)


def test_impossible_arguments_are_refused_in_a_sentence():
    with pytest.raises(jaxzoo.UsageError, match="class 0 is the background"):
        build(num_classes=1)
    with pytest.raises(
        jaxzoo.UsageError, match=r"one anchor for each place of a level, and the generator makes \[3, 3\]"
    ):
        build(anchor_generator=AnchorGenerator(((8,), (16,)), (0.5, 1.0, 2.0)))
