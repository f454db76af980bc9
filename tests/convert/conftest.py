"""Small torch models with every tensor random, and their weights on disk."""

import pytest
import torch
import torchvision

from convert.twins import randomise


def small(name: str, **arguments) -> torch.nn.Module:
    torch.manual_seed(0)
    twin = torchvision.models.get_model(name, weights=None, **arguments).eval()
    randomise(twin, seed=0)
    return twin


@pytest.fixture(scope="session")
def twin() -> torch.nn.Module:
    return small("mobilenet_v3_small", num_classes=7)


@pytest.fixture(scope="session")
def weights(twin, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("weights") / "mobile.pth"
    torch.save(twin.state_dict(), path)
    return str(path)
