"""Faster R-CNN detects what torchvision's detects, and learns as it does."""

import pytest

from tests.detection.compare import BOXES, Pair, pad, same_detections, same_training

CLASSES = 7
SMALL = {
    "num_classes": CLASSES,
    "rpn_pre_nms_top_n_test": 150,
    "rpn_post_nms_top_n_test": 200,
    "rpn_pre_nms_top_n_train": 120,
    "rpn_post_nms_top_n_train": 140,
    "box_score_thresh": 0.05,
    "box_detections_per_img": 110,
    "box_batch_size_per_image": 160,
}
LARGE = {
    "rpn.head.cls_logits": 20,
    "rpn.head.bbox_pred": 10,
    "roi_heads.box_predictor.cls_score": 3,
    "roi_heads.box_predictor.bbox_pred": 10,
}
MODELS = [
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
]


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in MODELS])
def pair(request) -> Pair:
    return Pair(request.param, LARGE, **SMALL)


def test_detections_equal_torchvisions(pair):
    same_detections(*pair.detections(), least=25)


def test_training_equals_torchvisions(pair):
    for ours, theirs in pair.training([pad(boxes, CLASSES) for boxes in BOXES.values()]):
        same_training(ours, theirs)
