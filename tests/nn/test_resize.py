"""resize equals torch.nn.functional.interpolate, to the last pixel of every rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from jaxzoo.nn import resize
from tests.compare import agree, normal

TARGETS = [
    {"size": (7, 9)},
    {"size": (3, 2)},
    {"size": (1, 1)},
    {"size": (1, 12)},
    {"size": (5, 6)},
    {"size": 13},
    {"scale_factor": 2},
    {"scale_factor": 0.5},
    {"scale_factor": 1.7},
    {"scale_factor": 0.63},
    {"scale_factor": (1.3, 2.9)},
    {"scale_factor": 1.05},  # the size stays, the grid moves
]
MODES = [
    {"mode": "nearest"},
    {"mode": "bilinear", "align_corners": False},
    {"mode": "bilinear", "align_corners": True},
]


SIZES = [(5, 6), (1, 1), (4, 11)]
SMALLEST = {0.5: 2, 0.63: 2}  # what a factor leaves nothing of


@pytest.mark.parametrize("mode", MODES, ids=lambda m: "-".join(map(str, m.values())))
@pytest.mark.parametrize(
    ("size", "target"),
    [(s, t) for s in SIZES for t in TARGETS if min(s) >= SMALLEST.get(t.get("scale_factor"), 1)],
    ids=str,
)
def test_resize_equals_torch(size, target, mode):
    agree(lambda x: resize(x, **target, **mode), lambda x: F.interpolate(x, **target, **mode), normal(2, 3, *size))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("length", [3, 14, 56])
def test_nearest_picks_torchs_pixel_for_every_size(length, dtype):
    """Where a position falls on the border between two pixels, rounding decides: torch's in float32.

    (Above height + width = 128 torch takes another kernel, and rounds otherwise in float64.)
    """
    ramp = np.arange(length, dtype=dtype)
    targets = [{"size": (n, 1)} for n in (*range(1, 120, 6), 46, 82, 94, 110, 122, 123)]
    targets += [{"scale_factor": (s, 1)} for s in (0.34, 0.77, 1.1, 1.5, 2.2)]
    ours = jax.jit(lambda x: [resize(x, **target)[0, :, 0, 0] for target in targets])(ramp[None, :, None, None])
    for target, picked in zip(targets, ours, strict=True):
        expected = F.interpolate(torch.tensor(ramp)[None, None, :, None], **target)[0, 0, :, 0]
        np.testing.assert_array_equal(picked, expected, str(target))


def test_labels_are_resized_by_nearest_as_whole_numbers():
    labels = np.arange(12).reshape(1, 3, 4, 1)
    resized = resize(jnp.asarray(labels), (6, 8))
    assert resized.dtype == labels.dtype
    np.testing.assert_array_equal(resized, labels.repeat(2, 1).repeat(2, 2))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({}, "either size or scale_factor"),
        ({"size": 3, "scale_factor": 2}, "either size or scale_factor"),
        ({"size": 3, "mode": "area"}, "'area'.*nearest, bilinear or bicubic"),
        ({"size": (3, 4, 5)}, "size"),
        ({"size": 0}, "size"),
        ({"scale_factor": (1, 2, 3)}, "scale_factor"),
        ({"scale_factor": 0.1}, "scale_factor"),
        ({"scale_factor": -1}, "scale_factor"),
    ],
)
def test_impossible_arguments_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        resize(jnp.zeros((1, 4, 6, 2)), **arguments)
