"""Image, boxes, masks and keypoints move together: as torchvision moves them at the same draws, after their pixels."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from jaxzoo import UsageError
from tests.train.chance import TorchsChance
from train.augment import objects as transforms
from train.data.objects import Objects, Skeleton

FILL = (123, 117, 104)
SIDES = Skeleton(("left", "right"), mirrored=(1, 0))
SIZES = [(97, 61), (40, 80), (64, 64)]  # width and height


def scene(seed, size=(97, 61), count=6):
    """Noise with objects anywhere; every second one is a crowd, and every third keypoint is not annotated."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8))
    corners = np.sort(rng.uniform(0, 1, (count, 2, 2)), 1) * size
    boxes = corners.reshape(count, 4).astype(np.float32)
    masks = rng.integers(0, 2, (count, size[1], size[0]), np.uint8)
    keypoints = np.append(rng.uniform(0, 1, (count, 2, 2)) * size, rng.integers(0, 3, (count, 2, 1)), -1)
    keypoints[keypoints[..., 2] == 0] = 0
    labels, crowd = np.arange(1, count + 1), np.arange(count) % 2 == 1
    return image, Objects.of(boxes, labels, crowd=crowd, masks=masks, keypoints=keypoints.astype(np.float32))


def without_crowds(item):
    return item[0], dataclasses.replace(item[1], crowd=np.zeros(len(item[1]), bool))


def torchs(image, objects):
    size = image.size[::-1]
    return {
        "image": image,
        "boxes": tv_tensors.BoundingBoxes(torch.from_numpy(objects.boxes), format="XYXY", canvas_size=size),
        "labels": torch.from_numpy(objects.labels),
        "masks": tv_tensors.Mask(torch.from_numpy(objects.masks)),
        "keypoints": tv_tensors.KeyPoints(torch.from_numpy(objects.keypoints[..., :2]), canvas_size=size),
    }


def assert_same(ours, theirs):
    """To the bit; keypoints where they are annotated."""
    image, objects = ours
    np.testing.assert_array_equal(np.asarray(image), np.asarray(theirs["image"]))
    for name in ("boxes", "labels", "masks"):
        np.testing.assert_array_equal(getattr(objects, name), theirs[name].numpy(), err_msg=name)
    seen = objects.keypoints[..., 2] > 0
    np.testing.assert_array_equal(objects.keypoints[seen][:, :2], theirs["keypoints"].numpy()[seen])


# Equal to torchvision's


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda *a: transforms.scale_jitter(*a, side=70), v2.ScaleJitter((70, 70))),
        (lambda *a: transforms.random_shortest_side(*a, (20, 50, 90), 120), v2.RandomShortestSize([20, 50, 90], 120)),
        (lambda *a: transforms.random_resize(*a, 10, 90), v2.RandomResize(10, 90)),
        (
            lambda *a: transforms.zoom_out(*a, fill=FILL),
            v2.RandomZoomOut(fill={Image.Image: FILL, tv_tensors.Mask: 0, "others": 0}),
        ),
    ],
    ids=["scale_jitter", "random_shortest_side", "random_resize", "zoom_out"],
)
def test_a_transform_that_draws_what_torch_draws_does_what_torchvision_does(ours, theirs, size):
    for seed in range(25):
        item = scene(seed, size)
        found = ours(*item, TorchsChance(seed))
        torch.manual_seed(seed)
        assert_same(found, theirs(torchs(*item)))


@pytest.mark.parametrize("size", SIZES)
def test_iou_crop_that_draws_what_torch_draws_does_what_torchvision_does(size):
    theirs = v2.Compose([v2.RandomIoUCrop(), v2.SanitizeBoundingBoxes()])
    counts = set()
    for seed in range(150):
        item = without_crowds(scene(seed, size))
        image, objects = transforms.iou_crop(*item, TorchsChance(seed))
        torch.manual_seed(seed)
        expected = theirs(torchs(*item))
        # torchvision leaves keypoints of objects that vanish; here they go with them.
        rows = torch.from_numpy(np.isin(item[1].labels, expected["labels"].numpy()))
        expected["keypoints"] = expected["keypoints"][rows]
        assert_same((image, objects.some(transforms.valid(objects.boxes))), expected)
        counts.add(len(objects))
    assert len(counts) > 4


def test_photometric_distortion_that_draws_what_torch_draws_does_what_torchvision_does():
    theirs = v2.RandomPhotometricDistort()
    for seed in range(200):
        image = scene(seed)[0]
        ours = transforms.photometric_distortion(image, TorchsChance(seed))
        torch.manual_seed(seed)
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs(image)))


@pytest.mark.parametrize("size", SIZES)
def test_flipping_equals_torchvisions(size):
    item = scene(0, size)
    image, objects = transforms.mirrored(*item, SIDES)
    theirs = v2.functional.horizontal_flip
    expected = {name: theirs(value) for name, value in torchs(*item).items() if name not in ("labels", "keypoints")}
    np.testing.assert_array_equal(np.asarray(image), np.asarray(expected["image"]))
    np.testing.assert_array_equal(objects.boxes, expected["boxes"].numpy())
    np.testing.assert_array_equal(objects.masks, expected["masks"].numpy())
    # Keypoints as in references/detection: width - x, like boxes, and those not annotated stay at (0, 0, 0).
    before = item[1].keypoints[:, ::-1]
    moved = np.stack([size[0] - before[..., 0], before[..., 1], before[..., 2]], -1)
    np.testing.assert_array_equal(objects.keypoints, np.where(before[..., 2:] > 0, moved, 0))


@pytest.mark.parametrize("side", [30, 64, 70, 120])
@pytest.mark.parametrize("size", SIZES)
def test_a_fixed_size_crop_is_torchvisions_crop_and_padding(size, side):
    for seed in range(20):
        item = scene(seed, size)
        image, objects = transforms.fixed_size_crop(*item, TorchsChance(seed), side=side, fill=FILL)
        torch.manual_seed(seed)
        width, height = size
        place = torch.rand(1) if width > side or height > side else 0
        top, left = int(max(height - side, 0) * place), int(max(width - side, 0) * place)
        expected = torchs(*item)
        for name, value in expected.items():
            if name == "labels":
                continue
            value = v2.functional.crop(value, top, left, min(height, side), min(width, side))
            fill = FILL if name == "image" else 0
            expected[name] = v2.functional.pad(value, [0, 0, max(side - width, 0), max(side - height, 0)], fill=fill)
        boxes = expected["boxes"].numpy()
        rows = torch.from_numpy((boxes[:, :2] < boxes[:, 2:]).all(1))
        for name in ("boxes", "labels", "masks", "keypoints"):
            expected[name] = expected[name][rows]
        assert_same((image, objects), expected)
        assert image.size == (side, side)


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("none", []),
        ("hflip", [v2.RandomHorizontalFlip()]),
        ("multiscale", [v2.RandomShortestSize([*range(480, 801, 32)], 1333), v2.RandomHorizontalFlip()]),
        ("ssdlite", [v2.RandomIoUCrop(), v2.RandomHorizontalFlip()]),
        (
            "ssd",
            [
                v2.RandomPhotometricDistort(),
                v2.RandomZoomOut(fill={Image.Image: FILL, tv_tensors.Mask: 0, "others": 0}),
                v2.RandomIoUCrop(),
                v2.RandomHorizontalFlip(),
            ],
        ),
    ],
)
def test_a_preset_that_draws_what_torch_draws_does_what_torchvisions_reference_does(name, steps):
    theirs = v2.Compose([*steps, v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes()])
    for seed in range(12 if name == "multiscale" else 80):
        image, objects = without_crowds(scene(seed, SIZES[seed % 3]))
        expected = torchs(image, objects)
        ours = transforms.preset(name)(image, objects, TorchsChance(seed), None, FILL)
        torch.manual_seed(seed)
        del expected["keypoints"]  # see above
        expected = theirs(expected)
        np.testing.assert_array_equal(np.asarray(ours[0]), np.asarray(expected["image"]))
        for part in ("boxes", "labels", "masks"):
            np.testing.assert_array_equal(getattr(ours[1], part), expected[part].numpy(), err_msg=part)


def test_an_unknown_preset_is_refused_with_the_ones_there_are():
    with pytest.raises(UsageError, match="'mosaic'; it is one of none, hflip, lsj, multiscale, ssd, ssdlite"):
        transforms.preset("mosaic")


# Objects follow their pixels


def colored(seed, size):
    """Up to three boxes that do not overlap, in red, green and blue on black, and as masks; their keypoints are the
    middle of the left edge and that of the right one."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    boxes, labels = [], []
    for band in range(3):
        low = [size[0] * band // 3, 0]
        room = np.array([size[0] // 3, size[1]])
        corners = np.sort(rng.integers(0, room + 1, (2, 2)), 0) + low
        if (corners[1] - corners[0] >= 4).all():
            (x1, y1), (x2, y2) = corners
            pixels[y1:y2, x1:x2, band] = 255
            boxes.append([x1, y1, x2, y2])
            labels.append(band + 1)
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    masks = np.stack([pixels[..., label - 1] > 0 for label in labels] or [pixels[..., 0] > 0])[: len(labels)]
    middle = boxes[:, 1::2].mean(1)
    ends = [np.stack([boxes[:, x], middle, np.full(len(boxes), 2)], -1) for x in (0, 2)]
    keypoints = np.stack(ends, 1).astype(np.float32)
    return Image.fromarray(pixels), Objects.of(boxes, labels, masks=masks.astype(np.uint8), keypoints=keypoints)


def around(inside):
    """The box around where an array is True, None where it is nowhere."""
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] if len(rows) else None


@pytest.mark.parametrize("name", transforms.PRESETS)
def test_objects_follow_their_pixels(name, monkeypatch):
    monkeypatch.setattr(transforms, "photometric_distortion", lambda image, rng: image)
    monkeypatch.setattr(transforms.scale_jitter, "__defaults__", (130, transforms.LSJ_SCALES))
    monkeypatch.setattr(transforms.fixed_size_crop, "__defaults__", (130, (0, 0, 0)))
    monkeypatch.setattr(transforms.random_shortest_side, "__defaults__", ((50, 90, 130), 200))
    off = 1 if name in ("lsj", "multiscale") else 0  # pixels, where images are resized
    kept = vanished = hidden = 0
    for seed in range(150):
        size = SIZES[seed % 3]
        before = colored(seed, size)
        image, objects = transforms.preset(name)(*before, np.random.default_rng(seed), SIDES, (0, 0, 0))
        pixels = np.asarray(image) > 127
        for box, label, mask, keypoints in zip(
            objects.boxes, objects.labels, objects.masks, objects.keypoints, strict=True
        ):
            kept += 1
            seen = around(pixels[..., label - 1])
            if seen is None:  # resized to less than a pixel or so
                assert off and (box[2:] - box[:2]).min() < 2
                continue
            np.testing.assert_allclose(box, seen, rtol=0, atol=off)
            np.testing.assert_allclose(around(mask), seen, rtol=0, atol=off)
            if not off:
                np.testing.assert_array_equal(mask, pixels[..., label - 1])
            for x, keypoint in zip(box[::2], keypoints, strict=True):
                if keypoint[2]:
                    assert keypoint[2] == 2
                    assert keypoint[0] == x
                    assert box[1] <= keypoint[1] <= box[3]
                else:
                    hidden += 1
                    assert not keypoint.any() and (box[:2] == 0).any() | (box[2:] == image.size).any()
        for label in set(before[1].labels) - set(objects.labels):
            vanished += 1
            seen = around(pixels[..., label - 1])
            if off and seen:
                assert seen[2] - seen[0] <= 2 or seen[3] - seen[1] <= 2
    assert kept > 100
    assert (vanished > 0) == (name in ("lsj", "ssd", "ssdlite")) and (hidden > 0) == (name in ("lsj", "ssd", "ssdlite"))


def test_flipping_twice_changes_nothing():
    item = scene(3)
    image, objects = transforms.mirrored(*transforms.mirrored(*item, SIDES), SIDES)
    np.testing.assert_array_equal(np.asarray(image), np.asarray(item[0]))
    for field in dataclasses.fields(objects):
        np.testing.assert_allclose(getattr(objects, field.name), getattr(item[1], field.name), rtol=0, atol=1e-5)


def test_areas_shrink_with_their_objects():
    image, objects = Image.new("RGB", (40, 20)), Objects.of([[10, 0, 30, 20]], [1], area=[300.0])
    assert transforms.resized(image, objects, (40, 120))[1].area == [1800]
    assert transforms.window(image, objects, (0, 0), (20, 20))[1].area == [150]
    assert transforms.window(image, objects, (-5, -5), (50, 50))[1].area == [300]


# What holds for all of them


@pytest.mark.parametrize("name", transforms.PRESETS)
@pytest.mark.parametrize("size", [(97, 61), (1, 1), (3, 2), (1, 300), (400, 2)])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_what_comes_out_is_whole(name, size, count):
    for seed in range(4):
        for parts in ({}, {"masks": None}, {"keypoints": None}, {"masks": None, "keypoints": None}):
            image, objects = scene(seed, size, count)
            image, found = transforms.preset(name)(
                image, dataclasses.replace(objects, **parts), np.random.default_rng(seed), SIDES, FILL
            )
            assert image.mode == "RGB" and min(image.size) > 0
            assert all(len(getattr(found, field)) == len(found) for field in ("labels", "crowd", "area"))
            assert (found.boxes.dtype, found.labels.dtype, found.crowd.dtype, found.area.dtype) == (
                *(np.float32, np.int32, bool, np.float32),
            )
            assert np.isfinite(found.boxes).all() and np.isfinite(found.area).all()
            assert (found.boxes >= 0).all() and (found.boxes[:, 2:] <= image.size).all()
            assert (found.boxes[:, 2:] - found.boxes[:, :2] >= 1).all()
            if "masks" not in parts:
                assert found.masks.shape == (len(found), image.height, image.width) and found.masks.dtype == np.uint8
            if "keypoints" not in parts:
                assert found.keypoints.shape == (len(found), 2, 3) and found.keypoints.dtype == np.float32
                assert np.isfinite(found.keypoints).all()
            assert (found.masks is None, found.keypoints is None) == ("masks" in parts, "keypoints" in parts)
            np.testing.assert_array_equal(found.crowd, objects.crowd[np.isin(objects.labels, found.labels)])


@pytest.mark.parametrize("name", transforms.PRESETS)
def test_the_result_depends_on_the_generator_alone(name):
    item, untouched = scene(7), scene(7)
    one, other, another = (
        transforms.preset(name)(*item, np.random.default_rng(seed), SIDES, FILL) for seed in (1, 1, 2)
    )
    assert _same(one, other) and _same(item, untouched)
    assert _same(one, another) == (name == "none")


def _same(one, other):
    arrays = [
        [np.asarray(image), *(getattr(objects, f.name) for f in dataclasses.fields(objects))]
        for image, objects in (one, other)
    ]
    return all(np.array_equal(a, b) for a, b in zip(*arrays, strict=True))


def test_half_of_the_images_are_flipped():
    image, objects = Image.new("RGB", (4, 4)), Objects.of([[0, 0, 1, 4]], [1])
    rng = np.random.default_rng(0)
    flipped = [transforms.preset("hflip")(image, objects, rng, None, FILL)[1].boxes[0, 0] == 3 for _ in range(1000)]
    assert 0.45 < np.mean(flipped) < 0.55


def test_a_crowd_is_no_reason_for_a_crop():
    image, objects = scene(0)
    crowds = dataclasses.replace(objects, crowd=np.ones(len(objects), bool))
    for seed in range(20):
        assert transforms.iou_crop(image, crowds, np.random.default_rng(seed)) == (image, crowds)


def test_boxes_below_a_pixel_are_left_out():
    objects = Objects.of([[0, 0, 5, 0.5], [1, 1, 2, 2], [3, 3, np.nan, 5]], [1, 2, 3])
    found = transforms.preset("none")(Image.new("RGB", (9, 9)), objects, np.random.default_rng(0), None, FILL)[1]
    assert found.labels.tolist() == [2]
