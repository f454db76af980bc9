"""`inspect.multiply_adds` counts what torch and torchvision count."""

import jax
import jax.numpy as jnp
import pytest
import torch
import torchvision
from flax import nnx
from torch.utils.flop_counter import FlopCounterMode

from jaxzoo import card, create_model, nn
from jaxzoo.inspect import multiply_adds

RNGS = nnx.Rngs(0)


@pytest.mark.parametrize(
    "name", ["resnet50", "resnext50_32x4d", "vit_b_16", "swin_t", "swin_v2_t", "mobilenet_v3_large", "convnext_tiny"]
)
def test_models_cost_what_torchvision_publishes(name):
    published = torchvision.models.get_model_weights(name).DEFAULT.meta["_ops"]  # 10⁹ multiply-adds at 224², 3 places
    side = card(name).input_size
    counts = multiply_adds(nnx.eval_shape(lambda: create_model(name)), (1, side, side, 3))
    assert abs(counts[""] / 1e9 - published) <= 0.0005


@pytest.mark.parametrize(
    ("ours", "theirs", "shape"),
    [
        (nn.Conv(4, 6, 3, 2, 1, rngs=RNGS), torch.nn.Conv2d(4, 6, 3, 2, 1), (2, 7, 9, 4)),
        (nn.Conv(4, 8, 1, rngs=RNGS), torch.nn.Conv2d(4, 8, 1), (2, 7, 9, 4)),
        (nn.Conv(4, 8, 3, groups=2, rngs=RNGS), torch.nn.Conv2d(4, 8, 3, groups=2), (2, 7, 9, 4)),
        (nn.Conv(4, 4, 5, groups=4, rngs=RNGS), torch.nn.Conv2d(4, 4, 5, groups=4), (2, 7, 9, 4)),
        (nn.ConvTranspose(4, 6, 3, 2, rngs=RNGS), torch.nn.ConvTranspose2d(4, 6, 3, 2), (2, 7, 9, 4)),
        (nn.Linear(5, 6, rngs=RNGS), torch.nn.Linear(5, 6), (2, 3, 5)),
    ],
    ids=["convolution", "pointwise", "grouped", "depthwise", "transposed", "linear"],
)
def test_layers_cost_what_torch_counts(ours, theirs, shape):
    with FlopCounterMode(display=False) as counter:
        theirs(torch.zeros(shape).movedim(-1, 1) if len(shape) == 4 else torch.zeros(shape))
    assert multiply_adds(ours, shape) == {"": counter.get_total_flops() / 2}


def test_attention_counts_both_products():
    layer = nn.MultiHeadAttention(8, 2, rngs=RNGS)
    counts = multiply_adds(layer, (3, 5, 8))
    assert counts == {"in_proj": 3 * 5 * 8 * 24, "out_proj": 3 * 5 * 8 * 8, "": 3 * (5 * 8 * 32 + 2 * 5 * 5 * 8)}


def test_paths_hold_what_is_inside_them():
    counts = multiply_adds(create_model("resnet18"), (1, 224, 224, 3))
    stages = [counts[f"layer{i}"] for i in range(1, 5)]
    assert counts["layer1.0.conv1"] == 56**2 * 64 * 64 * 9 and "bn1" not in counts
    assert counts[""] == counts["conv1"] + sum(stages) + counts["fc"]


def test_interpolation_is_not_counted():
    class Enlarged(nnx.Module):
        def __init__(self):
            self.conv = nn.Conv(3, 2, 1, rngs=RNGS)

        def __call__(self, x):
            return jax.jit(lambda x: nn.resize(x, (20, 30), mode="bilinear"))(self.conv(x))

    assert multiply_adds(Enlarged(), (1, 7, 9, 3)) == {"conv": 7 * 9 * 6, "": 7 * 9 * 6}


def test_a_loop_counts_as_often_as_it_runs():
    class Loop(nnx.Module):
        def __call__(self, x):
            return jax.lax.scan(lambda y, _: (jnp.tanh(y @ y), None), x, length=7)[0]

    assert multiply_adds(Loop(), (3, 3)) == {"": 7 * 27}
