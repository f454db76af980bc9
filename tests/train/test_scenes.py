"""The scenes that come with jaxzoo."""

import numpy as np
import pytest

from train.data import load, masks
from train.data.sources import digits, scenes


@pytest.fixture(scope="module")
def data():
    return load("scenes", "segmentation")


def test_a_scene_is_a_function_of_its_seed_and_index(data):
    image, mask = data.train[7]
    again = scenes.Scenes(digits.load().train, 10, 1, "scene")
    again[3]
    np.testing.assert_array_equal(np.asarray(again[7][0]), np.asarray(image))
    np.testing.assert_array_equal(again[7][1], mask)
    assert (np.asarray(data.train[8][0]) != np.asarray(image)).any()
    other = scenes.Scenes(digits.load().train, 10, 2, "scene")
    assert (np.asarray(other[7][0]) != np.asarray(image)).any()


def test_scenes_are_rgb_images_with_a_class_for_every_pixel(data):
    assert (len(data.train), len(data.held_out)) == (2400, 150)
    assert data.classes == ["background", *"0123456789"] and not data.photographs
    image, mask = data.held_out[149]
    assert (image.mode, image.size, mask.shape, mask.dtype) == ("RGB", (128, 128), (128, 128), np.uint8)
    assert [canvas.size for canvas in masks.canvases(data.held_out)] == [(128, 128)]
    with pytest.raises(IndexError):
        data.held_out[150]


def test_every_digit_is_there_and_several_to_a_scene(data):
    found = [masks.values_of(data.held_out[i][1]) for i in range(40)]
    assert set().union(*found) == set(range(11))
    assert all(0 in values and 2 <= len(values) <= 5 for values in found)
    assert np.mean([len(values) > 2 for values in found]) > 0.6  # two of a kind are one class
    pixels = masks.count(data.held_out, 11).pixels
    assert 0.4 < pixels[0] / pixels.sum() < 0.75 and (pixels[1:] > 0.01 * pixels.sum()).all()


def test_held_out_scenes_have_held_out_digits_only(data):
    source = digits.load()
    for part, scene in ((source.train, data.train), (source.held_out, data.held_out)):
        np.testing.assert_array_equal(scene.images, part.images)
        np.testing.assert_array_equal(scene.labels, part.labels)
    assert not set(source.train.numbers.tolist()) & set(source.held_out.numbers.tolist())


def test_stickers_differ_from_the_ground_and_hide_no_other_altogether(data):
    rng = np.random.default_rng(0)
    colors, ink, inside = scenes.sticker(data.train.images[0], data.train.filled(0), rng, scenes.Kind())
    luminance = colors @ [0.299, 0.587, 0.114]
    assert abs(luminance[0] - luminance[1]) > scenes.Kind.contrast
    assert inside.any(0).all() and inside.any(1).all() and (ink[inside] > 0.9).any() and (ink[inside] < 0.1).any()
    for i in range(20):
        mask = data.train[i][1]
        assert all((mask == value).sum() > 250 for value in masks.values_of(mask))
