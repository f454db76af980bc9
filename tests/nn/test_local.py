"""Locally connected layers compute what Darknet's do: a product of its own at every place."""

import jax.numpy as jnp
import pytest
from flax import nnx

import convert
from convert.twins.yolov1 import LocallyConnected2d as Twin
from jaxzoo import UsageError
from jaxzoo.nn import LocallyConnected2d
from tests.compare import agree, normal, twins


@pytest.mark.parametrize(
    ("channels", "size", "kernel", "stride", "padding"),
    [((3, 4), (5, 5), 3, 1, 1), ((2, 3), (7, 4), 3, 2, 1), ((1, 2), (4, 6), 2, 1, 0), ((3, 1), (3, 3), 3, 1, 0)],
)
def test_it_equals_its_twin(channels, size, kernel, stride, padding):
    arguments = *channels, size, kernel, stride, padding
    ours, theirs = twins(lambda rngs: LocallyConnected2d(*arguments, rngs=rngs), Twin(*arguments))
    agree(ours, theirs, normal(2, channels[0], *size))


def test_of_equal_kernels_it_is_a_convolution():
    local = LocallyConnected2d(3, 4, (6, 5), (3, 2), (2, 1), (1, 0), rngs=nnx.Rngs(0))
    kernel, x = normal(3 * 3 * 2, 4), jnp.asarray(normal(2, 6, 5, 3))
    local.kernel.set_value(jnp.broadcast_to(kernel, local.kernel.shape))
    local.bias.set_value(jnp.zeros(local.bias.shape))
    conv = nnx.Conv(
        3, 4, (3, 2), (2, 1), padding=[(1, 1), (0, 0)], use_bias=False, param_dtype=x.dtype, rngs=nnx.Rngs(0)
    )
    conv.kernel.set_value(jnp.asarray(kernel.reshape(3, 3, 2, 4)).transpose(1, 2, 0, 3))
    assert jnp.abs(local(x) - conv(x)).max() < 1e-12


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"kernel of \(3, 3\) does not fit into an input of \(2, 5\)"):
        LocallyConnected2d(1, 1, (2, 5), 3, rngs=nnx.Rngs(0))
    local = LocallyConnected2d(2, 3, 4, 3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"takes \(N, 4, 4, 2\), channels last, and was given \(1, 5, 4, 2\)"):
        local(jnp.zeros((1, 5, 4, 2)))
    with pytest.raises(UsageError, match="LocallyConnected2d was given uint8"):
        local(jnp.zeros((1, 4, 4, 2), jnp.uint8))


def test_it_starts_as_a_linear_layer_of_each_place():
    kernel = LocallyConnected2d(4, 8, 5, 3, padding=1, rngs=nnx.Rngs(0)).kernel[...]
    assert convert.state_dict(LocallyConnected2d(4, 8, 5, 3, rngs=nnx.Rngs(0)))["weight"].shape == (9, 8, 36)
    assert kernel.shape == (25, 36, 8) and 0.99 / 6 < jnp.abs(kernel).max() <= 1 / 6
