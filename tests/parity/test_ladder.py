"""Every model computes what its PyTorch twin computes: levels L0 to L6 of DESIGN.md."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jaxzoo
from convert.files import torch_state_dict
from convert.rules import leaves, load_state_dict, state_dict, versions
from convert.twins import abstract_twin, arrays, build_twin, randomise
from tests.parity import ladder

# Parameters from which the numeric levels run on a shallow twin; maps of logits cost more.
LARGE = {"classification": 100_000_000, "segmentation": 43_000_000}


def models() -> list:
    return [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in jaxzoo.list_models()]


@pytest.fixture(scope="module", params=models())
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(name):
    """Our model, without numbers."""
    return ladder.abstract_model(name, **ladder.with_auxiliary_head(name))


@pytest.fixture(scope="module")
def large(name, model) -> bool:
    return sum(math.prod(leaf.shape) for leaf in leaves(model)) > LARGE[jaxzoo.card(name).task]


@pytest.fixture(scope="module")
def arguments(model) -> dict:
    """What makes a network that is built for one size of image another than the native one."""
    return {"image_size": 5 * model.patch_size} if hasattr(model, "image_size") else {}


@pytest.fixture(scope="module")
def size(name) -> tuple[int, int]:
    """The native size. Networks that segment take any, at a cost: one at which all their dilations count."""
    card = jaxzoo.card(name)
    return ladder.first_size(name, ladder.LONG) if card.task == "segmentation" else (card.input_size,) * 2


@pytest.fixture(scope="module")
def pair(name, large, arguments) -> ladder.Pair:
    return ladder.Pair(name, reduced=large, **arguments)


@pytest.fixture(scope="module")
def whole_twin(name, large, pair) -> torch.nn.Module:
    """The twin in its full depth."""
    if not large:
        return pair.twin
    twin = build_twin(jaxzoo.card(name), **ladder.with_auxiliary_head(name))
    randomise(twin, seed=0)
    return twin


@pytest.fixture(scope="module")
def eval_pass(name, large, arguments, pair, size) -> ladder.EvalPass:
    return ladder.EvalPass(ladder.Pair(name, reduced=large, image_size=size[0]) if arguments else pair, size)


@pytest.fixture(scope="module")
def train_errors(pair) -> dict[str, tuple[float, str]]:
    return ladder.train_errors(pair)


def test_l0_structure(name, model):
    twin = abstract_twin(jaxzoo.card(name), **ladder.with_auxiliary_head(name))
    assert [(x.key, x.torch_shape) for x in leaves(model)] == [
        (k, tuple(v.shape)) for k, v in twin.state_dict().items()
    ]
    plain = abstract_twin(jaxzoo.card(name))
    assert jaxzoo.model_info(name).parameters == sum(p.numel() for p in plain.parameters())


def test_l1_forward_eval(eval_pass, measured):
    measured(eval_pass.error(jnp.float64), 1e-9)


@pytest.mark.full
def test_l2_forward_train(train_errors, measured):
    for part in ("logits", "statistics"):
        error, where = train_errors[part]
        measured(error, 1e-9, where)


@pytest.mark.full
def test_l3_gradients(train_errors, measured):
    error, where = train_errors["gradients"]
    measured(error, 1e-8, where)


@pytest.mark.full
@pytest.mark.parametrize("optimizer", ladder.OPTIMIZERS)
def test_l4_training(pair, optimizer, measured):
    error, where = ladder.training_error(pair, optimizer)
    measured(error, 1e-7, where)


def test_l5_round_trip(name, large, arguments, whole_twin):
    there = {
        key: np.full_like(array, 12345) if array.dtype == np.int64 and array.ndim == 0 else array
        for key, array in arrays(whole_twin).items()
    }
    there = {key: array.astype(np.float32) if array.dtype == np.float64 else array for key, array in there.items()}
    model = ladder.abstract_model(name, **ladder.with_auxiliary_head(name), **({} if large else arguments))
    load_state_dict(model, there)
    back = state_dict(model)
    assert back.keys() == there.keys()
    for key in there:
        assert back[key].dtype == there[key].dtype
        assert np.array_equal(back[key], there[key]), key
    whole_twin.load_state_dict(torch_state_dict(back, versions(model)), strict=True)


@pytest.mark.full
def test_l6_float32(name, large, whole_twin, eval_pass, size, measured):
    if large:
        measured(ladder.large_float32_error(name, whole_twin, size), 1e-4)
    measured(eval_pass.error(jnp.float32), min(1e-4, 4 * eval_pass.twin_error(torch.float32)))
