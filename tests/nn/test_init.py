"""Layers start as torch's start: same mean, same spread, same bounds."""

import jax
import numpy as np
import pytest
import torch
from flax import nnx

import convert
from jaxzoo import nn
from jaxzoo.nn import init
from tests.compare import agree_in_distribution

LAYERS = {
    "Conv": (lambda rngs: nn.Conv(60, 50, 3, rngs=rngs), lambda: torch.nn.Conv2d(60, 50, 3)),
    "Conv in groups": (
        lambda rngs: nn.Conv(60, 600, (3, 5), groups=3, rngs=rngs),
        lambda: torch.nn.Conv2d(60, 600, (3, 5), groups=3),
    ),
    "ConvTranspose": (
        lambda rngs: nn.ConvTranspose(60, 400, 3, groups=2, rngs=rngs),
        lambda: torch.nn.ConvTranspose2d(60, 400, 3, groups=2),
    ),
    "Linear": (lambda rngs: nn.Linear(100, 700, rngs=rngs), lambda: torch.nn.Linear(100, 700)),
    "Embed": (lambda rngs: nn.Embed(200, 100, rngs=rngs), lambda: torch.nn.Embedding(200, 100)),
    "MultiHeadAttention": (
        lambda rngs: nn.MultiHeadAttention(96, 2, rngs=rngs),
        lambda: torch.nn.MultiheadAttention(96, 2),
    ),
    "BatchNorm": (lambda rngs: nn.BatchNorm(5, rngs=rngs), lambda: torch.nn.BatchNorm2d(5)),
    "LayerNorm": (lambda rngs: nn.LayerNorm(5, rngs=rngs), lambda: torch.nn.LayerNorm(5)),
    "GroupNorm": (lambda rngs: nn.GroupNorm(2, 6, rngs=rngs), lambda: torch.nn.GroupNorm(2, 6)),
    "SqueezeExcitation": (
        lambda rngs: nn.SqueezeExcitation(200, 300, rngs=rngs),
        lambda: __import__("torchvision").ops.SqueezeExcitation(200, 300),
    ),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_layer_starts_as_torchs(layer):
    ours, theirs = LAYERS[layer]
    torch.manual_seed(0)
    state = convert.state_dict(ours(nnx.Rngs(0)))
    for name, tensor in theirs().state_dict().items():
        agree_in_distribution(name, state[name], tensor.numpy())
        if tensor.numel() > 500 and "Embed" not in layer:  # uniform: the bounds are reached and kept
            assert abs(np.abs(state[name]).max() / tensor.abs().max().item() - 1) < 0.02, name


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (init.normal(0.02), lambda t: torch.nn.init.normal_(t, std=0.02)),
        (init.normal(0.02), lambda t: torch.nn.init.trunc_normal_(t, std=0.02)),
        (init.uniform(0.3), lambda t: torch.nn.init.uniform_(t, -0.3, 0.3)),
        (init.kaiming_normal(), torch.nn.init.kaiming_normal_),
        (init.kaiming_normal("fan_out"), lambda t: torch.nn.init.kaiming_normal_(t, mode="fan_out")),
        (init.kaiming_uniform, torch.nn.init.kaiming_uniform_),
        (init.xavier_uniform, torch.nn.init.xavier_uniform_),
        (init.torch_default, lambda t: torch.nn.init.kaiming_uniform_(t, a=5**0.5)),
        (init.constant(0.7), lambda t: torch.nn.init.constant_(t, 0.7)),
        (init.ones, torch.nn.init.ones_),
        (init.zeros, torch.nn.init.zeros_),
    ],
)
def test_initialiser_draws_as_torchs(ours, theirs, traced):
    torch.manual_seed(0)
    expected = theirs(torch.empty(80, 30, 3, 5)).numpy()

    def draw(key):
        return ours(key, (3, 5, 30, 80), np.float32)

    drawn = (jax.jit(draw) if traced else draw)(jax.random.key(0))
    agree_in_distribution("kernel", np.asarray(drawn).transpose(3, 2, 0, 1), expected)


def test_the_seed_decides_every_weight():
    a, b, c = (nn.MLP(5, [6, 7], rngs=nnx.Rngs(seed)) for seed in (0, 0, 1))
    a, b, c = (convert.state_dict(module) for module in (a, b, c))
    assert all(np.array_equal(a[name], b[name]) and not np.array_equal(a[name], c[name]) for name in a)


def test_layers_of_one_stream_differ():
    rngs = nnx.Rngs(0)
    one, other = (nn.Linear(5, 5, rngs=rngs).kernel[...] for _ in range(2))
    assert (one != other).all()
