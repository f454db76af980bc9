"""SSD against torchvision's, with a narrow backbone on the smallest canvas that it takes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torchvision.models.detection.ssd as reference
from flax import nnx
from torchvision.models import vgg

import convert
import jaxzoo
from convert.rules import leaves
from convert.shapes import abstract
from convert.twins import abstract_twin, arrays
from convert.twins.detection import on_canvas
from jaxzoo.classification.vgg import make_layers
from jaxzoo.detection.ssd import SSD, SSDFeatureExtractorVGG
from jaxzoo.nn.ops import DefaultBoxGenerator
from tests.compare import normal
from tests.detection.pair import Pair, truths

NAME = "ssd300_vgg16"
NARROW = (8, "M", 8, "M", 8, "M", 512, "M", 512, "M")  # SSD's own layers ask for the last two
CANVAS = (272, 280)
CLASSES = 5
BOXES = {"scales": [0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05], "steps": [8, 16, 32, 64, 100, 300]}
SHAPES = [[2], [2, 3], [2, 3], [2, 3], [2], [2]]
SIZES = np.array([CANVAS, (199, 230), (250, 280)], np.int32)


def images(count: int) -> np.ndarray:
    """Without zeros below and to the right, where scores would be equal; SSD's images fill their canvas anyway."""
    return normal(count, *CANVAS, 3)


def build(**options) -> SSD:
    rngs = nnx.Rngs(0)
    backbone = SSDFeatureExtractorVGG(make_layers(NARROW, rngs=rngs), rngs=rngs)
    return SSD(backbone, DefaultBoxGenerator(SHAPES, **BOXES), CANVAS[::-1], CLASSES, **options, rngs=rngs)


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    backbone = reference.SSDFeatureExtractorVGG(vgg.make_layers(NARROW), False)
    anchors = reference.DefaultBoxGenerator(SHAPES, **BOXES)
    return Pair(build, on_canvas(reference.SSD(backbone, anchors, CANVAS[::-1], CLASSES)))


def test_a_batch_of_two_sizes_has_torchvisions_detections(pair):
    assert pair.same_detections(images(2), SIZES[:2]).tolist() == [200, 200]


def test_where_few_scores_are_high_enough_the_rest_is_zeros(pair):
    with pair.changed(score_thresh=0.9, nms_thresh=0.3):
        found = pair.same_detections(images(2), SIZES[:2])
    assert 0 < found.min() < found.max() < 200


def test_more_detections_than_candidates(pair):
    with pair.changed(topk_candidates=20):
        assert pair.same_detections(images(2), SIZES[:2]).max() < 80


def test_losses_and_gradients_are_torchvisions(pair):
    pair.same_losses(images(3), SIZES, truths(SIZES, CLASSES))


def test_more_background_is_wanted_than_there_is(pair):
    with pair.changed(neg_to_pos_ratio=5000.0):
        pair.same_losses(images(3), SIZES, truths(SIZES, CLASSES), gradients=False)


def test_a_batch_without_objects_has_no_loss(pair):
    nothing = {"boxes": jnp.zeros((1, 0, 4)), "labels": jnp.zeros((1, 0), int), "valid": jnp.zeros((1, 0), bool)}
    padding = {
        "boxes": jnp.full((1, 2, 4), jnp.nan),
        "labels": jnp.zeros((1, 2), int),
        "valid": jnp.zeros((1, 2), bool),
    }
    for targets in (nothing, padding):
        losses = pair.model.losses(jnp.asarray(images(1)), None, targets)
        assert {name: float(loss) for name, loss in losses.items()} == {"classification": 0, "bbox_regression": 0}
