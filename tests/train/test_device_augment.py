"""Augmentation on the device equals torchvision's at the same parameters, and draws them as torchvision does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import torch
from torchvision.transforms import RandomErasing, v2
from torchvision.transforms import functional as F

from train.augment import device

BOX = (3, 2, 11, 9)


def batch(count=6, height=12, width=15, classes=4, dtype=np.float64):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(count, height, width, 3)).astype(dtype)
    return images, np.eye(classes, dtype=dtype)[rng.integers(0, classes, count)]


def by_torch(transform, images, targets, params):
    """What a transform of torchvision's makes of the batch with these parameters."""
    transform.make_params = lambda inputs: params
    images, targets = transform(torch.tensor(images).permute(0, 3, 1, 2), torch.tensor(targets))
    return images.permute(0, 2, 3, 1).numpy(), targets.numpy()


def assert_close(ours, theirs, atol=1e-12):
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


# Flips


def test_half_of_the_images_are_mirrored_and_nothing_else_changes():
    images, _ = batch(400)
    flipped = np.asarray(jax.jit(device.flipped)(images, jax.random.key(0)))
    same, mirrored = ((flipped == other).all((1, 2, 3)) for other in (images, images[:, :, ::-1]))
    assert (same != mirrored).all()
    assert 160 < mirrored.sum() < 240


# Erasing


@pytest.mark.parametrize("box", [BOX, (0, 0, 1, 12), (14, 11, 15, 12), (4, 4, 4, 4), (0, 0, 15, 12)])
def test_an_erased_box_is_torchvisions(box):
    images, _ = batch(1)
    left, top, right, bottom = box
    expected = F.erase(torch.tensor(images).permute(0, 3, 1, 2), top, left, bottom - top, right - left, v=0.0)
    np.testing.assert_array_equal(device.erase(images, jnp.array([box])), expected.permute(0, 2, 3, 1))


def test_each_image_has_its_own_box():
    images, _ = batch(2)
    erased = np.asarray(device.erase(images, jnp.array([BOX, (0, 0, 2, 2)])))
    for image, before, (left, top, right, bottom) in zip(erased, images, (BOX, (0, 0, 2, 2)), strict=True):
        inside = np.zeros((12, 15), bool)
        inside[top:bottom, left:right] = True
        assert (image[inside] == 0).all()
        np.testing.assert_array_equal(image[~inside], before[~inside])


@pytest.mark.parametrize(
    ("height", "width", "ratio"), [(64, 64, (0.3, 3.3)), (40, 100, (0.3, 3.3)), (96, 80, (0.5, 1))]
)
def test_boxes_to_erase_are_spread_as_torchvisions_are(height, width, ratio):
    count = 4000
    boxes = np.asarray(device.erasing_boxes(jax.random.key(1), count, height, width, ratio=ratio))
    left, top, right, bottom = boxes.T
    assert (left >= 0).all() and (top >= 0).all() and (right <= width).all() and (bottom <= height).all()
    ours = np.stack([top, left, bottom - top, right - left], 1)
    torch.manual_seed(0)
    image = torch.zeros(1, height, width)
    theirs = np.array([RandomErasing.get_params(image, (0.02, 0.33), ratio, [0.0])[:4] for _ in range(count)])
    assert (ours[:, 2] < height).all() and (ours[:, 3] < width).all() and ours[:, 2:].min() > 0
    for column, length in enumerate((height, width, height, width)):
        a, b = (boxes[:, column] / length for boxes in (ours, theirs))
        # The largest distance between two empirical distributions of 4,000 is below this in all but 1 of 10,000 cases.
        places = np.linspace(0, 1, 200)
        distance = np.abs((a[:, None] <= places).mean(0) - (b[:, None] <= places).mean(0)).max()
        assert distance < 0.05
    area = ours[:, 2] * ours[:, 3] / (height * width)
    assert area.min() > 0.018 and area.max() < 0.34


def test_where_no_box_fits_nothing_is_erased():
    left, top, right, bottom = device.erasing_boxes(jax.random.key(0), 5, 1, 1).T
    assert (left == right).all() and (top == bottom).all()
    images, _ = batch(5, 1, 1)
    np.testing.assert_array_equal(device.erased(images, jax.random.key(0), 1.0), images)


@pytest.mark.parametrize(("probability", "low", "high"), [(0.0, 0, 0), (0.1, 20, 65), (1.0, 400, 400)])
def test_so_many_images_are_erased(probability, low, high):
    images = np.ones((400, 16, 48, 3), np.float32)
    erased = jax.jit(device.erased, static_argnums=2)(images, jax.random.key(0), probability)
    assert erased.dtype == np.float32
    zeros = np.asarray(erased == 0)
    assert low <= zeros.any((1, 2, 3)).sum() <= high
    if probability == 1:  # everywhere, in one image or another
        assert zeros.any((0, 1, 3)).all() and zeros.any((0, 2, 3)).all()


# Mixing


@pytest.mark.parametrize("share", [0.0, 0.31, 0.5, 1.0])
def test_mixup_is_torchvisions(share):
    expected = by_torch(v2.MixUp(alpha=1.0), *batch(), {"lam": share})
    assert_close(device.mix_images(*batch(), share), expected)


@pytest.mark.parametrize("box", [BOX, (0, 0, 15, 12), (14, 0, 15, 12), (5, 5, 5, 9)])
def test_cutmix_is_torchvisions(box):
    left, top, right, bottom = box
    share = 1.0 - (right - left) * (bottom - top) / (12 * 15)
    expected = by_torch(v2.CutMix(alpha=1.0), *batch(), {"box": box, "lam_adjusted": share})
    assert_close(device.paste_boxes(*batch(), jnp.array(box)), expected)


@pytest.mark.parametrize(("height", "width"), [(12, 15), (224, 224), (33, 7)])
def test_the_box_of_cutmix_is_torchvisions(height, width, monkeypatch):
    transform, rng = v2.CutMix(alpha=1.0), np.random.default_rng(0)
    for share in (*rng.random(40), 0.0, 1.0, 0.75):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        places = iter((x, y))
        monkeypatch.setattr(transform, "_dist", type("", (), {"sample": lambda self, shape, s=share: s})())
        monkeypatch.setattr(torch, "randint", lambda *a, **k: torch.tensor([next(places)]))  # noqa: B023
        params = transform.make_params([torch.zeros(1, 3, height, width)])
        box = device.cut_box(share, x, y, height, width)
        assert tuple(box.tolist()) == params["box"]


def test_label_smoothing_before_mixing_is_label_smoothing_in_the_loss():
    images, targets = batch()
    logits = np.random.default_rng(1).normal(size=targets.shape)
    mixed = device.mix_images(images, targets, 0.3)[1]
    smoothed = device.mix_images(images, targets * 0.9 + 0.1 / 4, 0.3)[1]
    ours = -(np.asarray(smoothed) * np.asarray(jax.nn.log_softmax(logits))).sum(-1).mean()
    theirs = torch.nn.functional.cross_entropy(
        torch.tensor(logits), torch.tensor(np.asarray(mixed)), label_smoothing=0.1
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def mixed(mixup, cutmix, count=200):
    """Images and targets of so many draws: each batch holds a black image of class 0 and a white one of class 1."""
    images = np.stack([np.zeros((16, 16, 3)), np.ones((16, 16, 3))]).astype(np.float32)
    targets = np.eye(2, dtype=np.float32)
    keys = jax.random.split(jax.random.key(5), count)
    draw = jax.jit(jax.vmap(lambda key: device.mixed(images, targets, key, mixup, cutmix)))
    images, targets = draw(keys)
    assert images.dtype == targets.dtype == np.float32
    return np.asarray(images), np.asarray(targets)


def is_cut(images):
    """Whether all pixels are of one image or the other, by draw."""
    return ((images == 0) | (images == 1)).all((1, 2, 3, 4))


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.2, 0.0), (0.0, 1.0), (0.2, 1.0)])
def test_targets_are_mixed_as_the_pixels_are(mixup, cutmix):
    images, targets = mixed(mixup, cutmix)
    np.testing.assert_allclose(targets.sum(-1), 1, atol=1e-6)
    white = images.mean((2, 3, 4))  # the part of class 1 that can be seen
    np.testing.assert_allclose(targets[:, :, 1], white, atol=2e-6)


def test_one_of_two_is_drawn_for_each_batch():
    assert not is_cut(mixed(5.0, 0.0)[0]).any()
    assert is_cut(mixed(0.0, 1.0)[0]).all()
    assert 70 < is_cut(mixed(5.0, 1.0)[0]).sum() < 130


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5, 1.0, 8.0, 100.0])
def test_shares_are_of_the_beta_distribution(alpha):
    drawn = np.asarray(device.sample_lambda(jax.random.key(3), alpha, (40_000,)))
    assert drawn.dtype == np.float32 and np.isfinite(drawn).all()
    places = np.concatenate(
        [np.linspace(0.001, 0.999, 300), scipy.stats.beta.ppf(np.linspace(0.05, 0.95, 19), alpha, alpha)]
    )
    places = places[(places > 1e-6) & (places < 1 - 1e-6)]  # float32 does not tell what is closer to 1 from 1
    off = (drawn[:, None] <= places).mean(0) - scipy.stats.beta.cdf(places, alpha, alpha)
    assert np.abs(off).max() < 0.01  # four standard errors


def test_no_draw_makes_a_share_that_is_no_number():
    extremes = jnp.array([0, 1e-45, 2**-23, 0.25, 0.5, 0.75, 1 - 2**-24], jnp.float32)
    sizes, angles = (x.ravel() for x in jnp.meshgrid(extremes, extremes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.random, "uniform", lambda *a: jnp.stack([sizes, angles]))
        for alpha in (0.01, 1.0, 100.0):
            drawn = np.asarray(device.sample_lambda(None, alpha, sizes.shape))
            assert ((drawn >= 0) & (drawn <= 1)).all()


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_cutmix_pastes_where_and_as_much_as_torchvision_does(alpha):
    images, _ = mixed(0.0, alpha, count=1500)
    ours = images[:, 0, :, :, 0].mean(0)
    torch.manual_seed(0)
    transform, theirs = v2.CutMix(alpha=alpha), np.zeros((16, 16))
    for _ in range(1500):
        left, top, right, bottom = transform.make_params([torch.zeros(2, 3, 16, 16)])["box"]
        theirs[top:bottom, left:right] += 1 / 1500
    np.testing.assert_allclose(ours, theirs, atol=0.07)  # four standard errors of a difference


def test_without_mixup_and_cutmix_nothing_happens():
    images, targets = batch()
    assert all(a is b for a, b in zip(device.mixed(images, targets, None, 0, 0), (images, targets), strict=True))


def test_bfloat16_images_are_mixed_in_float32_and_rounded_once():
    images, targets = batch(dtype=np.float32)
    low = jnp.asarray(images, jnp.bfloat16)
    ours, _ = device.mixed(low, targets, jax.random.key(0), 0.4, 0.0)
    expected, _ = device.mixed(low.astype(jnp.float32), targets, jax.random.key(0), 0.4, 0.0)
    assert ours.dtype == jnp.bfloat16
    np.testing.assert_array_equal(ours, expected.astype(jnp.bfloat16))


def test_all_of_it_depends_on_the_key_alone():
    def everything(key):
        images, targets = batch(dtype=np.float32)
        return device.mixed(device.erased(device.flipped(images, key), key, 0.5), targets, key, 0.2, 1.0)

    run = jax.jit(everything)
    first, again, other = (run(jax.random.key(seed)) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert (np.asarray(first[0]) != np.asarray(other[0])).any()
