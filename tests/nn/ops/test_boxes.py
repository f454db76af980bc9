"""Areas, overlaps, losses, formats and codes of boxes equal torchvision's, values and gradients."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torchvision
from torchvision.models.detection import _utils as reference

from jaxzoo.nn import ops
from tests.compare import agree, close, normal
from tests.nn.ops.compare import boxes, same

IOUS = ["box_iou", "generalized_box_iou", "distance_box_iou", "complete_box_iou"]
LOSSES = ["generalized_box_iou_loss", "distance_box_iou_loss", "complete_box_iou_loss"]
UPRIGHT = ["xyxy", "xywh", "cxcywh"]
ROTATED = ["xywhr", "cxcywhr", "xyxyxyxy"]


def both(name: str, **arguments):
    return partial(getattr(ops, name), **arguments), partial(getattr(torchvision.ops, name), **arguments)


@pytest.mark.parametrize("fmt", UPRIGHT)
def test_areas_and_overlaps_equal_torchvision_in_every_format(fmt):
    same(*both("box_area", fmt=fmt), boxes(7))
    same(*both("box_iou", fmt=fmt), boxes(7), boxes(5))


@pytest.mark.parametrize("name", IOUS)
@pytest.mark.parametrize("counts", [(7, 5), (1, 1), (0, 3), (3, 0), (0, 0)])
def test_overlaps_equal_torchvision(name, counts):
    agree(*both(name), boxes(counts[0]), boxes(counts[1], seed=1), images=False)


@pytest.mark.parametrize("name", IOUS)
def test_overlaps_under_vmap_and_in_forward_mode(name):
    same(*both(name), boxes(7), boxes(5, seed=1))


@pytest.mark.parametrize("name", IOUS)
def test_boxes_that_share_edges_or_touch_take_torchs_gradient(name):
    rows = np.array([[0, 0, 4, 4], [4, 0, 8, 4], [0, 4, 4, 8], [2, 2, 4, 6], [1, 1, 3, 3], [9, 9, 11, 10]], np.float64)
    agree(*both(name), rows, rows + np.array([0, 0, 1, 0]), images=False)


@pytest.mark.parametrize("name", IOUS)
def test_leading_axes_are_kept(name):
    a, b = boxes(12).reshape(2, 1, 6, 4), boxes(20, seed=1).reshape(1, 2, 10, 4)[:, :, :5]
    a, b = np.broadcast_to(a, (2, 2, 6, 4)), np.broadcast_to(b, (2, 2, 5, 4))
    agree(*both(name), a, b, images=False)


@pytest.mark.parametrize("name", IOUS)
def test_boxes_without_area(name):
    rows = np.array([[1, 1, 1, 1], [1, 1, 1, 5], [0, 0, 4, 4.0]])
    ours, theirs = both(name)
    np.testing.assert_allclose(
        ours(jnp.asarray(rows), jnp.asarray(rows)), theirs(torch.tensor(rows), torch.tensor(rows))
    )


@pytest.mark.parametrize("name", IOUS)
@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float32])
def test_other_dtypes_equal_torchvision(name, dtype):
    a, b = boxes(7, 400, whole=True).astype(dtype), boxes(5, 400, seed=1, whole=True).astype(dtype)
    ours, theirs = both(name)
    y, expected = ours(jnp.asarray(a), jnp.asarray(b)), theirs(torch.tensor(a), torch.tensor(b))
    assert y.dtype == jnp.float32
    close(y, expected.float(), bound=1e-6)


def test_bytes_and_half_precision_do_not_overflow():
    rows = np.array([[0, 0, 200, 200], [100, 50, 255, 255]])
    area = np.array([40000, 31775])
    assert ops.box_area(jnp.asarray(rows, jnp.uint8)).tolist() == area.tolist()
    iou = torchvision.ops.box_iou(torch.tensor(rows), torch.tensor(rows))
    for dtype in (jnp.uint8, jnp.bfloat16, jnp.float16):
        given = jnp.asarray(rows, dtype)
        assert ops.box_area(given).dtype == (jnp.int32 if dtype == jnp.uint8 else jnp.float32)
        exact = dtype != jnp.bfloat16  # which has no 255
        close(ops.box_iou(given, given), iou, bound=1e-6 if exact else 1e-2)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_losses_equal_torchvision(name, reduction):
    same(*both(name, reduction=reduction), boxes(9), boxes(9, seed=1))
    same(*both(name, reduction=reduction, eps=1e-3), boxes(9), boxes(9, seed=1))
    empty = np.zeros((0, 4))
    agree(*both(name, reduction=reduction), empty, empty, images=False)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_touching_equal_and_single_boxes(name):
    rows = np.array([[0, 0, 4, 4], [4, 0, 8, 4], [0, 0, 4, 4], [1, 1, 3, 3]], np.float64)
    others = np.array([[4, 0, 8, 4], [4, 1, 8, 4], [0, 0, 4, 4], [8, 8, 9, 9]], np.float64)
    agree(*both(name), rows, others, images=False)
    agree(*both(name), rows[0], others[3], images=False)


def test_losses_compute_in_float32_at_least():
    a, b = boxes(9, whole=True), boxes(9, seed=1, whole=True)
    for name in LOSSES:
        for dtype in (jnp.bfloat16, jnp.int32):
            y = getattr(ops, name)(jnp.asarray(a, dtype), jnp.asarray(b, dtype))
            assert y.dtype == jnp.float32
            close(y, getattr(torchvision.ops, name)(torch.tensor(a), torch.tensor(b)), bound=1e-5)


@pytest.mark.parametrize("size", [(30, 20), (40, 40)])
def test_clipping_equals_torchvision_at_the_edge_too(size):
    rows = np.concatenate([boxes(6), [[0, 0, size[1], size[0]], [-5, 50, -1, 60], [5, 5, 5, 5]]])
    same(*both("clip_boxes_to_image", size=size), rows)
    agree(*both("clip_boxes_to_image", size=size), np.zeros((0, 4)), images=False)


def test_clipping_takes_every_images_own_size():
    rows = jnp.asarray(boxes(12).reshape(2, 6, 4))
    sizes = jnp.array([[30, 20], [7, 35]])
    clipped = jax.jit(jax.vmap(lambda b, s: ops.clip_boxes_to_image(b, (s[0], s[1]))))(rows, sizes)
    for ours, given, size in zip(clipped, rows, sizes.tolist(), strict=True):
        close(ours, torchvision.ops.clip_boxes_to_image(torch.tensor(np.asarray(given)), size))


@pytest.mark.parametrize("min_size", [0, 1, 5.0, 100])
def test_small_boxes_are_those_that_torchvision_removes(min_size):
    rows = np.concatenate([boxes(40), [[0, 0, 5, 5], [0, 0, 5, 4.99], [3, 3, 3, 3], [5, 0, 1, 9]]])
    keep = torchvision.ops.remove_small_boxes(torch.tensor(rows), min_size)
    assert np.flatnonzero(ops.remove_small_boxes(jnp.asarray(rows), min_size)).tolist() == keep.tolist()


@pytest.mark.parametrize(
    ("before", "after"), [*itertools.product(UPRIGHT, UPRIGHT), *itertools.product(ROTATED, ROTATED)]
)
def test_formats_convert_as_torchvision_does(before, after):
    width = {"xyxyxyxy": 8}.get(before, 4 + before.endswith("r"))
    rows = np.abs(normal(6, width)) * 20 + np.arange(width)
    same(*both("box_convert", in_fmt=before, out_fmt=after), rows)
    whole = np.round(rows).astype(np.int32)
    y = ops.box_convert(jnp.asarray(whole), before, after)
    expected = torchvision.ops.box_convert(torch.tensor(whole), before, after)
    assert str(y.dtype) == str(expected.dtype).removeprefix("torch.")
    close(y, expected, bound=1e-6)
    half = ops.box_convert(jnp.asarray(rows, jnp.bfloat16), before, after)
    assert half.dtype == jnp.bfloat16
    close(half.astype(jnp.float64), torchvision.ops.box_convert(torch.tensor(rows), before, after), bound=0.1)


def test_what_cannot_be_converted_is_refused():
    with pytest.raises(ValueError, match="upright"):
        ops.box_convert(jnp.zeros((1, 4)), "xyxy", "cxcywhr")
    with pytest.raises(ValueError, match="must be one of: xyxy, xywh"):
        ops.box_convert(jnp.zeros((1, 4)), "xyxy", "yxyx")
    with pytest.raises(ValueError, match=r"boxes in xyxy are of 4 numbers, .* given were \(2, 5\)"):
        ops.box_convert(jnp.zeros((2, 5)), "xyxy", "xywh")
    with pytest.raises(ValueError, match="'cxcywhr'"):
        ops.box_iou(jnp.zeros((1, 5)), jnp.zeros((1, 5)), fmt="cxcywhr")
    with pytest.raises(ValueError, match="none, mean or sum"):
        ops.generalized_box_iou_loss(jnp.zeros((1, 4)), jnp.zeros((1, 4)), "average")


WEIGHTS = [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0), (1.0, 2.0, 3.0, 4.0)]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_codes_equal_torchvision(weights):
    ours, theirs = ops.BoxCoder(weights), reference.BoxCoder(weights)
    same(ours.encode, theirs.encode_single, boxes(9), boxes(9, seed=1))
    offsets = normal(9, 4) * 30  # far beyond the largest that are decoded, and below the smallest
    offsets[0] = [0, 0, weights[2] * np.log(1000 / 16), weights[3] * np.log(1000 / 16)]
    agree(ours.decode, theirs.decode_single, offsets, boxes(9), images=False)
    same(ours.decode, theirs.decode_single, normal(9, 4), boxes(9))
    agree(ours.decode, theirs.decode_single, np.zeros((0, 4)), np.zeros((0, 4)), images=False)


def test_codes_of_every_class_share_their_anchors():
    ours, theirs = ops.BoxCoder(WEIGHTS[1]), reference.BoxCoder(WEIGHTS[1])
    offsets, anchors = normal(9, 5 * 4), boxes(9)
    decoded = ours.decode(jnp.asarray(offsets.reshape(9, 5, 4)), jnp.asarray(anchors)[:, None])
    close(decoded, theirs.decode(torch.tensor(offsets), [torch.tensor(anchors)]))


@pytest.mark.parametrize("normalize", [True, False])
def test_linear_codes_equal_torchvision(normalize):
    ours, theirs = ops.BoxLinearCoder(normalize), reference.BoxLinearCoder(normalize)
    # torchvision's encode names the anchors first
    same(ours.encode, lambda boxes, anchors: theirs.encode(anchors, boxes), boxes(9), boxes(9, seed=1))
    same(ours.decode, theirs.decode, normal(9, 4), boxes(9))


def test_decoding_is_in_the_dtype_of_the_offsets():
    for dtype in (jnp.float32, jnp.bfloat16):
        for coder in (ops.BoxCoder(), ops.BoxLinearCoder()):
            assert coder.decode(jnp.zeros((1, 4), dtype), jnp.asarray(boxes(1))).dtype == dtype
