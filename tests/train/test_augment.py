"""Augmentation on the host equals torchvision's: every operation by itself, and whole policies at the same draws."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import ColorJitter, InterpolationMode, RandomResizedCrop, autoaugment
from torchvision.transforms import functional as F

from jaxzoo import Preprocess, UsageError
from jaxzoo.preprocess import resize_and_crop
from tests.train.chance import TorchsChance
from train.augment import Augmentation, host

SIZES = [(61, 47), (32, 32), (40, 97), (1, 3)]
# Of every operation the weakest, the strongest of any policy, and some that are no whole numbers.
MAGNITUDES = {
    **dict.fromkeys(("Identity", "AutoContrast", "Equalize", "Invert"), (0.0,)),
    **dict.fromkeys(("ShearX", "ShearY"), (-0.99, -0.3, 0.0, 0.07, 0.99)),
    **dict.fromkeys(("TranslateX", "TranslateY"), (-32.0, -3.7, 0.0, 14.5, 27.6)),
    "Rotate": (-135.0, -90.0, -3.3, 0.0, 9.0, 30.0, 90.0, 135.0),
    **dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), (-0.99, -0.27, 0.0, 0.6, 0.99)),
    "Posterize": (1.0, 2.0, 4.0, 7.0, 8.0),
    "Solarize": (0.0, 84.99999, 127.5, 170.0, 255.0, 256.0),
}


def picture(size=(61, 47), kind="noise"):
    """Noise, a smooth picture, or one that is nearly all of one colour."""
    width, height = size
    rng = np.random.default_rng(width)
    if kind == "flat":
        pixels = np.full((height, width, 3), (7, 130, 255), np.uint8)
        pixels[0, 0] = 90
        return Image.fromarray(pixels)
    noise = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
    return noise if kind == "noise" else noise.resize((7, 5)).resize(size, Image.Resampling.BICUBIC)


def assert_same(ours, theirs):
    assert (ours.mode, ours.size) == (theirs.mode, theirs.size)
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


# Operations


@pytest.mark.parametrize("operation", [*host.OPERATIONS, "Invert"])
def test_an_operation_equals_torchvisions_to_the_bit(operation):
    interpolations = [InterpolationMode.NEAREST]
    if operation in ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"):
        interpolations += [InterpolationMode.BILINEAR, InterpolationMode.BICUBIC]
    kinds = ("noise", "smooth", "flat")
    for magnitude, mode, size, kind in itertools.product(MAGNITUDES[operation], interpolations, SIZES, kinds):
        image = picture(size, kind)
        for fill in (None, 9, (124, 116, 104)):
            theirs = [float(x) for x in fill] if isinstance(fill, tuple) else fill
            assert_same(
                host.apply(operation, image, magnitude, interpolation=mode.value, fill=fill),
                autoaugment._apply_op(image, operation, magnitude, interpolation=mode, fill=theirs),
            )


def test_operations_leave_the_image_they_are_given_alone():
    image, before = picture(), np.asarray(picture()).copy()
    for operation, magnitudes in MAGNITUDES.items():
        host.apply(operation, image, magnitudes[-1])
    np.testing.assert_array_equal(image, before)


def test_unknown_operations_and_interpolations_are_refused_with_the_ones_there_are():
    with pytest.raises(UsageError, match=r"'Shear'.*ShearX.*Invert"):
        host.apply("Shear", picture(), 0.1)
    with pytest.raises(UsageError, match=r"'lanczos'.*nearest, bilinear, bicubic"):
        host.apply("Rotate", picture(), 0.1, interpolation="lanczos")


# Magnitudes


@pytest.mark.parametrize("size", [(224, 224), (500, 375), (33, 1000)])
@pytest.mark.parametrize("bins", [10, 31])
@pytest.mark.parametrize("policy", ["AutoAugment", "RandAugment", "TrivialAugmentWide"])
def test_magnitudes_are_torchvisions(policy, bins, size):
    wide = policy == "TrivialAugmentWide"
    space = getattr(autoaugment, policy)()._augmentation_space(bins, *(() if wide else (size[::-1],)))
    assert list(space) == list(host.OPERATIONS if policy != "AutoAugment" else [*host.OPERATIONS[1:], "Invert"])
    for operation, (theirs, signed) in space.items():
        ours = host.levels(operation, bins, None if wide else size)
        assert signed == (operation in host.SIGNED)
        if ours is None:
            assert theirs.ndim == 0
        else:  # torch's are float32, whose last bit depends on the processor
            np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=3e-7 * np.abs(ours).max())


def test_the_imagenet_policy_is_torchvisions():
    assert list(host.IMAGENET_POLICY) == autoaugment.AutoAugment().policies


# Policies


def recorded(monkeypatch, module, name):
    """The (operation, magnitude) of every call of module.name from now on."""
    calls, original = [], getattr(module, name)

    def recording(*arguments, **options):
        operation = next(a for a in arguments if isinstance(a, str))
        calls.append((operation, next(a for a in arguments if isinstance(a, float))))
        return original(*arguments, **options)

    monkeypatch.setattr(module, name, recording)
    return calls


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (host.autoaugment, autoaugment.AutoAugment()),
        (host.randaugment, autoaugment.RandAugment()),
        (lambda *a: host.randaugment(*a, ops=3, magnitude=30), autoaugment.RandAugment(3, 30)),
        (host.trivialaugment, autoaugment.TrivialAugmentWide()),
    ],
)
def test_a_policy_that_draws_what_torch_draws_does_what_torchvision_does(ours, theirs, monkeypatch):
    did, expected = recorded(monkeypatch, host, "apply"), recorded(monkeypatch, autoaugment, "_apply_op")
    different = 0
    for seed in range(300):
        image = picture(SIZES[seed % 3], "smooth")
        a = ours(image, TorchsChance(seed))
        torch.manual_seed(seed)
        different += (np.asarray(a) != np.asarray(theirs(image))).any()
    assert [name for name, _ in did] == [name for name, _ in expected]
    np.testing.assert_allclose(*([x for _, x in calls] for calls in (did, expected)), rtol=1e-6, atol=1e-6)
    assert different <= 3  # where float32's last bit decides a pixel
    in_policy = {name for pair in host.IMAGENET_POLICY for name, _, _ in pair}
    assert {name for name, _ in did} == (in_policy if ours is host.autoaugment else set(host.OPERATIONS))
    signed = [x > 0 for name, x in did if name in host.SIGNED and x]
    assert 0.35 < np.mean(signed) < 0.65


def test_randaugment_refuses_a_magnitude_that_is_none():
    with pytest.raises(UsageError, match="magnitude is 31; it must be a whole number from 0 to 30"):
        host.randaugment(picture(), np.random.default_rng(0), magnitude=31)


# Colour jitter

STRENGTHS = [(0.4, 0.4, 0.4, 0.1), (0, 0.3, 0, 0), (1.5, 0, 2.0, 0.5), (0, 0, 0, 0.25), (0, 0, 0, 0)]


@pytest.mark.parametrize("strengths", STRENGTHS)
def test_color_jitter_that_draws_what_torch_draws_does_what_torchvision_does(strengths):
    jitter = ColorJitter(*strengths)
    for seed, kind in itertools.product(range(12), ("noise", "smooth", "flat")):
        ours = host.color_jitter(picture(kind=kind), TorchsChance(seed), *strengths)
        torch.manual_seed(seed)
        assert_same(ours, jitter(picture(kind=kind)))


@pytest.mark.parametrize("hue", [-0.5, -0.31, -0.004, 0.0, 0.001, 0.2, 0.5])
def test_hue_turns_as_torchvision_turns_it(hue):
    assert_same(host.adjusted(picture(), [("hue", hue)]), F.adjust_hue(picture(), hue))


def test_color_jitter_covers_its_ranges_in_every_order(monkeypatch):
    seen = []
    monkeypatch.setattr(host, "adjusted", lambda image, changes: seen.append(changes))
    rng = np.random.default_rng(0)
    for _ in range(2000):
        host.color_jitter(None, rng, 0.4, 1.5, 0.2, 0.1)
    assert len({tuple(name for name, _ in changes) for changes in seen}) == 24
    for name, low, high in (
        ("brightness", 0.6, 1.4),
        ("contrast", 0, 2.5),
        ("saturation", 0.8, 1.2),
        ("hue", -0.1, 0.1),
    ):
        factors = np.array([dict(changes)[name] for changes in seen])
        assert low <= factors.min() < low + 0.02 * (high - low) and high - 0.02 * (high - low) < factors.max() <= high
        np.testing.assert_allclose(factors.mean(), (low + high) / 2, atol=0.01 * (high - low))


# Crops


@pytest.mark.parametrize("size", [(500, 375), (224, 224), (1000, 90), (20, 400), (3, 2), (1, 1)])
@pytest.mark.parametrize(("area", "ratio"), [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.9, 1.0), (0.5, 2.0))])
def test_a_crop_that_draws_what_torch_draws_is_torchvisions(size, area, ratio):
    for seed in range(150):
        left, top, right, bottom = host.crop_box(size, TorchsChance(seed), area, ratio)
        torch.manual_seed(seed)
        expected = RandomResizedCrop.get_params(Image.new("L", size), area, ratio)
        assert (top, left, bottom - top, right - left) == expected


def test_crops_are_of_all_sizes_and_shapes_and_everywhere():
    rng = np.random.default_rng(0)
    boxes = np.array([host.crop_box((400, 300), rng, (0.2, 1.0)) for _ in range(3000)])
    left, top, right, bottom = boxes.T
    assert (left >= 0).all() and (top >= 0).all() and (right <= 400).all() and (bottom <= 300).all()
    areas, ratios = (right - left) * (bottom - top) / 120_000, (right - left) / (bottom - top)
    assert 0.195 < areas.min() < 0.21 and 0.97 < areas.max() <= 1
    assert 0.74 < ratios.min() < 0.76 and 1.32 < ratios.max() < 1.35
    assert abs(np.mean(left / np.maximum(1, 400 - right + left)) - 0.5) < 0.02


@pytest.mark.parametrize("mode", [InterpolationMode.BILINEAR, InterpolationMode.BICUBIC])
@pytest.mark.parametrize("box", [(0, 0, 61, 47), (3, 5, 20, 40), (60, 46, 61, 47), (10, 0, 42, 32)])
def test_crop_and_resize_equal_torchvisions_to_the_bit(box, mode):
    left, top, right, bottom = box
    expected = F.resized_crop(picture(), top, left, bottom - top, right - left, [32, 32], mode)
    assert_same(host.cropped(picture(), box, 32, mode.value), expected)


# All together


def test_a_training_image_is_cropped_then_jittered_then_given_to_the_policy():
    config = Augmentation(crop_area=0.5, color_jitter=(0.4, 0.4, 0.4, 0.1), auto_augment="trivialaugment")
    for seed in range(20):
        ours = host.augmented(picture(), TorchsChance(seed), config, 24, "bicubic")
        torch.manual_seed(seed)
        cut = RandomResizedCrop(24, (0.5, 1.0), interpolation=InterpolationMode.BICUBIC)(picture())
        jittered = ColorJitter(0.4, 0.4, 0.4, 0.1)(cut)
        expected = autoaugment.TrivialAugmentWide(interpolation=InterpolationMode.BICUBIC)(jittered)
        np.testing.assert_allclose(np.asarray(ours, int), np.asarray(expected, int), atol=1)  # a magnitude's last bit


@pytest.mark.parametrize("policy", ["autoaugment", "randaugment", "trivialaugment"])
def test_a_policy_changes_most_images_and_depends_on_the_generator_alone(policy):
    config = Augmentation(crop_area=1, auto_augment=policy)
    images = [np.asarray(host.augmented(picture(), np.random.default_rng(s), config, 32)) for s in range(40)]
    plain = np.asarray(resize_and_crop(picture(), Preprocess(crop=32)))
    assert sum((image != plain).any() for image in images) > 15
    again = host.augmented(picture(), np.random.default_rng(7), config, 32)
    np.testing.assert_array_equal(images[7], np.asarray(again))


def test_without_augmentation_an_image_of_the_right_size_stays_as_it_is_and_costs_no_chance():
    rng = np.random.default_rng(0)
    config = Augmentation(crop_area=1)
    assert_same(host.augmented(picture((32, 32)), rng, config, 32), picture((32, 32)))
    assert_same(
        host.augmented(picture(), rng, config, 32, "bicubic"),
        resize_and_crop(picture(), Preprocess(crop=32, interpolation="bicubic")),
    )
    assert rng.random() == np.random.default_rng(0).random()
