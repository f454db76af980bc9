"""Models start as their PyTorch twins do: every parameter is drawn from the same distribution."""

import collections

import numpy as np
import pytest
import torch

import jaxzoo
from convert.rules import state_dict
from convert.twins import build_twin
from tests.compare import agree_in_distribution
from tests.representatives import REPRESENTATIVES

# As wide as they are, these would take half of the time: a narrower one of the family does what they do.
WIDE = {"yolov1", "deeplabv1_vgg16", "fcn8s", "fcn16s", "fcn32s", "vgg11"}
AGAIN = {"deeplabv3plus_resnet50", "fcn_resnet50", "resnext50_32x4d", "shufflenet_v1_g1", "unet_resnet50"}


@pytest.mark.full(*REPRESENTATIVES - WIDE - AGAIN)
@pytest.mark.parametrize("name", jaxzoo.list_models())
def test_a_model_starts_as_its_twin(name):
    check(name, **{"in_channels": 3} if name in ("conv_autoencoder", "conv_vae") else {})  # one bias shows nothing


@pytest.mark.parametrize("name", ["deeplabv1_vgg16", "fcn8s", "fcn16s", "fcn32s"])
def test_a_narrow_model_starts_as_its_twin(name):
    check(name, width=1 / 8)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_residual_branches_start_at_zero_when_asked(name):
    check(name, zero_init_residual=True, num_classes=3)


def test_a_model_starts_from_torchs_defaults_when_asked():
    check("googlenet", init_weights=False)


def check(name: str, **arguments) -> None:
    """Every parameter is distributed as its twin's, every buffer has its numbers."""
    torch.manual_seed(1)
    module = build_twin(jaxzoo.card(name), **arguments)
    twin = {key: p.detach().numpy() for key, p in module.named_parameters()}
    ours = state_dict(jaxzoo.create_model(name, seed=1, **arguments))
    for key in module.state_dict().keys() - twin.keys():
        np.testing.assert_allclose(ours[key], module.state_dict()[key].numpy(), rtol=1e-6, err_msg=key)
    alike = collections.defaultdict(list)  # small tensors say more together: of one shape, with one end of the name
    for key, array in twin.items():
        agree_in_distribution(key, ours[key], array)
        alike[key.rpartition(".")[2], array.shape].append(key)
    for (end, shape), keys in alike.items():
        if len(keys) == 1:
            continue
        agree_in_distribution(f"all {end} {shape}", *(np.stack([side[k] for k in keys]) for side in (ours, twin)))


def test_another_distribution_is_told_apart():
    draws = np.random.default_rng(0)
    sample = draws.standard_normal(10_000)
    agree_in_distribution("same", draws.standard_normal(10_000), sample)
    for other, told_by in (
        (0.1 + draws.standard_normal(10_000), "mean"),
        (1.1 * draws.standard_normal(10_000), "moment 2"),
        (draws.laplace(scale=0.5**0.5, size=10_000), "moment 4"),
        (np.zeros(10_000), "constant"),
    ):
        with pytest.raises(AssertionError, match=told_by):
            agree_in_distribution("other", other, sample)
