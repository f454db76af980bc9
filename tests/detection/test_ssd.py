"""SSD against torchvision's, with a narrow backbone on the smallest canvas that it takes."""

import pytest
import torch
import torchvision.models.detection.ssd as reference
from flax import nnx
from torchvision.models import vgg

import jaxzoo
from convert.twins.detection import on_canvas
from jaxzoo.classification.vgg import make_layers
from jaxzoo.detection.ssd import SSD, SSDFeatureExtractorVGG
from jaxzoo.nn.ops import DefaultBoxGenerator
from tests.detection.pair import SmallPair, check_citizenship, nothing
from tests.parity import ladder

NARROW = (8, "M", 8, "M", 8, "M", 512, "M", 512, "M")  # SSD's own layers ask for the last two
CANVAS = (272, 280)
CLASSES = 21
SHAPES = [[2], [2, 3], [2, 3], [2, 3], [2], [2]]
BOXES = {"scales": [0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05], "steps": [8, 16, 32, 64, 100, 300]}


class SSDPair(SmallPair):
    def inputs(self, *given, **options) -> tuple:
        """Images that fill the canvas, as SSD's do: beside zeros there would be equal scores."""
        x, sizes = super().inputs(*given, **options)
        return ladder.images(self.size, len(x)), sizes


def build(num_classes: int = CLASSES, **options) -> SSD:
    rngs = nnx.Rngs(0)
    backbone = SSDFeatureExtractorVGG(make_layers(NARROW, rngs=rngs), rngs=rngs)
    return SSD(backbone, DefaultBoxGenerator(SHAPES, **BOXES), CANVAS[::-1], num_classes, **options, rngs=rngs)


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    backbone = reference.SSDFeatureExtractorVGG(vgg.make_layers(NARROW), False)
    anchors = reference.DefaultBoxGenerator(SHAPES, **BOXES)
    return SSDPair(build, on_canvas(reference.SSD(backbone, anchors, CANVAS[::-1], CLASSES)), CANVAS)


def test_fewer_detections_than_there_is_room_for(pair):
    with pair.changed(topk_candidates=8, score_thresh=0.35):
        found = pair.same_detections()
    assert 0 < min(found) < max(found) < 160


def test_more_background_is_wanted_than_there_is(pair):
    with pair.changed(neg_to_pos_ratio=5000.0):
        pair.same_losses(pair.labels(0))


def test_images_without_objects_have_no_loss(pair):
    for rows in (0, 2):
        assert pair.same_losses(nothing(rows)) == {"classification": 0, "bbox_regression": 0}


def test_programs_take_it_and_find_boxes_in_float32():
    check_citizenship(nnx.eval_shape(build), CANVAS)


def test_impossible_arguments_are_refused_in_a_sentence():
    with pytest.raises(jaxzoo.UsageError, match="class 0 is the background"):
        build(num_classes=1)
    with pytest.raises(jaxzoo.UsageError, match="positive_fraction is 0; it must be above 0 and at most 1"):
        build(positive_fraction=0)
    with pytest.raises(jaxzoo.UsageError, match="from 0 to 5, or None for all"):
        jaxzoo.create_model("ssd300_vgg16", trainable_backbone_layers=6)
    backbone = SSDFeatureExtractorVGG(make_layers(NARROW, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0))
    with pytest.raises(jaxzoo.UsageError, match="the backbone has 6 levels and the anchor generator 5"):
        SSD(backbone, DefaultBoxGenerator(SHAPES[:5]), (300, 300), 21, rngs=nnx.Rngs(0))
