"""Pooling equals torch's on whole, partial, padded and uneven windows, and routes gradients as torch does."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from jaxzoo import nn
from tests.compare import agree, normal

# kernel, further arguments, input height and width
WINDOWS = [
    (2, {}, (6, 8)),
    (2, {}, (7, 9)),
    (2, {"ceil_mode": True}, (7, 9)),
    (3, {"stride": 2, "padding": 1}, (7, 8)),
    (3, {"stride": 2, "padding": 1, "ceil_mode": True}, (7, 8)),
    (3, {"stride": 2, "ceil_mode": True}, (13, 12)),
    (3, {"stride": 1, "padding": 1}, (5, 4)),
    ((2, 3), {"stride": (3, 1), "padding": (1, 0), "ceil_mode": True}, (6, 5)),
    (2, {"stride": 3, "ceil_mode": True}, (6, 8)),  # the last window would start after the image
    (3, {"stride": 4, "padding": 1, "ceil_mode": True}, (8, 9)),  # ... or in the padding after it
    (2, {"stride": 5, "padding": 1, "ceil_mode": True}, (4, 9)),
    (4, {"stride": 1, "padding": 2}, (3, 2)),
    (3, {"stride": 2, "ceil_mode": True}, (4, 5)),
    (1, {"stride": 2}, (5, 4)),
    ((5, 3), {}, (5, 3)),
]


@pytest.mark.parametrize(("kernel", "arguments", "size"), WINDOWS)
def test_max_pool_equals_torch(kernel, arguments, size):
    agree(nn.MaxPool(kernel, **arguments), torch.nn.MaxPool2d(kernel, **arguments), normal(2, 3, *size))


@pytest.mark.parametrize(("kernel", "arguments", "size"), WINDOWS)
def test_max_pool_sends_the_gradient_of_ties_to_the_first(kernel, arguments, size):
    ties = np.round(normal(2, 3, *size) / 2)
    agree(nn.MaxPool(kernel, **arguments), torch.nn.MaxPool2d(kernel, **arguments), ties)


def test_max_pool_passes_nan_and_infinity_on():
    x = normal(1, 1, 6, 6)
    x[0, 0, 1, 1], x[0, 0, 3, 3], x[0, 0, 4:, 4:] = np.nan, np.inf, -np.inf
    ours = nn.max_pool(jnp.asarray(x.transpose(0, 2, 3, 1)), 2)
    np.testing.assert_array_equal(ours[..., 0], F.max_pool2d(torch.tensor(x), 2)[:, 0])


@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize(("kernel", "arguments", "size"), WINDOWS)
def test_avg_pool_equals_torch(kernel, arguments, size, count_include_pad):
    arguments = arguments | {"count_include_pad": count_include_pad}
    agree(nn.AvgPool(kernel, **arguments), torch.nn.AvgPool2d(kernel, **arguments), normal(2, 3, *size))


@pytest.mark.parametrize("size", [(6, 8), (7, 5), (1, 1), (2, 11), (3, 13)])
@pytest.mark.parametrize("output", [1, 2, 6, 7, (3, 1), (1, 4), (8, 15)])
def test_adaptive_pools_equal_torch(output, size):
    x = normal(2, 3, *size)
    agree(nn.AdaptiveAvgPool(output), torch.nn.AdaptiveAvgPool2d(output), x)
    agree(nn.AdaptiveMaxPool(output), torch.nn.AdaptiveMaxPool2d(output), x)


@pytest.mark.parametrize("output", [1, 2, 3])
def test_adaptive_max_pool_sends_the_gradient_of_ties_to_the_first(output):
    agree(nn.AdaptiveMaxPool(output), torch.nn.AdaptiveMaxPool2d(output), np.round(normal(4, 5, 7, 6) / 2))


def test_pools_of_other_ranks_equal_torch():
    line, volume = normal(2, 3, 11), normal(2, 3, 5, 4, 7)
    agree(lambda x: nn.max_pool(x, 3, 2, 1), lambda x: F.max_pool1d(x, 3, 2, 1), line)
    agree(lambda x: nn.avg_pool(x, 3, 2, 1), lambda x: F.avg_pool1d(x, 3, 2, 1), line)
    agree(lambda x: nn.adaptive_avg_pool(x, 4), lambda x: F.adaptive_avg_pool1d(x, 4), line)
    agree(lambda x: nn.max_pool(x, (3, 2, 2), 2), lambda x: F.max_pool3d(x, (3, 2, 2), 2), volume)
    agree(lambda x: nn.avg_pool(x, 3, 2, 1, True), lambda x: F.avg_pool3d(x, 3, 2, 1, True), volume)
    agree(lambda x: nn.adaptive_avg_pool(x, (1, 3, 2)), lambda x: F.adaptive_avg_pool3d(x, (1, 3, 2)), volume)
    agree(lambda x: nn.adaptive_max_pool(x, (1, 3, 2)), lambda x: F.adaptive_max_pool3d(x, (1, 3, 2)), volume)


@pytest.mark.parametrize("pool", [nn.max_pool, nn.avg_pool])
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"kernel_size": 5}, "window of 5 does not fit 4"),
        ({"kernel_size": 2, "padding": 2}, "padding 2 is more than half"),
        ({"kernel_size": (2, 2, 2)}, "kernel_size"),
        ({"kernel_size": 2, "stride": 0}, "stride"),
        ({"kernel_size": 0}, "kernel_size"),
    ],
)
def test_impossible_windows_are_named(pool, arguments, named):
    with pytest.raises(ValueError, match=named):
        pool(jnp.zeros((1, 4, 6, 2)), **arguments)


@pytest.mark.parametrize("pool", [nn.adaptive_avg_pool, nn.adaptive_max_pool])
@pytest.mark.parametrize("output", [0, (1, 2, 3)])
def test_impossible_output_sizes_are_named(pool, output):
    with pytest.raises(ValueError, match="output_size"):
        pool(jnp.zeros((1, 4, 6, 2)), output)


@pytest.mark.parametrize(
    "arguments", [{"dilation": 2}, {"dilation": (1, 3), "stride": 2, "padding": 1, "ceil_mode": True}]
)
def test_dilated_max_pool_equals_torch(arguments):
    agree(nn.MaxPool(2, **arguments), torch.nn.MaxPool2d(2, **arguments), normal(2, 3, 7, 8))


@pytest.mark.parametrize("arguments", [{}, {"stride": 1, "padding": 1, "dilation": 2}])
def test_max_pool_says_where_its_maxima_are(arguments):
    x = normal(2, 3, 7, 8)
    ours = nn.MaxPool(3, **arguments, return_indices=True)(jnp.asarray(np.moveaxis(x, 1, -1)))
    theirs = torch.nn.MaxPool2d(3, **arguments, return_indices=True)(torch.tensor(x))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, np.moveaxis(b.numpy(), 1, -1))
