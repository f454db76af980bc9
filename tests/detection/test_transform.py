"""Images are prepared as torchvision's detectors prepare them, and what is found in them is put back alike."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms.functional import to_tensor

from jaxzoo import UsageError
from jaxzoo.detection import transform
from jaxzoo.detection.transform import DetectionTransform, batched
from jaxzoo.preprocess import from_dict, to_dict

SIZES = [(97, 61), (61, 97), (33, 250), (48, 64), (300, 301), (7, 5), (1, 2)]  # height, width
TRANSFORMS = [
    DetectionTransform((80,), 133),
    DetectionTransform((64, 96), 1000, (0.48, 0.45, 0.4), (1 / 255,) * 3, size_divisible=16),
    DetectionTransform((60,), 60, size_divisible=1, fixed_size=(75, 60)),
]


@pytest.fixture(autouse=True)
def two_threads():
    """With a single one, torch has another kernel, whose weights differ by 1e-5 from those it has with several."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng([height, width]).integers(0, 256, (height, width, 3), np.uint8)


def twin(ours: DetectionTransform) -> GeneralizedRCNNTransform:
    values = dataclasses.asdict(ours)
    return GeneralizedRCNNTransform(values.pop("min_size"), values.pop("max_size"), **values).eval()


@pytest.mark.parametrize("ours", TRANSFORMS)
@pytest.mark.parametrize("size", SIZES)
def test_images_are_torchvisions(ours, size):
    image = noise(*size)
    theirs, _ = twin(ours)([to_tensor(image)])
    found = ours(image)
    canvas, sizes = batched([found], ours.canvas([found.shape[:2]]))
    assert canvas.dtype == np.float32 and sizes.dtype == np.int32
    assert [tuple(size) for size in sizes] == theirs.image_sizes
    # Weights are equal to the bit; torch multiplies and adds in one step, which rounds once less.
    expected = theirs.tensors.permute(0, 2, 3, 1).numpy()
    assert canvas.shape == expected.shape
    assert np.abs(canvas - expected).max() <= 4e-7 * np.abs(expected).max()
    np.testing.assert_array_equal(ours(image / np.float32(255)), found)
    np.testing.assert_array_equal(ours(Image.fromarray(image)), found)


def test_an_image_of_its_own_size_is_torchvisions_bit_for_bit():
    ours, image = DetectionTransform((64,), 96), noise(64, 90)
    theirs, _ = twin(ours)([to_tensor(image)])
    np.testing.assert_array_equal(ours(image), theirs.tensors[0, :, :, :90].permute(1, 2, 0).numpy())


def test_images_of_a_batch_share_torchvisions_canvas():
    ours, images = TRANSFORMS[0], [noise(*size) for size in SIZES]
    theirs, _ = twin(ours)([to_tensor(image) for image in images])
    found = [ours(image) for image in images]
    canvas, sizes = batched(found, ours.canvas([image.shape[:2] for image in found]))
    assert [tuple(size) for size in sizes] == theirs.image_sizes
    np.testing.assert_allclose(canvas, theirs.tensors.permute(0, 2, 3, 1).numpy(), rtol=0, atol=1e-6)
    assert (canvas[theirs.tensors.permute(0, 2, 3, 1).numpy() == 0] == 0).all()


@pytest.mark.parametrize("min_size", [320, 640, 672, 800])
def test_sizes_are_torchvisions(min_size):
    """Down to the last pixel: a product that is a whole number but for rounding becomes the one below it."""
    ours = DetectionTransform((min_size,), 1333)
    for height, width in [*np.random.default_rng(0).integers(1, 3000, (300, 2)).tolist(), (480, 640), (427, 640)]:
        if max(height, width) > 300 * min(height, width):
            continue
        scale = min(min_size / min(height, width), 1333 / max(height, width))
        image = torch.zeros(1, 1, height, width, dtype=torch.uint8).float().expand(1, 1, height, width)
        theirs = torch.nn.functional.interpolate(image, scale_factor=scale, recompute_scale_factor=True)
        assert ours.size(height, width) == tuple(theirs.shape[2:])


def test_a_strip_too_narrow_is_refused():
    with pytest.raises(UsageError, match="2000 × 1 pixels is too narrow"):
        DetectionTransform()(np.zeros((1, 2000, 3), np.uint8))


@pytest.mark.parametrize("own", [(97, 61), (400, 600)])
def test_findings_go_back_as_torchvisions(own):
    ours, rng = DetectionTransform((80,), 133), np.random.default_rng(0)
    size = ours.size(*own)
    corners = rng.uniform(-5, 70, (6, 2, 2)).astype(np.float32)
    found = {
        "boxes": np.concatenate([corners.min(1), corners.max(1)], 1),
        "masks": rng.uniform(size=(6, 28, 28)),
        "keypoints": rng.uniform(0, 70, (6, 17, 3)).astype(np.float32),
        "scores": rng.uniform(size=6).astype(np.float32),
    }
    given = {name: torch.from_numpy(value) for name, value in found.items()} | {
        "masks": torch.from_numpy(found["masks"])[:, None]
    }
    (theirs,) = twin(ours).postprocess([given], [size], [own])
    back = ours.postprocess(found, size, own)
    assert back.keys() == theirs.keys()
    for name in ("boxes", "keypoints", "scores"):
        assert back[name].dtype == np.float32
        np.testing.assert_array_equal(back[name], theirs[name].numpy())
    assert back["masks"].shape == (6, 1, *own)
    np.testing.assert_allclose(back["masks"], theirs["masks"].numpy(), rtol=0, atol=2e-14)


@pytest.mark.parametrize("ours", TRANSFORMS)
@pytest.mark.parametrize("own", SIZES)
def test_targets_are_resized_as_torchvisions(ours, own):
    rng = np.random.default_rng(0)
    boxes = np.sort(rng.uniform(0, 60, (4, 2, 2)), 1).reshape(4, 4).astype(np.float32)
    masks = rng.integers(0, 2, (4, *own), np.uint8)
    keypoints = rng.uniform(0, 60, (4, 17, 3)).astype(np.float32)
    target = {"boxes": boxes, "masks": masks, "keypoints": keypoints}
    given = {name: torch.from_numpy(value) for name, value in target.items()}
    _, (theirs,) = twin(ours)([to_tensor(noise(*own))], [given])
    new = ours.size(*own)
    np.testing.assert_array_equal(transform.resize_boxes(boxes, own, new), theirs["boxes"].numpy())
    np.testing.assert_array_equal(transform.resize_keypoints(keypoints, own, new), theirs["keypoints"].numpy())
    np.testing.assert_array_equal(transform.resize_masks(masks, new), theirs["masks"].numpy())


def test_buckets_are_few_and_exact_for_usual_photographs():
    ours, found = DetectionTransform(), set()
    for height, width in np.random.default_rng(0).integers(50, 4000, (2000, 2)).tolist():
        size = ours.size(height, width)
        exact, bucket = ours.canvas([size]), ours.canvas([size], buckets=True)
        assert bucket[0] >= exact[0] and bucket[1] >= exact[1]
        found.add(bucket)
    assert len(found) <= 13
    for height, width in [(480, 640), (640, 480), (427, 640), (400, 600), (512, 512), (1080, 1920), (3000, 4000)]:
        size = ours.size(height, width)
        assert ours.canvas([size]) == ours.canvas([size], buckets=True)


def test_the_transform_survives_a_manifest():
    for ours in TRANSFORMS:
        assert from_dict(json.loads(json.dumps(to_dict(ours)))) == ours


def test_another_size_keeps_the_proportion():
    assert DetectionTransform().at(400) == DetectionTransform((400,), 666)
    assert TRANSFORMS[2].at(300).size(10, 20) == (300, 300)
