"""What the networks of timm, pytorchcv and the paper of LeNet take beside their native size and defaults."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from timm.layers import DropPath
from timm.models.efficientnet import _gen_mobilenet_v1

import jaxzoo
from convert.rules import leaves
from convert.twins import build_twin
from jaxzoo.nn import Dropout, StochasticDepth


def structure(name: str, **arguments) -> dict[str, tuple[int, ...]]:
    model = nnx.eval_shape(lambda: jaxzoo.create_model(name, **arguments))
    return {leaf.key: leaf.torch_shape for leaf in leaves(model)}


def structure_of(twin: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in twin.state_dict().items()}


def rates(model: nnx.Module, kind: type) -> list[float]:
    return [module.p for _, module in nnx.iter_modules(model) if type(module) is kind]


@pytest.mark.parametrize("width", [0.25, 0.5, 0.75, 1.4])
def test_mobilenet_has_timms_widths(width):
    twin = _gen_mobilenet_v1("mobilenetv1_100", width)
    assert structure("mobilenetv1_100", channel_multiplier=width) == structure_of(twin)


def test_alexnet_without_groups_is_pytorchcvs():
    card = jaxzoo.card("alexnet_2012")
    assert card.weights["in1k"].arguments == {"groups": 1}
    with torch.device("meta"):
        twin = build_twin(card, groups=1)
    assert structure("alexnet_2012", groups=1) == structure_of(twin)


def test_alexnet_has_the_papers_sixty_million_parameters():
    assert jaxzoo.model_info("alexnet_2012").parameters == 60_965_224


def test_lenet_has_the_papers_parameters():
    shapes = structure("lenet5", in_channels=1)
    sizes = {}
    for key, shape in shapes.items():
        layer = key.partition(".")[0]
        sizes[layer] = sizes.get(layer, 0) + int(np.prod(shape))
    assert sizes == {"c1": 156, "s2": 12, "c3": 1516, "s4": 32, "c5": 48_120, "f6": 10_164, "output": 850}


@pytest.mark.parametrize("name", ["mobilevit_xxs", "mobilevitv2_050", "efficientnet_lite0"])
def test_stochastic_depth_grows_as_timms(name):
    arguments = {"drop_path_rate": 0.3, "drop_rate": 0.1}
    with torch.device("meta"):
        twin = build_twin(jaxzoo.card(name), **arguments)
    model = nnx.eval_shape(lambda: jaxzoo.create_model(name, **arguments))
    theirs = sorted(m.drop_prob for m in twin.modules() if isinstance(m, DropPath))
    ours = sorted(rates(model, StochasticDepth))
    np.testing.assert_allclose(ours[len(ours) - len(theirs) :], theirs, rtol=1e-6)
    assert not any(ours[: len(ours) - len(theirs)])  # timm leaves them out where the rate is 0
    assert rates(model, Dropout) == [0.1]


@pytest.mark.parametrize(("name", "size"), [("alexnet_2012", 256), ("zfnet", 180), ("lenet5", 28), ("lenet5", 36)])
def test_other_sizes_than_the_dense_layers_are_for_are_refused(name, size):
    with pytest.raises(jaxzoo.errors.UsageError, match=f"not {size}×{size}"):
        nnx.eval_shape(lambda: jaxzoo.create_model(name)(jnp.zeros((1, size, size, 3))))
