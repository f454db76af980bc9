"""Keypoint R-CNN detects what torchvision's detects, and learns as it does."""

import numpy as np
import pytest

from tests.detection.compare import BOXES, Pair, pad, same_detections, same_training
from tests.detection.test_faster_rcnn import LARGE, SMALL

POINTS = 5
ARGUMENTS = SMALL | {"num_classes": 2, "num_keypoints": POINTS, "box_detections_per_img": 50, "box_nms_thresh": 0.3}


def with_keypoints(targets):
    """Some in their box, some on its far edges, some outside, some not visible."""
    rng = np.random.default_rng(0)
    boxes = targets["boxes"][:, :, None]
    share = rng.uniform(-0.1, 1.1, (*targets["valid"].shape, POINTS, 2))
    share[:, :, 0] = 1
    place = boxes[..., :2] + share * (boxes[..., 2:] - boxes[..., :2])
    return targets | {"keypoints": np.concatenate([place, rng.integers(0, 3, (*share.shape[:3], 1))], 3)}


@pytest.fixture(scope="module")
def pair() -> Pair:
    return Pair("keypointrcnn_resnet50_fpn", LARGE, **ARGUMENTS)


def test_detections_equal_torchvisions(pair):
    ours, theirs = pair.detections()
    assert ours["keypoints"].shape == (2, 50, POINTS, 3) and ours["keypoints_scores"].shape == (2, 50, POINTS)
    same_detections(ours, theirs, least=15)


def test_training_equals_torchvisions(pair):
    for ours, theirs in pair.training([with_keypoints(pad(boxes, 2)) for boxes in BOXES.values()]):
        assert "loss_keypoint" in ours[0]
        same_training(ours, theirs)
