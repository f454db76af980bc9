"""Every model computes what its PyTorch twin computes: levels L0 to L6 of DESIGN.md."""

import math

import numpy as np
import pytest
import torch

import jaxzoo
from convert.rules import leaves, load_state_dict, state_dict
from convert.twins import arrays, build_twin, randomise
from tests.parity import ladder

LARGE = 100_000_000  # parameters from which the numeric levels run on a shallow twin
PATCHED = 96  # pixels, for networks that are built for one size of image


def models() -> list:
    return [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in jaxzoo.list_models()]


@pytest.fixture(scope="module", params=models())
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(name):
    """Our model, without numbers."""
    return ladder.abstract_model(name)


@pytest.fixture(scope="module")
def large(model) -> bool:
    return sum(math.prod(leaf.shape) for leaf in leaves(model)) > LARGE


@pytest.fixture(scope="module")
def size_arguments(model) -> dict:
    return {"image_size": PATCHED} if hasattr(model, "image_size") else {}


@pytest.fixture(scope="module")
def pair(name, large, size_arguments) -> ladder.Pair:
    return ladder.Pair(name, reduced=large, **size_arguments)


@pytest.fixture(scope="module")
def train_errors(pair) -> dict[str, tuple[float, str]]:
    return ladder.train_errors(pair)


@pytest.fixture
def native_pair(name, large, pair, size_arguments) -> ladder.Pair:
    return ladder.Pair(name, reduced=large, image_size=jaxzoo.card(name).input_size) if size_arguments else pair


@pytest.fixture
def twin32(name) -> torch.nn.Module:
    twin = build_twin(jaxzoo.card(name))
    randomise(twin, seed=1)
    return twin


def test_l0_structure(name, model):
    with torch.device("meta"):
        twin = build_twin(jaxzoo.card(name))
    assert {x.key: x.torch_shape for x in leaves(model)} == {k: tuple(v.shape) for k, v in twin.state_dict().items()}
    assert jaxzoo.model_info(name).parameters == sum(p.numel() for p in twin.parameters())


def test_l1_forward_eval(name, pair, native_pair, measured):
    native = jaxzoo.card(name).input_size
    measured(ladder.forward_error(pair, pair.size), 1e-9)
    measured(ladder.forward_error(native_pair, (native, native)), 1e-9)


def test_l2_forward_train(train_errors, measured):
    for part in ("logits", "statistics"):
        error, where = train_errors[part]
        measured(error, 1e-9, where)


def test_l3_gradients(train_errors, measured):
    error, where = train_errors["gradients"]
    measured(error, 1e-8, where)


@pytest.mark.parametrize("optimizer", ladder.OPTIMIZERS)
def test_l4_training(pair, optimizer, measured):
    error, where = ladder.training_error(pair, optimizer)
    measured(error, 1e-7, where)


def test_l5_round_trip(model, twin32):
    for key, buffer in twin32.named_buffers():
        if key.endswith("num_batches_tracked"):
            buffer.fill_(12345)
    there = arrays(twin32)
    load_state_dict(model, there)
    back = state_dict(model)
    assert back.keys() == there.keys()
    for key in there:
        assert back[key].dtype == there[key].dtype
        assert np.array_equal(back[key], there[key]), key
    twin32.load_state_dict({key: torch.tensor(array) for key, array in back.items()}, strict=True)


def test_l6_float32(name, large, native_pair, measured):
    native = jaxzoo.card(name).input_size
    if large:
        measured(ladder.large_float32_error(name), 1e-4)
    ours, torchs = ladder.float32_errors(native_pair, (native, native))
    measured(ours, min(1e-4, 4 * torchs))
