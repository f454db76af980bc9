"""SSDlite against torchvision's, without the blocks of its backbone that repeat others."""

import numpy as np
import pytest
import torch

import jaxzoo
from convert.twins import build_twin
from tests.detection.pair import Pair, images_on_canvas, truths

CLASSES = 5
CANVAS = (160, 192)


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    name = "ssdlite320_mobilenet_v3_large"
    twin = build_twin(jaxzoo.card(name), num_classes=CLASSES)
    return Pair(lambda: jaxzoo.create_model(name, num_classes=CLASSES), twin, reduced=True, level=0)


def test_a_batch_of_two_sizes_has_torchvisions_detections(pair):
    sizes = np.array([CANVAS, (111, 150)], np.int32)
    images = images_on_canvas(sizes, CANVAS)
    assert pair.same_detections(images, sizes).tolist() == [300, 300]


def test_losses_and_gradients_are_torchvisions(pair):
    sizes = np.array([CANVAS, (111, 150), (160, 130)], np.int32)
    pair.same_losses(images_on_canvas(sizes, CANVAS), sizes, truths(sizes, CLASSES))
