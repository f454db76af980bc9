"""Norms compute what torch's do, and batch norm keeps the statistics that torch keeps."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from timm.layers import BatchNormAct2d

import convert
from convert.twins.yolov1 import DarknetBatchNorm as DarknetTwin
from jaxzoo.nn import BatchNorm, BatchNormAct, DarknetBatchNorm, GroupNorm, LayerNorm, LocalResponseNorm, ReLU6
from tests.compare import agree, arrays, close, normal, to_last, twins

BATCH_NORMS = [{}, {"eps": 1e-3, "momentum": 0.01}, {"momentum": 3e-4, "affine": False}, {"momentum": 1.0, "eps": 0.1}]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("arguments", BATCH_NORMS)
@pytest.mark.parametrize("shape", [(2, 5, 4, 3), (3, 5, 1, 1), (1, 5, 1, 2), (7, 5), (2, 5, 3), (2, 5, 2, 3, 4)])
def test_batch_norm_equals_torch(shape, arguments, training):
    kind = {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d, 5: torch.nn.BatchNorm3d}
    ours, theirs = twins(lambda rngs: BatchNorm(5, **arguments, rngs=rngs), kind[len(shape)](5, **arguments))
    ours.train() if training else ours.eval()
    agree(ours, theirs.train(training), 3 * normal(*shape) + 2)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(2, 5, 4, 3), (3, 5, 1, 1), (1, 5, 1, 2)])
def test_darknets_batch_norm_equals_its_twin(shape, training):
    ours, theirs = twins(lambda rngs: DarknetBatchNorm(5), DarknetTwin(5))
    ours.train() if training else ours.eval()
    x = 3 * normal(*shape) + 2
    x[:, 4] = 0.5  # without variance, exactly
    agree(ours, theirs.train(training), x)


def test_darknets_batch_norm_adds_epsilon_to_the_deviation():
    norm = DarknetBatchNorm(1)
    norm.eval()
    norm.var.set_value(jnp.full(1, 1e-12))
    assert np.isclose(float(norm(jnp.ones((1, 1)))[0, 0]), 1 / 2e-6)
    norm.train()
    assert np.isclose(float(norm(jnp.array([[0.0], [2.0]]))[1, 0]), 1 / np.sqrt(2), rtol=1e-5)
    with pytest.raises(ValueError, match="more than one value"):
        norm(jnp.ones((1, 1)))


@pytest.mark.parametrize("momentum", [0.03, None])
def test_batch_norm_keeps_torchs_statistics_over_many_batches(momentum):
    theirs = torch.nn.BatchNorm2d(3, momentum=momentum)
    ours, theirs = twins(lambda rngs: BatchNorm(3, momentum=momentum, rngs=rngs), theirs)
    ours.train()
    for i in range(7):
        x = normal(2, 3, 5, 4, seed=i)
        close(ours(jnp.asarray(to_last(x))), to_last(theirs(torch.tensor(x)).detach().numpy()))
    for name, array in convert.state_dict(ours).items():
        close(array, arrays(theirs)[name], name)
    assert ours.num_batches_tracked[...] == 7


@pytest.mark.parametrize("valid", [[True, False, True, True, False], [False] * 5])
def test_batch_norm_of_some_rows_equals_torchs_of_these(valid):
    ours, theirs = twins(lambda rngs: BatchNorm(3, rngs=rngs), torch.nn.BatchNorm2d(3))
    ours.train()
    x = normal(5, 3, 4, 2)
    expected = theirs(torch.tensor(x[valid])).detach().numpy()
    y = ours(jnp.asarray(to_last(x)), jnp.array(valid))
    close(y[np.array(valid)], to_last(expected))
    assert jnp.isfinite(y).all()
    for name, array in convert.state_dict(ours).items():
        close(array, arrays(theirs)[name], name)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_without_statistics_equals_torch(training):
    theirs = torch.nn.BatchNorm2d(5, track_running_stats=False).train(training)
    ours, theirs = twins(lambda rngs: BatchNorm(5, track_running_stats=False, rngs=rngs), theirs)
    ours.train() if training else ours.eval()
    agree(ours, theirs, 3 * normal(2, 5, 4, 3) + 2)


def test_batch_norm_leaves_its_statistics_alone_in_eval():
    norm = BatchNorm(3, rngs=nnx.Rngs(0))
    before = convert.state_dict(norm)
    norm.eval()
    norm(jnp.asarray(normal(4, 3)))
    assert all(np.array_equal(before[name], array) for name, array in convert.state_dict(norm).items())


@pytest.mark.parametrize("shape", [(1, 3), (1, 1, 1, 3), (0, 4, 4, 3)])
def test_batch_norm_refuses_to_train_on_one_value(shape):
    norm = BatchNorm(3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="more than one value"):
        norm(jnp.zeros(shape))
    norm.eval()
    assert norm(jnp.zeros(shape)).shape == shape


@pytest.mark.parametrize("arguments", [{}, {"eps": 1e-6}, {"elementwise_affine": False}, {"bias": False}, {"eps": 0.5}])
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 7, 5), (2, 3, 4, 5), (0, 5)])
def test_layer_norm_equals_torch(shape, arguments):
    theirs = torch.nn.LayerNorm(5, **arguments)
    agree(*twins(lambda rngs: LayerNorm(5, **arguments, rngs=rngs), theirs), 3 * normal(*shape) + 2, images=False)


@pytest.mark.parametrize("arguments", [{}, {"eps": 1e-3}, {"affine": False}])
@pytest.mark.parametrize("shape", [(2, 6, 3, 5), (2, 6, 7), (2, 6, 1, 2), (3, 6)])
@pytest.mark.parametrize("groups", [1, 2, 3])
def test_group_norm_equals_torch(groups, shape, arguments):
    theirs = torch.nn.GroupNorm(groups, 6, **arguments)
    agree(*twins(lambda rngs: GroupNorm(groups, 6, **arguments, rngs=rngs), theirs), 3 * normal(*shape) + 2)


def test_group_norm_refuses_groups_that_do_not_divide():
    with pytest.raises(ValueError, match="4"):
        GroupNorm(4, 6, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("arguments", [{}, {"k": 2.0}, {"alpha": 0.7, "beta": 1.5, "k": 0.1}, {"beta": -0.5}])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 15])
@pytest.mark.parametrize("shape", [(2, 6, 3, 5), (3, 1, 2), (2, 5, 1, 2, 3)])
def test_local_response_norm_equals_torch(shape, size, arguments):
    theirs = torch.nn.LocalResponseNorm(size, **arguments)
    agree(LocalResponseNorm(size, **arguments), theirs, 3 * normal(*shape))


def test_local_response_norm_needs_a_window():
    with pytest.raises(ValueError, match="size is 0"):
        LocalResponseNorm(0)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("ours", "theirs"), [(ReLU6, torch.nn.ReLU6), (None, None)])
def test_batch_norm_with_an_activation_equals_timms(ours, theirs, training):
    theirs = BatchNormAct2d(5, eps=1e-3, apply_act=theirs is not None, act_layer=theirs or torch.nn.ReLU)
    pair = twins(lambda rngs: BatchNormAct(5, 1e-3, activation_layer=ours, rngs=rngs), theirs.train(training))
    pair[0].train() if training else pair[0].eval()
    agree(*pair, 3 * normal(2, 5, 4, 3))


@pytest.mark.parametrize("build", [BatchNorm, LayerNorm, lambda n, rngs: GroupNorm(1, n, rngs=rngs)])
def test_another_number_of_channels_is_refused(build):
    with pytest.raises(ValueError, match=r"3.*\(2, 5, 5, 1\)"):
        build(3, rngs=nnx.Rngs(0))(jnp.zeros((2, 5, 5, 1)))


def test_norms_of_a_constant_are_finite():
    x = jnp.full((2, 4, 4, 6), 7.0)
    for norm in (BatchNorm(6, rngs=nnx.Rngs(0)), LayerNorm(6, rngs=nnx.Rngs(0)), GroupNorm(2, 6, rngs=nnx.Rngs(0))):
        assert np.array_equal(norm(x), np.zeros(x.shape))


def test_norms_survive_a_large_mean():
    """The variance is not a difference of large squares."""
    x = 1e4 + normal(64, 6)
    for ours, theirs in [
        twins(lambda rngs: BatchNorm(6, rngs=rngs), torch.nn.BatchNorm1d(6)),
        twins(lambda rngs: LayerNorm(6, rngs=rngs), torch.nn.LayerNorm(6)),
        twins(lambda rngs: GroupNorm(2, 6, rngs=rngs), torch.nn.GroupNorm(2, 6)),
    ]:
        close(ours(jnp.asarray(x)), theirs(torch.tensor(x)))
