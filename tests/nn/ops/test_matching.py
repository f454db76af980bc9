"""Matches and samples equal torchvision's; padded ground truths change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torchvision
from torchvision.models.detection import _utils as reference

from jaxzoo.nn import ops
from tests.nn.ops.compare import boxes


def qualities():
    rng = np.random.default_rng(0)
    iou = torchvision.ops.box_iou(torch.tensor(boxes(9)), torch.tensor(boxes(200, seed=1))).numpy()
    ties = rng.integers(0, 5, (7, 60)) / 5
    nowhere = iou.copy()
    nowhere[3] = 0  # it makes every anchor that it does not overlap, so all, a low-quality match
    return {
        "boxes": iou,
        "duplicates": iou[[0, 1, 1, 2, 0]],
        "ties": ties,
        "a truth that overlaps nothing": nowhere,
        "one truth": iou[:1],
        "one anchor": iou[:, :1],
        "nothing overlaps": np.zeros((3, 5)),
    }


@pytest.mark.parametrize("name", qualities())
def test_matches_equal_torchvision(name):
    quality = qualities()[name]
    padded = np.concatenate([np.zeros_like(quality[:2]), quality, np.full_like(quality[:2], 0.8)])
    valid = np.r_[[False] * min(2, len(quality)), [True] * len(quality), [False] * min(2, len(quality))]
    before = min(2, len(quality))
    for arguments in [(0.7, 0.3, True), (0.5, 0.4, True), (0.5, 0.5, False), (0.6, 0.4, False)]:
        matcher, expected = ops.Matcher(*arguments), reference.Matcher(*arguments)(torch.tensor(quality)).numpy()
        np.testing.assert_array_equal(jax.jit(matcher)(quality), expected)
        ours = np.asarray(jax.jit(matcher)(padded, valid))
        np.testing.assert_array_equal(np.where(ours >= 0, ours - before, ours), expected)
    ssd, expected = ops.SSDMatcher(0.5), reference.SSDMatcher(0.5)(torch.tensor(quality)).numpy()
    np.testing.assert_array_equal(jax.jit(ssd)(quality), expected)
    ours = np.asarray(jax.jit(ssd)(padded, valid))
    np.testing.assert_array_equal(np.where(ours >= 0, ours - before, ours), expected)


@pytest.mark.parametrize("matcher", [ops.Matcher(0.7, 0.3, True), ops.SSDMatcher(0.5)])
def test_without_ground_truth_all_is_background(matcher):
    assert matcher(jnp.zeros((0, 4))).tolist() == [-1] * 4
    assert matcher(jnp.full((2, 4), 0.9), jnp.zeros(2, bool)).tolist() == [-1] * 4
    assert matcher(jnp.zeros((2, 0))).shape == (0,)


def test_images_of_a_batch_match_by_themselves():
    quality, valid = (
        np.random.default_rng(1).uniform(size=(3, 4, 20)),
        np.array([[1, 1, 1, 1], [1, 0, 1, 0], [0] * 4]) > 0,
    )
    together = jax.vmap(ops.SSDMatcher(0.5))(quality, valid)
    for row, q, v in zip(together, quality, valid, strict=True):
        np.testing.assert_array_equal(row, ops.SSDMatcher(0.5)(q, v))


def test_thresholds_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match=r"0\.7 is above high_threshold 0\.3"):
        ops.Matcher(0.3, 0.7)


LABELS = {
    "plenty": np.random.default_rng(0).integers(-1, 3, 500),
    "few positives": np.r_[[0] * 100, [1] * 3, [-1] * 7],
    "few of both": np.r_[[0] * 5, [1] * 3, [-1] * 70],
    "no positives": np.r_[[0] * 100, [-1] * 7],
    "no negatives": np.r_[[2] * 100, [-1] * 7],
    "all ignored": np.full(9, -1),
    "none": np.zeros(0, int),
}


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize(("size", "share"), [(64, 0.5), (64, 0.25), (7, 0.3)])
def test_samples_are_as_many_as_torchvisions_and_its_first_without_a_key(name, size, share, monkeypatch):
    labels, ours = LABELS[name], jax.jit(ops.BalancedPositiveNegativeSampler(size, share))
    theirs = reference.BalancedPositiveNegativeSampler(size, share)
    monkeypatch.setattr(torch, "randperm", lambda n, device=None: torch.arange(n))
    expected = [x[0].numpy().astype(bool) for x in theirs([torch.tensor(labels)])]
    for a, b in zip(ours(labels), expected, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b, which in zip(ours(labels, jax.random.key(0)), expected, (labels >= 1, labels == 0), strict=True):
        assert a.sum() == b.sum() and not (np.asarray(a) & ~which).any()


def test_random_samples_are_uniform_and_differ_by_key():
    labels = jnp.array([1, 0, 1, 0, 1, 0, 0, -1])
    sampler = ops.BalancedPositiveNegativeSampler(4, 0.5)
    positive, negative = jax.vmap(lambda key: sampler(labels, key))(jax.random.split(jax.random.key(0), 3000))
    assert np.abs(positive.mean(0) - np.array([2, 0, 2, 0, 2, 0, 0, 0]) / 3).max() < 0.05
    assert np.abs(negative.mean(0) - np.array([0, 1, 0, 1, 0, 1, 1, 0]) / 2).max() < 0.05
