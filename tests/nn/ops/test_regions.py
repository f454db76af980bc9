"""RoIAlign and RoIPool equal torchvision's on one map and on the levels of a pyramid, and so do their gradients."""

from collections import OrderedDict
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torchvision

from jaxzoo.nn import ops
from jaxzoo.nn.ops import regions as module
from tests.compare import close, normal
from tests.nn.ops.compare import boxes


@pytest.fixture(params=[("cpu", 32), ("cpu", 3), ("default", 32)], ids=["windows", "small windows", "a table"])
def platform(request, monkeypatch):
    """The formulation that a platform takes; most regions do not fit into small windows."""
    chosen, window = request.param
    monkeypatch.setattr(module.lax, "platform_dependent", lambda *given, **ways: ways[chosen](*given))
    monkeypatch.setattr(module, "_WINDOW", window)


def regions(n: int, size: float = 40.0, whole: bool = False) -> np.ndarray:
    """(n, 5) in two images: some beyond them, one without area, one reversed, one far outside."""
    rows = boxes(n, size, whole=whole)
    rows[-3:] = [[7.0, 7.0, 7.0, 7.0], [9.0, 9.0, 5.0, 6.0], [200.0, 200.0, 220.0, 230.0]]
    return np.concatenate([np.arange(n)[:, None] % 2, rows], 1)


def agree(ours, theirs, maps: list[np.ndarray], slopes: bool = True) -> None:
    """Of maps in torch's layout: values, gradients of every map, and forward mode."""
    tensors = [torch.tensor(m, requires_grad=True) for m in maps]
    expected = theirs(*tensors)
    cotangent = normal(*expected.shape, seed=1)
    expected.backward(torch.tensor(cotangent))
    given = [jnp.asarray(np.moveaxis(m, 1, -1)) for m in maps]
    slope = [jnp.asarray(normal(*m.shape, seed=2)) for m in given]

    @jax.jit
    def run(given, cotangent):
        y, backward = jax.vjp(ours, *given)
        return y, backward(cotangent), jax.jvp(ours, given, slope)[1]

    y, gradients, forward = run(given, np.moveaxis(cotangent, 1, -1))
    close(y, np.moveaxis(expected.detach().numpy(), 1, -1))
    for gradient, tensor in zip(gradients, tensors, strict=True):
        close(gradient, np.moveaxis(tensor.grad.numpy(), 1, -1), "gradient")
    along = sum((g * s).sum() for g, s in zip(gradients, slope, strict=True))
    assert abs((forward * np.moveaxis(cotangent, 1, -1)).sum() - along) <= 1e-9 * np.abs(along) + 1e-9


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [1, 2, 3, -1])
@pytest.mark.parametrize(
    ("size", "scale", "output"), [((20, 17), 0.5, (3, 2)), ((5, 40), 1.0, 4), ((1, 3), 0.1, (2, 5))]
)
def test_roi_align_equals_torchvision(size, scale, output, ratio, aligned):
    rois = regions(12)
    # Some of the regions are larger than the map, which the adaptive number has to know
    arguments = {"spatial_scale": scale, "sampling_ratio": ratio, "aligned": aligned}
    theirs = partial(torchvision.ops.roi_align, boxes=torch.tensor(rois), output_size=output, **arguments)
    ours = partial(ops.roi_align, boxes=rois, output_size=output, max_sampling=25 if ratio < 1 else None, **arguments)
    agree(ours, theirs, [normal(2, 3, *size)])


def test_the_adaptive_bound_is_enough_for_regions_inside_the_map():
    rois = np.array([[0, 0, 0, 40, 30], [0, 3, 2, 39, 29.5], [0, 39, 29, 40, 30], [0, 0, 0, 20, 30.0]])
    for output in (3, (7, 4), (10, 5), (6, 13)):  # some cells are a whole number of pixels high
        theirs = partial(torchvision.ops.roi_align, boxes=torch.tensor(rois), output_size=output)
        agree(partial(ops.roi_align, boxes=rois, output_size=output), theirs, [normal(1, 2, 30, 40)])


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    ("size", "scale", "output"), [((20, 17), 0.5, (3, 2)), ((5, 40), 1.0, 4), ((1, 3), 0.1, (2, 5))]
)
def test_roi_pool_equals_torchvision(size, scale, output, whole):
    rois = regions(12, whole=whole)  # whole corners times a half are rounded from the middle
    theirs = partial(torchvision.ops.roi_pool, boxes=torch.tensor(rois), output_size=output, spatial_scale=scale)
    ours = partial(ops.roi_pool, boxes=rois, output_size=output, spatial_scale=scale)
    for x in (normal(2, 3, *size), np.round(normal(2, 3, *size))):  # of which the second has ties
        agree(ours, theirs, [x])


def pyramid(seed: int = 0) -> dict[str, np.ndarray]:
    sizes = {"0": (32, 40), "1": (16, 20), "2": (8, 10), "unused": (2, 2), "3": (4, 5)}
    return {name: normal(2, 3, *size, seed=seed) for name, size in sizes.items()}


@pytest.mark.parametrize("names", [["0", "1", "2", "3"], ["1", "2"], ["2"]])
@pytest.mark.parametrize("ratio", [2, -1])
def test_a_pyramid_equals_torchvision_and_infers_its_scales(platform, names, ratio):
    rng = np.random.default_rng(0)
    low = rng.uniform(-5, 100, (2, 15, 2))
    rois = np.concatenate([low, low + np.exp(rng.uniform(0, 4.6, (2, 15, 2)))], 2)
    rois[0, 0], rois[1, 0], rois[1, 1] = [0, 0, 14, 14], [3, 3, 3, 3], [0, 0, 56, 14]  # at the border of two levels
    maps, setting = (
        {name: x for name, x in pyramid().items() if name in names},
        {"canonical_scale": 28, "canonical_level": 3},
    )
    theirs = torchvision.ops.MultiScaleRoIAlign(names, (3, 2), ratio, **setting)
    expected = partial(theirs, boxes=list(torch.tensor(rois)), image_shapes=[(128, 160), (100, 90)])
    ours = ops.MultiScaleRoIAlign(names, (3, 2), ratio, **setting)

    def flat(*given):
        y = ours(dict(zip(maps, given, strict=True)), rois, 128)
        return y.reshape(-1, *y.shape[2:])

    agree(flat, lambda *given: expected(OrderedDict(zip(maps, given, strict=True))), list(maps.values()))
    assert ops.infer_scales([m.shape[2] for m in maps.values()], 128) == theirs.scales


def test_levels_equal_torchvision():
    sides = np.exp(np.random.default_rng(0).uniform(0, 7, (500, 2)))
    rows = np.concatenate([np.zeros((500, 2)), sides], 1)
    rows[:5, 2:] = np.array([[112, 112], [224, 224], [448, 448], [224 * (1 - 1e-7), 224], [0, 0]])
    for dtype in (np.float64, np.float32):
        expected = torchvision.ops.poolers.LevelMapper(2, 5)([torch.tensor(rows.astype(dtype))])
        np.testing.assert_array_equal(ops.roi_levels(rows.astype(dtype), 2, 5), expected)


@pytest.mark.parametrize(("map_rows", "image"), [(16, 64), (16, 40), (7, 100), (50, 800), (25, 799), (3, 90)])
def test_scales_are_inferred_as_torchvision_does(map_rows, image):
    expected = torchvision.ops.poolers._infer_scale(torch.zeros(1, 1, map_rows, 9), [image, 777])
    assert ops.infer_scales([map_rows], image) == [expected]


def test_no_regions_and_other_shapes():
    x = jnp.zeros((2, 4, 4, 3))
    assert ops.roi_align(x, jnp.zeros((0, 5)), 7).shape == (0, 7, 7, 3)
    assert ops.roi_align(x, jnp.zeros((2, 0, 4)), 7, sampling_ratio=2).shape == (2, 0, 7, 7, 3)
    assert ops.roi_pool(x, jnp.zeros((0, 5)), 7).shape == (0, 7, 7, 3)
    with pytest.raises(ValueError, match=r"\(K, 5\), the image first, or \(N, L, 4\)"):
        ops.roi_align(x, jnp.zeros((3, 4)), 7)
    with pytest.raises(ValueError, match="needs scales"):
        ops.MultiScaleRoIAlign(["0"], 7, 2)({"0": x}, jnp.zeros((2, 1, 4)))
    with pytest.raises(ValueError, match="1 scales for 2"):
        ops.MultiScaleRoIAlign(["0", "1"], 7, 2, scales=[0.5])({"0": x, "1": x}, jnp.zeros((2, 1, 4)))


def test_precision_and_vmap():
    x, rois = jnp.asarray(normal(2, 9, 8, 3)), jnp.asarray(boxes(6, 9).reshape(2, 3, 4))
    for ratio in (2, -1):
        exact = ops.roi_align(x, rois, 3, sampling_ratio=ratio)
        assert ops.roi_align(x.astype(jnp.bfloat16), rois, 3, sampling_ratio=ratio).dtype == jnp.bfloat16
        close(ops.roi_align(x.astype(jnp.float32), rois, 3, sampling_ratio=ratio), exact, bound=1e-5)
        each = jax.vmap(lambda image, b, ratio=ratio: ops.roi_align(image[None], b[None], 3, sampling_ratio=ratio)[0])
        close(each(x, rois), exact)
    assert ops.roi_align(jnp.ones((1, 4, 4, 1), jnp.uint8), rois[:1], 2).dtype == jnp.float32
