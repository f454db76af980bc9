"""A new model starts as its reference starts: every tensor has the same distribution."""

import numpy as np
import pytest
import torch
import torchvision

import convert
import jaxzoo
from tests.compare import agree_in_distribution

# One of each family, the smallest, and those that start in a way of their own. VGG's smallest has 133 M parameters.
MODELS = [
    "convnext_tiny",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "resnet18",
    "resnext50_32x4d",
    "swin_t",
    "swin_v2_t",
    "vgg11_bn",
    "vit_b_32",
]


def check(name: str, **arguments) -> None:
    torch.manual_seed(0)
    twin = torchvision.models.get_model(name, weights=None, **arguments)
    ours = convert.state_dict(jaxzoo.create_model(name, **arguments))
    buffers = {buffer for buffer, _ in twin.named_buffers()}
    for key, tensor in twin.state_dict().items():
        if key in buffers:
            np.testing.assert_allclose(ours[key], tensor.numpy(), rtol=1e-6, err_msg=key)
        else:
            agree_in_distribution(key, ours[key], tensor.numpy())


@pytest.mark.parametrize("name", MODELS)
def test_a_model_starts_as_torchvisions(name):
    check(name)


def test_every_family_is_among_them():
    families = {jaxzoo.card(name).builder.__module__ for name in jaxzoo.list_models(task="classification")}
    assert families == {jaxzoo.card(name).builder.__module__ for name in MODELS}


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_residual_branches_start_at_zero_when_asked(name):
    check(name, zero_init_residual=True, num_classes=3)
