"""Containers and shared blocks: torchvision's names, torch's order, torch's values."""

from collections import OrderedDict
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torchvision
from flax import nnx

import convert
from jaxzoo.nn import (
    GELU,
    MLP,
    BatchNorm,
    ConvNormActivation,
    Flatten,
    GroupNorm,
    Hardsigmoid,
    Hardswish,
    Identity,
    LayerScale,
    Linear,
    NamedSequential,
    ReLU,
    Sequential,
    SiLU,
    SqueezeExcitation,
    flatten,
)
from tests.compare import agree, close, normal, to_last, twins

Norm = partial(torch.nn.BatchNorm2d, eps=1e-3, momentum=0.01)


@pytest.mark.parametrize(
    ("arguments", "ours", "theirs"),
    [
        ({}, {}, {}),
        ({"kernel_size": 5, "stride": 2, "dilation": 2}, {}, {}),
        ({"kernel_size": (3, 5), "dilation": (2, 1), "groups": 3}, {}, {}),
        ({"padding": 0, "bias": False}, {}, {}),
        ({"norm_layer": None}, {}, {}),
        ({"norm_layer": None, "bias": False}, {}, {}),
        ({"activation_layer": None, "kernel_size": 1}, {}, {}),
        (
            {},
            {"norm_layer": partial(BatchNorm, eps=1e-3, momentum=0.01), "activation_layer": Hardswish},
            {"norm_layer": Norm, "activation_layer": torch.nn.Hardswish},
        ),
        (
            {},
            {"norm_layer": partial(GroupNorm, 3), "activation_layer": SiLU},
            {"norm_layer": partial(torch.nn.GroupNorm, 3), "activation_layer": torch.nn.SiLU},
        ),
    ],
)
def test_conv_norm_activation_equals_torchvision(arguments, ours, theirs):
    twin = torchvision.ops.Conv2dNormActivation(3, 6, **arguments, **({"inplace": None} | theirs))
    layer, twin = twins(lambda rngs: ConvNormActivation(3, 6, **arguments, **ours, rngs=rngs), twin)
    layer.train()
    agree(layer, twin.train(), normal(2, 3, 9, 10))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"scale_activation": Hardsigmoid}, {"scale_activation": torch.nn.Hardsigmoid}),
        ({"activation": SiLU}, {"activation": torch.nn.SiLU}),
    ],
)
def test_squeeze_excitation_equals_torchvision(ours, theirs):
    twin = torchvision.ops.SqueezeExcitation(6, 4, **theirs)
    agree(*twins(lambda rngs: SqueezeExcitation(6, 4, **ours, rngs=rngs), twin), normal(2, 6, 3, 5))


@pytest.mark.parametrize("hidden", [[7], [7, 3], [4, 6, 5]])
def test_mlp_equals_torchvision(hidden):
    twin = torchvision.ops.MLP(5, hidden, activation_layer=torch.nn.GELU, inplace=None)
    agree(*twins(lambda rngs: MLP(5, hidden, GELU, rngs=rngs), twin), normal(2, 3, 5), images=False)


def test_layer_scale_scales_channels_and_starts_small():
    class Twin(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gamma = torch.nn.Parameter(torch.ones(5))

        def forward(self, x):
            return x * self.gamma[:, None, None]

    agree(*twins(lambda rngs: LayerScale(5), Twin()), normal(2, 5, 3, 4))
    np.testing.assert_array_equal(LayerScale(3, 1e-6).gamma[...], np.full(3, np.float32(1e-6)))


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 1, 1), (2, 3), (2, 3, 4), (2, 3, 2, 4, 5), (0, 3, 2, 2)])
def test_flatten_keeps_torchs_order(shape):
    agree(Flatten(), torch.nn.Flatten(), normal(*shape))
    assert flatten(jnp.asarray(to_last(normal(*shape)))).shape == (shape[0], np.prod(shape[1:]))


def test_sequential_numbers_its_children_as_torch_does():
    class Twin(torch.nn.Module):
        def __init__(self):
            super().__init__()
            sequential, linear = torch.nn.Sequential, torch.nn.Linear
            self.features = sequential(linear(4, 5), torch.nn.ReLU(), sequential(linear(5, 3), linear(3, 2)))

        def forward(self, x):
            return self.features(x)

    class Ours(nnx.Module):
        def __init__(self, rngs):
            linear = partial(Linear, rngs=rngs)
            self.features = Sequential(linear(4, 5), ReLU(), Sequential(linear(5, 3), linear(3, 2)))

        def __call__(self, x):
            return self.features(x)

    ours, twin = twins(Ours, Twin())
    assert convert.state_dict(ours).keys() == twin.state_dict().keys()
    agree(ours, twin, normal(3, 4))


def test_sequential_is_a_list():
    layers = Sequential(ReLU(), Identity(), GELU())
    assert [type(layer) for layer in layers] == [ReLU, Identity, GELU]
    assert len(layers) == 3 and layers[1] is list(layers)[1]


def test_an_empty_sequential_and_identity_change_nothing():
    x = jnp.ones(3)
    assert Sequential()(x) is x and Identity()(x) is x and NamedSequential()(x) is x


def test_named_sequential_runs_in_the_order_given():
    twin = torch.nn.Sequential(OrderedDict(b=torch.nn.Linear(4, 5), a=torch.nn.GELU(), c=torch.nn.Linear(5, 2)))
    ours, twin = twins(
        lambda rngs: NamedSequential(b=Linear(4, 5, rngs=rngs), a=GELU(), c=Linear(5, 2, rngs=rngs)), twin
    )
    agree(ours, twin, normal(3, 4))
    graph, state = nnx.split(ours)
    close(nnx.merge(graph, state)(jnp.ones((1, 4))), ours(jnp.ones((1, 4))))
