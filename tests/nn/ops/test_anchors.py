"""Anchors and default boxes equal torchvision's, in float32 bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torchvision.models.detection import anchor_utils as reference
from torchvision.models.detection.image_list import ImageList

from jaxzoo.nn import ops

# height and width of the canvas and of its maps; some strides are not whole
CANVASES = [
    ((64, 96), [(16, 24), (8, 12), (4, 6)]),
    ((100, 75), [(25, 19), (13, 10), (7, 5)]),
    ((800, 1344), [(100, 168), (13, 21), (7, 11)]),
    ((33, 40), [(5, 5), (2, 3), (1, 1)]),
]
RCNN = (((32,), (64,), (128,)), ((0.5, 1.0, 2.0),) * 3)
RETINANET = (tuple((x, int(x * 2 ** (1 / 3)), int(x * 2 ** (2 / 3))) for x in (32, 64, 128)), ((0.5, 1.0, 2.0),) * 3)
ODD = (((5, 7, 33), (1,), (19, 23)), ((0.3, 1.0), (1.7,), (0.123, 2.5, 4.0)))
FCOS = (((8,), (16,), (32,)), ((1.0,),) * 3)
SSD = {"scales": [0.07, 0.15, 0.33, 0.51], "steps": [8, 16, 32]}


def expected(generator, image_size, grids, dtype):
    images = ImageList(torch.zeros(1, 3, *image_size), [image_size])
    return generator(images, [torch.zeros(1, 1, *grid, dtype=dtype) for grid in grids])[0].numpy()


def agree(ours, theirs, image_size, grids):
    for dtype in ("float32", "float64"):
        levels = ours(image_size, grids, dtype)
        assert [len(x) for x in levels] == [
            h * w * n for (h, w), n in zip(grids, theirs.num_anchors_per_location(), strict=True)
        ]
        assert ours.num_anchors_per_location() == theirs.num_anchors_per_location()
        y = np.concatenate(levels)
        assert y.dtype == dtype
        np.testing.assert_array_equal(y, expected(theirs, image_size, grids, getattr(torch, dtype)))


@pytest.mark.parametrize(("image_size", "grids"), CANVASES)
@pytest.mark.parametrize("setting", [RCNN, RETINANET, ODD, FCOS])
def test_anchors_equal_torchvision(setting, image_size, grids):
    agree(ops.AnchorGenerator(*setting), reference.AnchorGenerator(*setting), image_size, grids)


@pytest.mark.parametrize(("image_size", "grids"), CANVASES)
@pytest.mark.parametrize(
    "arguments", [{}, {"clip": False, "max_ratio": 1.3}, SSD, {"min_ratio": 0.2, "max_ratio": 0.95}]
)
def test_default_boxes_equal_torchvision(arguments, image_size, grids):
    ratios = [[2], [2, 3], [3, 1.7]]
    ours, theirs = (g(ratios, **arguments) for g in (ops.DefaultBoxGenerator, reference.DefaultBoxGenerator))
    agree(ours, theirs, image_size, grids)


def test_one_level_of_default_boxes():
    ours, theirs = (g([[2, 3]]) for g in (ops.DefaultBoxGenerator, reference.DefaultBoxGenerator))
    agree(ours, theirs, (37, 50), [(4, 7)])


def test_the_8732_default_boxes_of_ssd300():
    ratios, scales = [[2], [2, 3], [2, 3], [2, 3], [2], [2]], [0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05]
    steps = [8, 16, 32, 64, 100, 300]
    ours, theirs = (
        g(ratios, scales=scales, steps=steps) for g in (ops.DefaultBoxGenerator, reference.DefaultBoxGenerator)
    )
    grids = [(n, n) for n in (38, 19, 10, 5, 3, 1)]
    assert sum(map(len, ours((300, 300), grids))) == 8732
    agree(ours, theirs, (300, 300), grids)


def test_sizes_and_ratios_may_be_given_once():
    once = ops.AnchorGenerator((32, 64), (0.5, 1.0))((64, 64), [(8, 8), (4, 4)])
    each = ops.AnchorGenerator(((32,), (64,)), ((0.5, 1.0), (0.5, 1.0)))((64, 64), [(8, 8), (4, 4)])
    for a, b in zip(once, each, strict=True):
        np.testing.assert_array_equal(a, b)


def test_anchors_are_made_in_a_program_and_not_kept_in_it():
    generator = ops.AnchorGenerator(*RCNN)
    traced = jax.jit(lambda: generator((800, 1344), CANVASES[2][1]))
    for a, b in zip(traced(), generator((800, 1344), CANVASES[2][1]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(traced.lower().as_text()) < 100_000


def test_half_precision_rounds_the_exact_anchors():
    (half,), (exact,) = (
        ops.AnchorGenerator(((32,),), (1.0,))((1344, 1344), [(168, 168)], d) for d in ("bfloat16", "f4")
    )
    np.testing.assert_array_equal(half, exact.astype(jnp.bfloat16))


def test_levels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="1 levels for 2 feature maps"):
        ops.AnchorGenerator()((64, 64), [(8, 8), (4, 4)])
    with pytest.raises(ValueError, match="2 levels of sizes and 1 of aspect_ratios"):
        ops.AnchorGenerator((1, 2), ((1.0,),))
    with pytest.raises(ValueError, match="1 levels of aspect_ratios and 2 of steps"):
        ops.DefaultBoxGenerator([[2]], steps=[8, 16])
    with pytest.raises(ValueError, match="need 3 scales, and 2"):
        ops.DefaultBoxGenerator([[2], [2]], scales=[0.1, 0.2])
