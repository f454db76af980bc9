"""Masks and keypoints go into heatmaps and back as torchvision's do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torchvision.models.detection import roi_heads as reference

from jaxzoo.nn import ops
from tests.compare import close, normal
from tests.nn.ops.compare import boxes


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("size", [(40, 33), (7, 90)])
def test_masks_are_pasted_as_torchvision_does(size, dtype):
    rows = boxes(30).astype(dtype)
    rows = np.concatenate([rows[(rows[:, 2:] > 0).all(1) & (rows[:, 0] < size[1] - 1) & (rows[:, 1] < size[0] - 1)]])
    rows = np.concatenate(
        [rows, np.array([[3, 3, 3, 3], [-0.7, -0.7, 5, 5], [-9, -9, 99, 99], [2.5, 2, 2.9, 6]], dtype)]
    )
    masks = np.random.default_rng(0).uniform(size=(len(rows), 28, 28)).astype(dtype)
    ours = ops.paste_masks_in_image(masks, rows, size)
    theirs = reference.paste_masks_in_image(torch.tensor(masks[:, None]), torch.tensor(rows), size)[:, 0]
    assert ours.dtype == dtype
    close(ours, theirs, bound=1e-10 if dtype == np.float64 else 1e-5)


def test_no_masks_and_boxes_outside():
    assert ops.paste_masks_in_image(np.zeros((0, 28, 28)), np.zeros((0, 4)), (5, 6)).shape == (0, 5, 6)
    assert not ops.paste_masks_in_image(np.ones((1, 28, 28)), np.array([[50.0, 50, 60, 60]]), (5, 6)).any()


@pytest.mark.parametrize("size", [(60, 45), (28, 84)])
def test_mask_targets_equal_torchvision(size):
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 2, (4, *size)).astype(np.uint8)
    rows = np.clip(boxes(12, max(size)), 0, [size[1], size[0]] * 2)
    rows[0] = [0, 0, size[1], size[0]]
    matches = rng.integers(0, 4, 12)
    theirs = reference.project_masks_on_boxes(torch.tensor(masks), torch.tensor(rows), torch.tensor(matches), 28)
    close(jax.jit(ops.project_masks_on_boxes, static_argnums=3)(masks, jnp.asarray(rows), matches, 28), theirs)


def test_keypoint_targets_equal_torchvision():
    rng = np.random.default_rng(0)
    rois = boxes(9, whole=True)
    keypoints = np.concatenate([rng.integers(-5, 45, (9, 17, 2)), rng.integers(0, 3, (9, 17, 1))], 2).astype(float)
    keypoints[:, 0, :2], keypoints[:, 1, :2] = rois[:, 2:], rois[:, :2]  # the far edge is inside
    theirs = reference.keypoints_to_heatmap(torch.tensor(keypoints), torch.tensor(rois), 56)
    ours = jax.jit(ops.keypoints_to_heatmap, static_argnums=2)(keypoints, rois, 56)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_heatmaps_become_keypoints_as_in_torchvision():
    rois, maps = boxes(8), normal(8, 5, 14, 14)
    rois[0], rois[1], rois[2] = [3, 3, 3.2, 3.1], [0, 0, 140, 273], [5, 5, 19, 19]
    maps[3] = 1.0  # ties
    xy, scores = reference.heatmaps_to_keypoints(torch.tensor(maps), torch.tensor(rois))
    ours = jax.jit(ops.heatmaps_to_keypoints)(np.moveaxis(maps, 1, -1), rois)
    close(ours[0][..., 2], np.ones((8, 5)))
    close(ours[1], scores, bound=1e-6)  # torchvision's are float32 whatever it is given
    close(np.delete(ours[0], 3, 0), np.delete(xy.numpy(), 3, 0), bound=1e-6)
    assert ops.heatmaps_to_keypoints(jnp.zeros((0, 14, 14, 5)), jnp.zeros((0, 4)))[0].shape == (0, 5, 3)
