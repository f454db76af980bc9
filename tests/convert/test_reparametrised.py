"""Normalised and pruned weights are read as the weights that torch computes from their pieces."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import utils
from torch.nn.utils import parametrizations, prune

import convert

LAYERS = {
    "linear": lambda: nn.Linear(5, 4),
    "square": lambda: nn.Linear(4, 4),
    "conv": lambda: nn.Conv2d(3, 4, 3),
    "transposed": lambda: nn.ConvTranspose2d(4, 4, 3),
}
WAYS = {
    "weight_norm": utils.weight_norm,
    "weight_norm of all": lambda layer: utils.weight_norm(layer, dim=None),
    "weight_norm of columns": lambda layer: utils.weight_norm(layer, dim=1),
    "spectral_norm": utils.spectral_norm,
    "parametrized weight_norm": parametrizations.weight_norm,
    "parametrized spectral_norm": parametrizations.spectral_norm,
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    "pruned bias": lambda layer: prune.random_unstructured(layer, "bias", 0.5),
}


@pytest.mark.filterwarnings("ignore")  # torch would rather have its parametrizations
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layer", LAYERS)
def test_the_weight_is_what_torch_computes(tmp_path, layer, way):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Identity(), WAYS[way](LAYERS[layer]()))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.5)  # after the last power iteration
    net.eval()
    inside = net[1]
    net(torch.zeros((2, inside.in_features) if isinstance(inside, nn.Linear) else (1, inside.in_channels, 5, 5)))
    torch.save(net.state_dict(), tmp_path / "a.pth")
    found = convert.read(tmp_path / "a.pth")
    assert set(found) == {"1.weight", "1.bias"}
    for name in ("weight", "bias"):
        expected = getattr(inside, name).detach().numpy()
        np.testing.assert_allclose(found[f"1.{name}"], expected, rtol=2e-6, atol=1e-7)


def test_names_that_look_like_pieces_and_have_no_others_stay(tmp_path):
    tensors = {"a.weight_g": torch.ones(2), "b.weight_v": torch.ones(2), "c.weight": torch.ones(1)}
    tensors |= {"c.weight_g": torch.ones(1), "c.weight_v": torch.ones(1)}
    torch.save(tensors, tmp_path / "a.pth")
    assert convert.read(tmp_path / "a.pth").keys() == tensors.keys()
