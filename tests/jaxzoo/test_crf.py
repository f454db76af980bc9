"""The fully connected CRF equals sums over all pairs of pixels, and what approximates them comes close."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from skimage import data

from jaxzoo import UsageError, permutohedral
from jaxzoo.crf import mean_field
from tests.compare import close


def brute_force(p, image, mixing=None, *, iterations=10, bi_w=4, bi_xy=67, bi_rgb=3, pos_w=3, pos_xy=1):
    """Mean field as densecrf computes it, one pair of pixels after another in effect, in float64."""
    height, width, classes = p.shape
    y, x = (axis.ravel().astype(float) for axis in np.mgrid[:height, :width])
    colours = image.reshape(-1, 3).astype(float)
    far = (x[:, None] - x) ** 2 + (y[:, None] - y) ** 2
    unlike = ((colours[:, None] - colours) ** 2).sum(-1)
    exponents = [(bi_w, far / bi_xy**2 + unlike / bi_rgb**2), (pos_w, far / pos_xy**2)]
    kernels = [(weight, np.exp(-exponent / 2)) for weight, exponent in exponents]
    kernels = [(w, k / np.sqrt(k.sum(0)[:, None] * k.sum(1)[None])) for w, k in kernels]
    mixing = 1 - np.eye(classes) if mixing is None else mixing
    unary = -np.log(np.maximum(p.reshape(-1, classes), 1e-5))
    q = np.exp(-unary) / np.exp(-unary).sum(1, keepdims=True)
    for _ in range(iterations):
        energy = unary + sum(w * k @ q @ mixing.T for w, k in kernels)
        q = np.exp(-energy + energy.min(1, keepdims=True))
        q /= q.sum(1, keepdims=True)
    return q.reshape(p.shape)


def problem(height: int, width: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and an image with large areas and noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (3, 3, 3), np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST)).astype(int)
    image = np.clip(image + rng.integers(-4, 5, image.shape), 0, 255).astype(np.uint8)
    logits = rng.standard_normal((height, width, classes)) * 2
    p = np.exp(logits)
    return p / p.sum(-1, keepdims=True), image


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"iterations": 3, "bi_xy": 5.0, "bi_rgb": 20.0, "pos_xy": 2.5, "bi_w": 10.0},
        {"iterations": 1, "pos_w": 0.0},
        {"iterations": 4, "bi_w": 0.0},
    ],
    ids=["DeepLab's", "others", "one iteration of the bilateral kernel", "positions alone"],
)
def test_the_exact_method_equals_a_sum_over_all_pairs(options):
    p, image = problem(17, 22, 4)
    close(mean_field(p, image, method="exact", **options), brute_force(p, image, **options), bound=1e-13)


def test_any_two_classes_may_have_a_penalty_of_their_own():
    p, image = problem(9, 11, 3)
    mixing = np.array([[0, 1, 0.2], [0.5, 0, 1], [3, 1, -0.3]])
    ours = mean_field(p, image, compatibility=mixing, iterations=3)
    close(ours, brute_force(p, image, mixing, iterations=3), bound=1e-13)
    potts = mean_field(p, image, compatibility=1 - np.eye(3))
    close(potts, mean_field(p, image), bound=1e-13)


def test_single_precision_agrees_with_double():
    p, image = problem(17, 22, 4)
    for method in ("exact", "lattice"):
        single = mean_field(p.astype(np.float32), image, method=method)
        assert single.dtype == jnp.float32
        close(single, mean_field(p, image, method=method), bound=1e-5)


def test_without_iterations_probabilities_stay():
    p, image = problem(5, 6, 3)
    np.testing.assert_array_equal(mean_field(p, image, iterations=0), p)


def test_small_images_are_exact_and_photos_use_the_lattice(monkeypatch):
    p, image = problem(12, 13, 2)
    np.testing.assert_array_equal(mean_field(p, image), mean_field(p, image, method="exact"))
    monkeypatch.setattr("jaxzoo.crf.SMALL", 100)
    np.testing.assert_array_equal(mean_field(p, image), mean_field(p, image, method="lattice"))


def test_the_lattice_blurs_by_nearly_a_gaussian():
    """In three dimensions, where points are dense and all vertices between them are there."""
    features = np.random.default_rng(0).uniform(0, 4, (4000, 3))
    values = np.random.default_rng(1).uniform(0, 1, (4000, 2))
    apart = ((features[:, None] - features) ** 2).sum(-1)
    exact = np.exp(-apart / 2) @ values
    found = np.asarray(permutohedral.blurred(permutohedral.build(features, np.float64), jnp.asarray(values)))
    ratio = found / exact
    assert np.std(ratio) < 0.06 * np.mean(ratio)


def test_the_lattice_holds_every_point_whole():
    lattice = permutohedral.build(np.random.default_rng(0).normal(0, 30, (500, 5)), np.float64)
    close(lattice.shares.sum(1), np.ones(500))
    assert lattice.shares.min() >= 0 and lattice.shares.shape == (500, 6)
    far_apart = np.arange(40.0)[:, None] * np.full(5, 20)
    lattice = permutohedral.build(far_apart, np.float64)
    values = np.random.default_rng(1).uniform(0, 1, (40, 3))
    alone = np.asarray(permutohedral.blurred(lattice, jnp.asarray(values)))
    norm = np.asarray(permutohedral.blurred(lattice, jnp.ones((40, 1))))
    close(alone / norm, values)


def test_the_lattice_is_densecrfs():
    """What pydensecrf2 1.1 made of an image and probabilities, with the bilateral kernel alone and with both."""
    kept = np.load(Path(__file__).with_name("densecrf.npz"))
    p, image = kept["probabilities"], kept["image"]
    alone = mean_field(p, image, pos_w=0.0, method="lattice")
    np.testing.assert_allclose(alone, kept["bilateral"], atol=1e-5)
    exact = mean_field(p, image, pos_w=0.0, method="exact")
    assert np.abs(exact - kept["bilateral"]).mean() < 0.02
    # Its kernel of positions is approximated as well, ours is exact.
    both = np.asarray(mean_field(p, image, method="lattice"))
    assert np.abs(both - kept["both"]).mean() < 0.01
    assert (both.argmax(-1) == kept["both"].argmax(-1)).mean() > 0.98


@pytest.fixture(scope="module")
def photo() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A photograph of 96 × 96, which of its pixels are bright, and probabilities that know so only coarsely."""
    side = 96
    box, how = (100, 0, 356, 256), Image.Resampling
    image = np.asarray(Image.fromarray(data.astronaut()).crop(box).resize((side, side), how.LANCZOS))
    truth = image.astype(float).sum(-1) > 330
    coarse = Image.fromarray(truth.astype(np.float32)).resize((side // 8, side // 8), how.BOX)
    bright = np.asarray(coarse.resize((side, side), how.BILINEAR)).clip(0.02, 0.98)
    return image, truth, np.stack([1 - bright, bright], -1)


def test_borders_move_to_those_of_the_image(photo):
    image, truth, p = photo
    before = (p.argmax(-1) == truth).mean()
    exact, lattice = (np.asarray(mean_field(p, image, method=method)) for method in ("exact", "lattice"))
    for q in (exact, lattice):
        assert (q.argmax(-1) == truth).mean() > before + 0.01  # 90.9 % before, 92.3 % and 92.1 % after
    assert (exact.argmax(-1) == lattice.argmax(-1)).mean() > 0.99  # 99.6 %
    assert np.abs(exact - lattice).mean() < 0.01  # 0.004


def test_the_edge_of_two_colours_is_found_though_the_network_missed_it():
    image = np.full((40, 40, 3), 60, np.uint8)
    image[:, 20:] = 200
    p = np.full((40, 40, 2), 0.3)
    p[:, :15, 0] = p[:, 15:, 1] = 0.7  # five pixels to the left of it
    for method in ("exact", "lattice"):
        labels = np.asarray(mean_field(p, image, method=method)).argmax(-1)
        np.testing.assert_array_equal(labels, np.arange(40)[None].repeat(40, 0) >= 20)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"probabilities": np.ones((4, 5))}, r"must be \(height, width, classes\)"),
        ({"image": np.zeros((5, 4, 3), np.uint8)}, r"for these probabilities it must be \(4, 5, 3\)"),
        ({"probabilities": np.full((4, 5, 2), -3.0)}, "softmax of logits first"),
        ({"probabilities": np.full((4, 5, 2), np.nan)}, "softmax of logits first"),
        ({"method": "grid"}, "'grid'; it must be one of: auto, exact, lattice"),
        ({"compatibility": np.ones((3, 3))}, r"for 2 classes it is \(2, 2\)"),
        ({"iterations": -1}, "at least 0"),
        ({"pos_w": -1.0}, "at least 0"),
        ({"bi_rgb": 0.0}, "above 0"),
    ],
)
def test_bad_input_is_answered_in_one_sentence(wrong, said):
    good = {"probabilities": np.full((4, 5, 2), 0.5), "image": np.zeros((4, 5, 3), np.uint8)}
    with pytest.raises(UsageError, match=said):
        mean_field(**(good | wrong))
