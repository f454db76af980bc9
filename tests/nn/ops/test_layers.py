"""Focal loss, frozen batch norm, L2 normalisation and feature pyramids equal torchvision's, and convert by name."""

from collections import OrderedDict
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torchvision
from flax import nnx

import convert
from jaxzoo import nn
from jaxzoo.nn import ops
from tests.compare import agree, arrays, close, normal, twins
from tests.nn.ops.compare import same


@pytest.mark.parametrize("arguments", [{}, {"alpha": -1, "reduction": "sum"}, {"gamma": 1.5, "reduction": "mean"}])
def test_focal_loss_equals_torchvision(arguments):
    targets = np.random.default_rng(0).integers(0, 2, (5, 7)).astype(np.float64)
    ours, theirs = (partial(m.sigmoid_focal_loss, **arguments) for m in (ops, torchvision.ops))
    agree(ours, theirs, normal(5, 7) * 5, targets, images=False)
    same(lambda x: ours(x, jnp.asarray(targets)), lambda x: theirs(x, torch.tensor(targets)), normal(5, 7) * 5)
    far = np.array([[0.0, 0.0, 40.0, -40.0, 700.0, -700.0]])
    agree(ours, theirs, far, np.array([[1.0, 0, 1, 0, 0, 1]]), images=False)


def test_focal_loss_of_other_dtypes_and_of_nothing():
    x = jnp.asarray(normal(5), jnp.bfloat16)
    loss = ops.sigmoid_focal_loss(x, jnp.ones(5, jnp.uint8))
    assert loss.dtype == jnp.float32
    close(loss, ops.sigmoid_focal_loss(x.astype(jnp.float32), jnp.ones(5, jnp.float32)), bound=1e-6)
    assert ops.sigmoid_focal_loss(jnp.zeros((0, 3)), jnp.zeros((0, 3)), reduction="mean") == 0
    with pytest.raises(ValueError, match="alpha is 2"):
        ops.sigmoid_focal_loss(x, x, alpha=2)


@pytest.mark.parametrize("eps", [1e-5, 0.0])
def test_frozen_batch_norm_equals_torchvision_and_converts(eps):
    ours, theirs = twins(
        lambda rngs: ops.FrozenBatchNorm2d(4, eps, rngs=rngs), torchvision.ops.FrozenBatchNorm2d(4, eps)
    )
    agree(ours, theirs, normal(2, 4, 5, 3))
    assert list(convert.state_dict(ours)) == list(theirs.state_dict())
    assert not jax.tree.leaves(nnx.state(ours, nnx.Param))
    # as torchvision, it takes the weights of a batch norm that learned, and leaves its counter
    counted = arrays(theirs) | {"num_batches_tracked": np.array(3)}
    convert.load_state_dict(ours, counted)
    assert ours(jnp.ones((1, 2, 2, 4), jnp.bfloat16)).dtype == jnp.float64
    with pytest.raises(ValueError, match="4 channels was given"):
        ours(jnp.ones((1, 4, 2, 2)))


def test_other_batch_norms_still_count():
    both = nn.Sequential(ops.FrozenBatchNorm2d(2), nn.BatchNorm(2, rngs=nnx.Rngs(0)))
    theirs = torch.nn.Sequential(torchvision.ops.FrozenBatchNorm2d(2), torch.nn.BatchNorm2d(2))
    assert list(convert.state_dict(both)) == list(theirs.state_dict())


class TorchL2Norm(torch.nn.Module):
    """As torchvision's SSDFeatureExtractorVGG does it."""

    def __init__(self, channels):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(channels) * 20)

    def forward(self, x):
        return self.weight.view(1, -1, 1, 1) * torch.nn.functional.normalize(x)


def test_l2_normalisation_equals_torch_and_is_finite_at_zero():
    x = normal(2, 4, 3, 5)
    ours, theirs = twins(lambda rngs: ops.L2Norm(4), TorchL2Norm(4))
    agree(ours, theirs, x)
    x[0, :, 0], x[1, :, 1, 1] = 0, 1e-14
    agree(*twins(lambda rngs: ops.L2Norm(4), TorchL2Norm(4)), x)
    assert ops.l2_normalize(jnp.ones((2, 4), jnp.bfloat16)).dtype == jnp.bfloat16
    assert ops.L2Norm(3).weight[...].tolist() == [20.0] * 3


def pyramids(extra: str | None, norm: bool):
    """Both sides' pyramid over maps of 3, 5 and 7 channels."""
    theirs_extra = {
        None: lambda: None,
        "pool": torchvision.ops.feature_pyramid_network.LastLevelMaxPool,
        "p5": lambda: torchvision.ops.feature_pyramid_network.LastLevelP6P7(4, 4),
        "c5": lambda: torchvision.ops.feature_pyramid_network.LastLevelP6P7(7, 4),
    }[extra]()
    ours_extra = {
        None: lambda rngs: None,
        "pool": lambda rngs: ops.LastLevelMaxPool(),
        "p5": lambda rngs: ops.LastLevelP6P7(4, 4, rngs=rngs),
        "c5": lambda rngs: ops.LastLevelP6P7(7, 4, rngs=rngs),
    }[extra]
    norms = (nn.BatchNorm, torch.nn.BatchNorm2d) if norm else (None, None)
    return twins(
        lambda rngs: ops.FeaturePyramidNetwork([3, 5, 7], 4, ours_extra(rngs), norms[0], rngs=rngs),
        torchvision.ops.FeaturePyramidNetwork([3, 5, 7], 4, theirs_extra, norms[1]),
    )


@pytest.mark.parametrize(("extra", "norm"), [(None, False), ("pool", True), ("p5", False), ("c5", True)])
def test_pyramids_equal_torchvision_and_convert_by_name(extra, norm):
    ours, theirs = pyramids(extra, norm)
    ours.eval(), theirs.eval()
    maps = [normal(2, 3, 13, 10), normal(2, 5, 7, 5), normal(2, 7, 3, 3)]  # odd, so that sizes do not double
    names = ["a", "b", "c"]
    tensors = [torch.tensor(m, requires_grad=True) for m in maps]
    expected = theirs(OrderedDict(zip(names, tensors, strict=True)))
    graph, state = nnx.split(ours)

    @jax.jit
    def run(state, maps):
        def forward(state, maps):
            return nnx.merge(graph, state)(dict(zip(names, maps, strict=True)))

        y, backward = jax.vjp(forward, state, maps)
        return y, *backward(jax.tree.map(lambda a: 2 * a, y))  # of the sum of squares

    y, gradient, at_maps = run(state, [jnp.asarray(np.moveaxis(m, 1, -1)) for m in maps])
    sum((e**2).sum() for e in expected.values()).backward()
    assert list(ours({n: jnp.asarray(np.moveaxis(m, 1, -1)) for n, m in zip(names, maps, strict=True)})) == list(
        expected
    )
    for name, e in expected.items():
        close(y[name], np.moveaxis(e.detach().numpy(), 1, -1), name)
    for t, g in zip(tensors, at_maps, strict=True):
        close(g, np.moveaxis(t.grad.numpy(), 1, -1), "gradient of a map")
    gradients = convert.state_dict(nnx.merge(graph, gradient))
    for name, parameter in theirs.named_parameters():
        close(gradients[name], parameter.grad, name)
    assert list(convert.state_dict(ours)) == list(theirs.state_dict())


def test_a_pyramid_says_what_it_was_given():
    with pytest.raises(ValueError, match="3 levels was given a, b"):
        pyramids(None, False)[0]({"a": jnp.ones((1, 8, 8, 3)), "b": jnp.ones((1, 4, 4, 5))})
