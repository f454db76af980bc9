"""Mask R-CNN detects what torchvision's detects, and learns as it does."""

import numpy as np
import pytest

from tests.detection.compare import BOXES, CANVAS, Pair, pad, same_detections, same_training
from tests.detection.test_faster_rcnn import CLASSES, LARGE, SMALL

WIDE = {"roi_heads.mask_predictor.mask_fcn_logits": 10}
MODELS = ["maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"]


def with_masks(targets):
    """Random pixels in the upper three quarters of each box; all of them where an image is padded."""
    (height, width), masks = CANVAS, np.ones((*targets["valid"].shape, *CANVAS), np.uint8)
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).uniform(size=masks.shape) < 0.7
    for place in zip(*np.nonzero(targets["valid"]), strict=True):
        x1, y1, x2, y2 = targets["boxes"][place]
        masks[place] = noise[place] & (x1 <= x) & (x < x2) & (y1 <= y) & (y < y2 - (y2 - y1) / 4)
    return targets | {"masks": masks}


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in MODELS])
def pair(request) -> Pair:
    return Pair(request.param, LARGE | WIDE, **SMALL)


def test_detections_equal_torchvisions(pair):
    ours, theirs = pair.detections()
    assert ours["masks"].shape == (2, SMALL["box_detections_per_img"], 28, 28)
    same_detections(ours, theirs, least=12)


def test_training_equals_torchvisions(pair):
    for ours, theirs in pair.training([with_masks(pad(boxes, CLASSES)) for boxes in BOXES.values()]):
        assert "loss_mask" in ours[0]
        same_training(ours, theirs)
