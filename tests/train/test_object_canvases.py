"""Training images share canvases with those of like shape, and fit on them whatever augmentation draws."""

import numpy as np
import pytest
from PIL import Image

from jaxzoo.detection.transform import DetectionTransform
from train.augment import objects as transforms
from train.augment.object_canvases import training_canvases
from train.data.objects import Objects

RCNN = DetectionTransform()
SMALL = DetectionTransform(min_size=(65, 33), max_size=97, size_divisible=8)
SSD = DetectionTransform(fixed_size=(320, 300), size_divisible=1)
COCO = (
    [(480, 640)] * 700
    + [(640, 480)] * 250
    + [(426, 640)] * 150
    + [(640, 427)] * 60
    + [(500, 333)] * 9
    + [(612, 612)] * 30
)


def groups(sizes, transform=RCNN, preset="hflip", **more):
    return training_canvases(sizes, transform, preset, **more)


def pixels(canvases):
    return sum(len(canvas.indices) * np.prod(canvas.size) for canvas in canvases)


@pytest.mark.parametrize("preset", transforms.PRESETS)
@pytest.mark.parametrize("transform", [SMALL, SSD], ids=["small", "ssd"])
def test_every_example_fits_on_its_canvas(preset, transform):
    rng = np.random.default_rng(0)
    sizes = [tuple(size) for size in rng.integers(8, 60, (40, 2))] + [(9, 90), (90, 9), (33, 33), (10, 15)]
    found = groups(sizes, transform, preset)
    assert sorted(np.concatenate([canvas.indices for canvas in found])) == list(range(len(sizes)))
    tight = 0
    for canvas in found:
        assert all(side % transform.size_divisible == 0 for side in canvas.size)
        for index in canvas.indices:
            height, width = sizes[index]
            corners = np.sort(rng.uniform(0, 1, (5, 2, 2)), 1) * [width, height]
            objects = Objects.of(corners.reshape(-1, 4), np.ones(5))
            for _ in range(3 if preset in ("lsj", "multiscale") else 40):
                image, _ = transforms.preset(preset)(Image.new("RGB", (width, height)), objects, rng, None, (0, 0, 0))
                for side in transform.min_size:
                    drawn = DetectionTransform((side,), transform.max_size, fixed_size=transform.fixed_size)
                    size = drawn.size(image.height, image.width)
                    assert size <= canvas.size and size[1] <= canvas.size[1], (sizes[index], image.size)
                    tight += canvas.size[0] - size[0] < transform.size_divisible
    assert tight


@pytest.mark.parametrize("preset", ["none", "hflip", "multiscale"])
def test_images_of_like_shape_share_a_canvas(preset):
    found = groups(COCO, preset=preset)
    assert 2 <= len(found) <= 7
    assert found[0].size == (800, 1088) and set(range(700)) <= set(found[0].indices)
    assert pixels(found) < 0.65 * pixels(groups(COCO, preset=preset, most=1))


def test_images_of_one_shape_have_one_canvas():
    assert [canvas.size for canvas in groups([(480, 640)] * 9)] == [(800, 1088)]
    assert [canvas.size for canvas in groups([(480, 640), (960, 1280), (240, 320)])] == [(800, 1088)]


@pytest.mark.parametrize(
    ("preset", "transform", "size"),
    [
        ("lsj", RCNN, (800, 800)),
        ("ssd", RCNN, (1344, 1344)),
        ("ssdlite", DetectionTransform((320,), 640), (640, 640)),
        ("hflip", SSD, (300, 320)),
        ("ssd", SSD, (300, 320)),
    ],
)
def test_there_is_one_canvas_where_all_images_become_of_one_shape_or_of_any(preset, transform, size):
    (only,) = groups(COCO, transform, preset)
    assert only.size == size and len(only.indices) == len(COCO)


def test_there_are_as_many_canvases_as_are_worth_compiling():
    rng = np.random.default_rng(0)
    sizes = [(round(500 * shape), 500) for shape in 2 ** rng.uniform(-2, 2, 500)]
    assert [len(groups(sizes, most=most)) for most in (1, 2, 3)] == [1, 2, 3]
    assert 3 <= len(groups(sizes)) <= 7
    assert len(groups([(500, 500)] * 500 + [(500, 520)] * 500)) == 1


def test_a_canvas_is_for_as_many_images_as_a_batch_has():
    sizes = [(480, 640)] * 100 + [(640, 480)] * 15
    assert [canvas.size for canvas in groups(sizes, least=15)] == [(800, 1088), (1088, 800)]
    assert [canvas.size for canvas in groups(sizes, least=16)] == [(1088, 1088)]
    rng = np.random.default_rng(0)
    sizes = [(round(500 * shape), 500) for shape in 2 ** rng.uniform(-2, 2, 500)]
    assert len(groups(sizes, least=50)) > 2 and all(len(canvas.indices) >= 50 for canvas in groups(sizes, least=50))


def test_images_of_one_size_share_a_canvas():
    rng = np.random.default_rng(0)
    sizes = [tuple(size) for size in rng.choice([333, 375, 427, 480, 500, 612, 640], (2000, 2))]
    found = [{sizes[index] for index in canvas.indices} for canvas in groups(sizes)]
    assert len(found) > 2 and sum(map(len, found)) == len(set(sizes))


def test_images_that_cannot_be_read_or_are_too_narrow_go_with_the_smallest():
    found = groups([(480, 640), None, (480, 640), (1, 5000)])
    assert sorted(np.concatenate([canvas.indices for canvas in found])) == [0, 1, 2, 3]
    assert groups([None])[0].size == (32, 32)


def test_there_may_be_no_images():
    assert groups([]) == []
