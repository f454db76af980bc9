"""Every model computes what its PyTorch twin computes: levels L0 to L6 of DESIGN.md."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jaxzoo
from convert.files import torch_state_dict
from convert.heads import auxiliary
from convert.rules import leaves, load_state_dict, state_dict, versions
from jaxzoo.registry import argument_names
from tests.parity import ladder
from tests.parity.attributes import differences, misshapen
from tests.parity.detectors import DetectorPair, trunk
from tests.parity.generative import GenerativePair
from tests.parity.reduced import reduce_depth
from tests.representatives import TRAINED

# Parameters from which the numeric levels run on a shallow twin; maps of logits cost more.
LARGE = {
    "classification": 100_000_000,
    "segmentation": 43_000_000,
    "detection": 100_000_000,
    "reconstruction": 100_000_000,
}
PAIRS = {"detection": DetectorPair, "reconstruction": GenerativePair}
# What training adds to gradients is torch's and optax's, element by element: without --full these have to show it.
A_MODEL_OF_EACH_NORM = (
    "lenet5",
    "mobilenet_v2",
    "convnext_tiny",
    "mobilevitv2_050",
    "lraspp_mobilenet_v3_large",
    "rbm",
    "vae",
)
IN_FLOAT32 = (
    *A_MODEL_OF_EACH_NORM,
    "densenet121",
    "googlenet",
    "maxvit_t",
    "resnet18",
    "swin_v2_t",
    "vit_b_16",
    "zfnet",
)


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
def abstract(name) -> torch.nn.Module:
    """Its twin, without numbers."""
    return ladder.twin_without_numbers(name, **ladder.with_auxiliary_head(name))


@pytest.fixture(scope="module")
def large(name) -> bool:
    return jaxzoo.model_info(name).parameters > LARGE[jaxzoo.card(name).task]


@pytest.fixture(scope="module")
def reduced(request, large) -> bool:
    """Whether the numeric levels run on a shallow network: without --full on each."""
    return large or not request.config.getoption("full")


@pytest.fixture(scope="module")
def arguments(model) -> dict:
    """What makes a network that is built for one size of image another than the native one."""
    return {"image_size": 5 * model.patch_size} if hasattr(model, "image_size") else {}


@pytest.fixture(scope="module")
def size(request, name, pair) -> tuple[int, int]:
    """The native size, without --full a small one. Networks that segment take any, at a cost: one at which all their
    dilations count."""
    card, full = jaxzoo.card(name), request.config.getoption("full")
    if card.task == "segmentation":
        return ladder.first_size(name, ladder.LONG if full else ladder.LONG_AND_NARROW)
    return (card.input_size,) * 2 if full and card.task == "classification" else pair.size


@pytest.fixture(scope="module")
def pair(name, reduced, arguments, programs) -> ladder.Pair:
    return PAIRS.get(jaxzoo.card(name).task, ladder.Pair)(name, reduced=reduced, **arguments)


@pytest.fixture(scope="module")
def eval_pass(name, reduced, arguments, pair, size) -> ladder.EvalPass:
    if arguments and size != pair.size:
        pair = ladder.Pair(name, reduced=reduced, image_size=size[0])
    return ladder.EvalPass(pair, size)


@pytest.fixture(scope="module")
def train_errors(pair) -> dict[str, tuple[float, str]]:
    return ladder.train_errors(pair)


def test_l0_structure(name, model, abstract):
    assert [(x.key, x.torch_shape) for x in leaves(model)] == [
        (k, tuple(v.shape)) for k, v in abstract.state_dict().items()
    ]
    plain = ladder.twin_without_numbers(name) if ladder.with_auxiliary_head(name) else abstract
    assert jaxzoo.model_info(name).parameters == sum(p.numel() for p in plain.parameters())


@pytest.mark.full
def test_l0_head(name, model):
    """The card names what depends on the number of classes, and what only training runs."""
    card, arguments = jaxzoo.card(name), ladder.with_auxiliary_head(name)
    if "num_classes" not in argument_names(name):
        assert not card.head
        return
    shapes, others = (
        {x.key: x.torch_shape for x in leaves(found)}
        for found in (model, ladder.abstract_model(name, **arguments, num_classes=7))
    )
    depend = {key for key in shapes if shapes[key] != others[key]}
    assert depend == {key for key in shapes if key.startswith(tuple(f"{path}." for path in card.head))}
    argument, prefixes = auxiliary(name)
    if argument:
        without = {x.key for x in leaves(ladder.abstract_model(name, **{argument: False}))}
        assert shapes.keys() - without == {key for key in shapes if key.startswith(prefixes)}
    assert (argument is None) == (not prefixes)


def test_l0_attributes(model, abstract):
    assert not list(differences(model, abstract))


@pytest.mark.full
def test_l0_shapes_of_outputs(name, model, abstract):
    """Of every module, in a network without what it holds twice; of a detector those that see no numbers of boxes."""
    reduce_depth(model, abstract)
    card = jaxzoo.card(name)
    if card.task == "detection":
        model, abstract = trunk(model), trunk(abstract)
    size = ladder.LONG[1] if card.task == "segmentation" else (card.input_size,) * 2
    assert not list(misshapen(model, abstract, (*size, jax.tree.leaves(card.example_inputs())[0].shape[-1])))


@pytest.mark.full
def test_l1_forward_eval(eval_pass, measured):
    measured(eval_pass.error(jnp.float64), 1e-9)


@pytest.mark.full(*TRAINED)
def test_l2_forward_train(train_errors, measured):
    for part in ("logits", "statistics"):
        error, where = train_errors[part]
        measured(error, 1e-9, where)


@pytest.mark.full(*TRAINED)
def test_l3_gradients(train_errors, measured):
    error, where = train_errors["gradients"]
    measured(error, 1e-8, where)


@pytest.mark.full(*A_MODEL_OF_EACH_NORM)
@pytest.mark.parametrize("optimizer", ladder.OPTIMIZERS)
def test_l4_training(pair, optimizer, measured):
    error, where = ladder.training_error(pair, optimizer)
    measured(error, 1e-7, where)


@pytest.mark.full
def test_l5_round_trip(name):
    arguments = ladder.with_auxiliary_head(name)
    model, twin = ladder.abstract_model(name, **arguments), ladder.twin_without_numbers(name, **arguments)
    draws = np.random.default_rng(0)
    there = {
        key: draws.random(tuple(t.shape), np.float32) if t.is_floating_point() else draws.integers(12345, size=t.shape)
        for key, t in twin.state_dict().items()
    }
    load_state_dict(model, there)
    back = state_dict(model)
    assert back.keys() == there.keys()
    for key in there:
        assert back[key].dtype == there[key].dtype
        assert np.array_equal(back[key], there[key]), key
    twin.load_state_dict(torch_state_dict(back, versions(model)), strict=True, assign=True)


@pytest.mark.full(*IN_FLOAT32)
def test_l6_float32(request, name, large, pair, eval_pass, size, measured):
    if large and request.config.getoption("full"):
        measured(ladder.large_float32_error(type(pair), name, size), 1e-4)
    measured(eval_pass.error(jnp.float32), min(1e-4, 4 * eval_pass.twin_error(torch.float32)))
