"""SSDlite beside what the parity ladder compares: its whole tail, frozen layers, programs, arguments."""

import pytest
import torch
import torchvision.models.detection.ssdlite as reference
from torchvision.models import mobilenet_v3_large

import jaxzoo
from convert.rules import leaves
from convert.shapes import abstract
from jaxzoo.nn import Buffer
from tests.detection.pair import check_citizenship

NAME = "ssdlite320_mobilenet_v3_large"
CANVAS = (128, 160)


@pytest.mark.parametrize("trainable", range(7))
def test_whole_tail_and_frozen_layers_are_torchvisions(trainable, monkeypatch):
    """As it is where the backbone is loaded, on which torchvision's own builder insists."""
    with torch.device("meta"):
        monkeypatch.setattr(reference, "mobilenet_v3_large", lambda weights, **options: mobilenet_v3_large(**options))
        twin = reference.ssdlite320_mobilenet_v3_large(trainable_backbone_layers=trainable)
    ours = list(leaves(abstract(NAME, reduced_tail=False, trainable_backbone_layers=trainable)))
    assert [(x.key, x.torch_shape) for x in ours] == [(k, tuple(v.shape)) for k, v in twin.state_dict().items()]
    frozen = {name for name, parameter in twin.named_parameters() if not parameter.requires_grad}
    assert frozen == {x.key for x in ours if isinstance(x.variable, Buffer)}


def test_programs_take_it_and_find_boxes_in_float32():
    check_citizenship(abstract(NAME), CANVAS)


def test_impossible_arguments_are_refused_in_a_sentence():
    with pytest.raises(jaxzoo.UsageError, match="class 0 is the background"):
        abstract(NAME, num_classes=1)
    with pytest.raises(jaxzoo.UsageError, match="from 0 to 6, or None for all"):
        abstract(NAME, trainable_backbone_layers=-1)
