"""What is kept, and in which order, is what torchvision keeps, by both formulations."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torchvision

from jaxzoo.nn import ops
from jaxzoo.nn.ops import suppression
from tests.nn.ops.compare import boxes


def nms(rows, scores, iou_threshold, valid=None, groups=None, max_output=None):
    """As one program, which is compiled faster than one for each operation."""
    return jax.jit(partial(ops.batched_nms, iou_threshold=iou_threshold, max_output=max_output))(
        rows, scores, groups, valid=valid
    )


@pytest.fixture(params=["on a CPU", "elsewhere", "on a CPU, few at once", "elsewhere, few at once"])
def platform(request, monkeypatch):
    """The formulation that a platform takes, for all boxes or some at a time."""
    place, _, few = request.param.partition(", ")
    chosen = {"on a CPU": "cpu", "elsewhere": "default"}[place]
    if few:
        monkeypatch.setattr(suppression, "_AT_ONCE", 16)
    monkeypatch.setattr(suppression.lax, "platform_dependent", lambda *given, **ways: ways[chosen](*given))


def kept(result) -> list[int]:
    indices, mask = map(np.asarray, result)
    assert not mask[mask.sum() :].any() and not indices[~mask].any()
    return indices[mask].tolist()


def theirs(rows, scores, threshold, groups=None) -> list[int]:
    rows, scores = torch.tensor(rows), torch.tensor(scores)
    if groups is None:
        return torchvision.ops.nms(rows, scores, threshold).tolist()
    return torchvision.ops.batched_nms(rows, scores, torch.tensor(groups), threshold).tolist()


def scored(n: int, seed: int = 0, size: float = 40.0, whole: bool = False, dtype=np.float64):
    return boxes(n, size, seed, whole).astype(dtype), np.random.default_rng(seed).uniform(size=n).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("n", [0, 1, 2, 37, 300])
def test_nms_keeps_what_torchvision_keeps(platform, n, threshold, dtype):
    rows, scores = scored(n, dtype=dtype)
    expected = theirs(rows, scores, threshold)
    assert kept(nms(rows, scores, threshold)) == expected


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.55, 0.6, 0.7, 0.2])
def test_equal_scores_and_overlaps_equal_to_the_threshold(platform, threshold, dtype):
    """Whole pixels and few different scores: hundreds of IoUs are 0.5, 0.55 or 0.6 as nearly as the dtype has it."""
    rng = np.random.default_rng(0)
    low = rng.integers(0, 3, (400, 2))
    rows = np.concatenate([low, low + rng.integers(1, 12, (400, 2))], 1).astype(dtype)
    scores = rng.integers(0, 7, 400).astype(dtype)
    assert kept(nms(rows, scores, threshold)) == theirs(rows, scores, threshold)
    groups = rng.integers(0, 3, 400)
    by_class = [theirs(rows[groups == c], scores[groups == c], threshold) for c in range(3)]
    alone = np.concatenate([np.flatnonzero(groups == c)[k] for c, k in enumerate(by_class)])
    expected = np.sort(alone)[np.argsort(-scores[np.sort(alone)], kind="stable")]
    assert kept(nms(rows, scores, threshold, groups=groups)) == expected.tolist()


def test_all_are_suppressed_but_the_first(platform):
    rows, scores = np.repeat(boxes(1), 50, 0), np.full(50, 0.5)
    assert kept(nms(rows, scores, 0.5)) == theirs(rows, scores, 0.5) == [0]


def test_a_chain_in_which_each_removes_the_next(platform):
    x = np.arange(60.0)[:, None] * 3
    rows, scores = np.concatenate([x, 0 * x, x + 10, 0 * x + 10], 1), np.linspace(1, 0, 60)
    assert kept(nms(rows, scores, 0.4)) == theirs(rows, scores, 0.4) == list(range(0, 60, 2))


def test_strange_boxes_and_scores(platform):
    rows, scores = scored(40)
    rows[3], rows[4, 2], rows[5], rows[6], rows[7, 0] = 1.0, np.nan, rows[5, [2, 3, 0, 1]], [-9, -9, 99, 99], np.inf
    rows[8:12] = rows[3]
    assert kept(nms(rows, scores, 0.3)) == theirs(rows, scores, 0.3)
    scores[[2, 20]] = np.nan, -np.inf
    assert kept(nms(rows, scores, 0.3)) == theirs(rows, scores, 0.3)


def test_boxes_that_are_left_out_suppress_nothing(platform):
    rows, scores = scored(200)
    valid = np.random.default_rng(3).uniform(size=200) < 0.6
    scores[~valid] = 2.0
    expected = np.flatnonzero(valid)[theirs(rows[valid], scores[valid], 0.3)]
    assert kept(nms(rows, scores, 0.3, valid)) == expected.tolist()
    assert kept(nms(rows, scores, 0.3, np.zeros(200, bool))) == []
    scores[:] = -np.inf
    expected = np.flatnonzero(valid)[theirs(rows[valid], scores[valid], 0.3)]
    assert kept(nms(rows, scores, 0.3, valid)) == expected.tolist()


@pytest.mark.parametrize("most", [1, 7, 50, 200, 300])
def test_at_most_so_many_are_returned(platform, most):
    rows, scores = scored(200)
    result = nms(rows, scores, 0.5, max_output=most)
    assert result[0].shape == result[1].shape == (most,)
    assert kept(result) == theirs(rows, scores, 0.5)[:most]
    assert nms(rows[:0], scores[:0], 0.5, max_output=most)[1].tolist() == [False] * most


@pytest.mark.parametrize("n", [0, 1, 300, 1200])  # torchvision changes its way at 1000
def test_groups_leave_each_other_alone(platform, n):
    rows, scores = scored(n)
    groups = np.random.default_rng(1).integers(0, 5, n)
    assert kept(nms(rows, scores, 0.3, groups=groups)) == theirs(rows, scores, 0.3, groups)


def test_images_and_classes_by_vmap(platform):
    sets = [scored(80, seed) for seed in range(6)]
    rows, scores = (np.stack(x).reshape(2, 3, 80, *x[0].shape[1:]) for x in zip(*sets, strict=True))
    each = jax.jit(jax.vmap(jax.vmap(lambda b, s: ops.nms(b, s, 0.3, max_output=60))))
    indices, mask = each(rows, scores)
    for i, (b, s) in enumerate(sets):
        assert kept((indices[divmod(i, 3)], mask[divmod(i, 3)])) == theirs(b, s, 0.3)[:60]


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.bfloat16])
def test_bytes_and_half_precision_are_widened(platform, dtype):
    rows, scores = scored(100, size=120, whole=True)
    rows, scores = np.abs(rows), np.round(scores * 200)
    wide = [np.asarray(jnp.asarray(x, dtype).astype(jnp.float64)) for x in (rows, scores)]
    assert kept(nms(jnp.asarray(rows, dtype), jnp.asarray(scores, dtype), 0.5)) == theirs(*wide, 0.5)


def test_gradients_pass_it_by(platform):
    rows, scores = map(jnp.asarray, scored(30))

    def total(scores):
        indices, mask = ops.nms(rows + scores[:, None], scores, 0.3)
        return jnp.where(mask, scores[indices], 0).sum()

    gradient = jax.jit(jax.grad(total))(scores)
    assert set(np.flatnonzero(gradient)) == set(kept(nms(rows + scores[:, None], scores, 0.3)))


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(N, 4\) and \(N,\)"):
        ops.nms(jnp.zeros((3, 4)), jnp.zeros((3, 1)), 0.5)
    with pytest.raises(ValueError, match=r"\(N, 4\) and \(N,\)"):
        ops.nms(jnp.zeros((2, 3, 4)), jnp.zeros((2, 3)), 0.5)
