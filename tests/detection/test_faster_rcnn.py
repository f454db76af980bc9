"""Faster R-CNN beside what the parity ladder compares: targets without rows, arguments, layers that learn."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
import torch
import torchvision
from flax import nnx
from torchvision.models.detection import backbone_utils as reference

from convert.rules import leaves
from convert.shapes import abstract
from jaxzoo import UsageError
from jaxzoo.detection.faster_rcnn import FasterRCNN
from tests.parity.detectors import SMALL

MODELS = [
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
]


def test_targets_may_have_no_rows():
    model = abstract(MODELS[-1], **SMALL)
    images = jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.float32)
    none = {"boxes": jnp.zeros((2, 0, 4)), "labels": jnp.zeros((2, 0), int), "valid": jnp.zeros((2, 0), bool)}
    losses = jax.eval_shape(lambda model, images: model.losses(images, None, none), model, images)
    assert {loss.shape for loss in losses.values()} == {()} and len(losses) == 4


def test_impossible_arguments_are_refused_in_a_sentence():
    with pytest.raises(UsageError, match="class 0 is the background, so one kind of object takes num_classes=2"):
        abstract(MODELS[0], num_classes=1)
    with pytest.raises(UsageError, match="trainable_backbone_layers is 7; it must be from 0 to 6"):
        abstract(MODELS[-1], trainable_backbone_layers=7)
    with pytest.raises(UsageError, match="give num_classes or box_predictor"):
        FasterRCNN(nnx.Module(), None, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("name", "build", "extract"),
    [
        (MODELS[0], torchvision.models.resnet50, reference._resnet_fpn_extractor),
        (MODELS[-1], torchvision.models.mobilenet_v3_large, partial(reference._mobilenet_extractor, fpn=True)),
    ],
)
@pytest.mark.parametrize("trainable", [0, 2, 4, 5])
def test_the_layers_that_learn_are_torchvisions(name, build, extract, trainable):
    model = abstract(name, trainable_backbone_layers=trainable)
    with torch.device("meta"):
        twin = extract(build(), trainable_layers=trainable)
    learned = {leaf.key for leaf in leaves(model.backbone) if isinstance(leaf.variable, nnx.Param)}
    assert learned == {key for key, parameter in twin.named_parameters() if parameter.requires_grad}
