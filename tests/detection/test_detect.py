"""`jaxzoo.detect` finds what torchvision's whole detectors find, their own resizing and padding included."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
import pytest
import skimage.data
import torch
import torchvision
from flax import nnx
from PIL import Image

import convert
import jaxzoo
from convert.twins.detection import on_canvas
from jaxzoo import UsageError
from jaxzoo.detection import detect as module
from jaxzoo.detection.transform import DetectionTransform, batched
from tests.compare import cast
from tests.detection import test_ssd
from tests.jaxzoo.test_commands import run

PHOTOS = {name: getattr(skimage.data, name)() for name in ("astronaut", "coffee")}  # 512 × 512 and 400 × 600
SMALL = {"min_size": 160, "max_size": 250}


def confident(twin: torch.nn.Module) -> torch.nn.Module:
    """With scores far apart, hundreds of which are above the threshold."""
    with torch.no_grad():
        for name, value in twin.named_parameters():
            if name.endswith(("cls_logits.weight", "bbox_reg.weight")):
                value.mul_(5)
            if name.endswith("classification_head.cls_logits.bias"):
                value.copy_(torch.linspace(-6, -1, value.numel()))
            if name.endswith(("mask_fcn_logits.weight", "kps_score_lowres.weight")):
                value.mul_(3)
    return twin.eval()


@pytest.fixture(scope="module")
def twin() -> torch.nn.Module:
    torch.manual_seed(0)
    return confident(torchvision.models.get_model("retinanet_resnet50_fpn", weights_backbone=None, **SMALL))


@pytest.fixture(scope="module")
def model(twin, tmp_path_factory) -> nnx.Module:
    """Saved by torch and converted by command line."""
    folder = tmp_path_factory.mktemp("weights")
    torch.save(twin.state_dict(), folder / "a.pth")
    options = ("--model", "retinanet_resnet50_fpn", "--weights", folder / "a.pth", "--out", folder / "flax")
    assert run("convert", "to-flax", *options) == 0
    return convert.load("retinanet_resnet50_fpn", folder / "flax", **SMALL)


def theirs(twin: torch.nn.Module, images: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)  # a single one resizes with weights that differ by 1e-5; see test_transform
    with torch.no_grad():
        found = twin([torch.tensor(image.transpose(2, 0, 1)).float() / 255 for image in images])
    torch.set_num_threads(before)
    return [{name: value.numpy() for name, value in one.items()} for one in found]


# Measured in float32: 6e-4 of the probabilities, 4e-3 pixels, 2e-3 of heatmaps as high as 70.
FLOAT32 = {"boxes": 0.01, "masks": 1.5e-3, "keypoints": 0.01, "keypoints_scores": 5e-3}
FLOAT64 = {"boxes": 1e-8, "masks": 1e-8, "keypoints": 1e-8, "keypoints_scores": 1e-8}


def same(
    ours: list[dict],
    theirs: list[dict],
    least: int = 100,
    bound: float = 1e-5,
    bounds: Mapping[str, float] = FLOAT32,
) -> None:
    """Equal detections, up to rounding, and in the same order but where scores are equal up to it.

    Args:
      bound: of scores.
      bounds: of the others, in pixels those of boxes and keypoints.
    """
    assert len(ours) == len(theirs)
    for our, their in zip(ours, theirs, strict=True):
        assert {name: (x.shape, x.dtype) for name, x in our.items()} == {
            name: (x.shape, x.dtype) for name, x in their.items()
        }
        assert len(our["scores"]) >= least
        np.testing.assert_allclose(our["scores"], their["scores"], rtol=0, atol=bound)
        near = np.abs(our["boxes"][:, None] - their["boxes"]).max(-1) < bounds["boxes"]
        near &= our["labels"][:, None] == their["labels"]
        near &= np.abs(our["scores"][:, None] - their["scores"]) < bound
        assert (near.sum(0) == 1).all() and (near.sum(1) == 1).all()
        rows = near.argmax(1)
        for name in our.keys() & {"masks", "keypoints", "keypoints_scores"}:
            np.testing.assert_allclose(our[name], their[name][rows], rtol=0, atol=bounds[name])


def test_photographs_one_by_one(model, twin):
    images = list(PHOTOS.values())
    expected = [one for image in images for one in theirs(twin, [image])]
    same([one for image in images for one in jaxzoo.detect(model, [image])], expected)
    same(jaxzoo.detect(model, images, batch_size=1), expected)


def test_photographs_as_a_batch(model, twin):
    images = list(PHOTOS.values())
    expected = theirs(twin, images)
    alone = theirs(twin, images[:1])[0]["scores"]
    assert np.abs(expected[0]["scores"][:50] - alone[:50]).max() > 1e-3  # the canvas counts
    same(jaxzoo.detect(model, images), expected)
    same(jaxzoo.detect(model, [image / np.float32(255) for image in images]), expected)
    same(jaxzoo.detect(model, map(Image.fromarray, images)), expected)


@pytest.mark.full("maskrcnn_resnet50_fpn")
@pytest.mark.parametrize("name", ["maskrcnn_resnet50_fpn", "keypointrcnn_resnet50_fpn"])
def test_masks_and_keypoints_of_photographs(name, tmp_path):
    proposals = {"rpn_pre_nms_top_n_test": 60, "rpn_post_nms_top_n_test": 30, "box_detections_per_img": 8}
    options = {"min_size": 96, "max_size": 150, "box_score_thresh": 0.0, **proposals}
    torch.manual_seed(0)
    twin = confident(torchvision.models.get_model(name, weights_backbone=None, **options))
    torch.save(twin.state_dict(), tmp_path / "a.pth")
    images = list(PHOTOS.values())
    model = convert.load(name, tmp_path / "a.pth", **options)
    found = jaxzoo.detect(model, images)
    same(found, theirs(twin, images), least=8, bound=3e-5)
    assert found[0].keys() & {"masks", "keypoints"}
    exact = on_the_same_pixels(twin, model.transform, images)
    same(jaxzoo.detect(cast(model, jax.numpy.float64), images), exact, least=8, bound=1e-9, bounds=FLOAT64)


def on_the_same_pixels(
    twin: torch.nn.Module, transform: DetectionTransform, images: list[np.ndarray]
) -> list[dict[str, np.ndarray]]:
    """torchvision's detections in float64, and its way back to the images, on the pixels that our transform gives."""
    back = twin.transform
    ready = [transform(image) for image in images]
    canvas, sizes = batched(ready, transform.canvas([image.shape[:2] for image in ready]))
    with torch.no_grad():
        found = on_canvas(twin.double())(torch.tensor(canvas).movedim(-1, 1).double(), torch.tensor(sizes))
    valid = found.pop("valid")
    each = [{name: rows[i][valid[i]] for name, rows in found.items()} for i in range(len(images))]
    for one in each:
        one |= {"masks": one["masks"][:, None]} if "masks" in one else {}
    each = back.postprocess(each, sizes.tolist(), [image.shape[:2] for image in images])
    return [{name: value.numpy() for name, value in one.items()} for one in each]


def test_the_last_batch_is_filled_up(model):
    images = [PHOTOS["astronaut"], PHOTOS["coffee"], PHOTOS["coffee"]]
    found = jaxzoo.detect(model, images, batch_size=2)
    same(found[:2], jaxzoo.detect(model, images[:2]))
    same(found[2:], jaxzoo.detect(model, images[2:]))


def test_programs_are_kept_and_shared(model):
    jaxzoo.detect(model, [PHOTOS["coffee"]])
    count = module._run._cache_size()
    other = jax.tree.map(lambda x: x, model)
    for image in (PHOTOS["coffee"], np.zeros((40, 60, 3), np.uint8)):
        jaxzoo.detect(other, [image])
    assert module._run._cache_size() == count


def test_the_mode_of_the_model_does_not_count_and_stays(model):
    expected = jaxzoo.detect(model, [PHOTOS["coffee"]])
    state = jax.tree.map(np.asarray, nnx.state(model))
    model.train()
    try:
        same(jaxzoo.detect(model, [PHOTOS["coffee"]]), expected)
        assert not model.backbone.body.bn1.use_running_average
    finally:
        model.eval()
    jax.tree.map(np.testing.assert_array_equal, state, jax.tree.map(np.asarray, nnx.state(model)))


def test_buckets_are_exact_where_the_canvas_is_the_same(model):
    """A photograph of 3 : 2 has its own; one of 5 : 4 gets that of 4 : 3."""
    coffee = [PHOTOS["coffee"]]
    same(jaxzoo.detect(model, coffee, canvas="buckets"), jaxzoo.detect(model, coffee))
    other = [PHOTOS["astronaut"][:400]]
    exact, bucket = (jaxzoo.detect(model, other, canvas=canvas)[0]["scores"][:5] for canvas in ((160, 224), "buckets"))
    np.testing.assert_allclose(exact, bucket, atol=1e-6)


def test_half_precision(model):
    half = jax.tree.map(lambda x: x.astype(jax.numpy.bfloat16), model)
    (found,), (whole,) = (jaxzoo.detect(m, [PHOTOS["coffee"]]) for m in (half, model))
    assert found["boxes"].dtype == found["scores"].dtype == np.float32
    assert np.abs(found["scores"][:10] - whole["scores"][:10]).max() < 0.05


def test_results_are_limited(model):
    (whole,), (some,) = (
        jaxzoo.detect(model, [PHOTOS["coffee"]], **limits) for limits in ({}, {"min_score": 0.5, "max_detections": 7})
    )
    assert (whole["scores"][:7] > 0.5).all()
    for name, values in some.items():
        np.testing.assert_array_equal(values, whole[name][:7])
    (none,) = jaxzoo.detect(model, [PHOTOS["coffee"]], min_score=1.1)
    assert none["boxes"].shape == (0, 4) and none["labels"].shape == (0,) and none["labels"].dtype == np.int64


class OfEverything(nnx.Module):
    """A stand-in that finds one object, with a mask and keypoints, in the middle of every image."""

    def __init__(self):
        self.transform = DetectionTransform((64,), 128)
        self.share = nnx.Param(jax.numpy.float32(0.25))

    def __call__(self, images, sizes):
        height, width = sizes[:, 0, None], sizes[:, 1, None]
        share = self.share.get_value()
        boxes = jax.numpy.stack([width * share, height * share, width * (1 - share), height * (1 - share)], -1)
        middle = jax.numpy.stack([width / 2, height / 2, jax.numpy.ones_like(width)], -1)[:, :, None]
        one = jax.numpy.ones((len(images), 1))
        return {
            "boxes": boxes,
            "labels": one.astype(int),
            "scores": one,
            "valid": one > 0,
            "masks": jax.numpy.ones((len(images), 1, 28, 28)),
            "keypoints": middle,
            "keypoints_scores": one[:, :, None],
        }


def test_masks_and_keypoints_are_in_pixels_of_the_image():
    sizes = [(100, 200), (37, 53), (1, 1), (300, 200)]
    found = jaxzoo.detect(OfEverything(), [np.zeros((*size, 3), np.uint8) for size in sizes])
    for (height, width), one in zip(sizes, found, strict=True):
        np.testing.assert_allclose(one["boxes"][0], np.array([width, height, 3 * width, 3 * height]) / 4, rtol=1e-6)
        np.testing.assert_allclose(one["keypoints"][0, 0], [width / 2, height / 2, 1], rtol=1e-6)
        assert one["masks"].shape == (1, 1, height, width) and one["keypoints_scores"].shape == (1, 1)
        rows, columns = np.nonzero(one["masks"][0, 0] > 0.5)
        box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert np.abs(box - one["boxes"][0]).max() <= 2


GRAY, WIDE = np.zeros((8, 8)), np.zeros((8, 8, 3), np.float32)
BAD = {
    r"image 1 has the shape \(8, 8\); it must be \(height, width, 3\)": GRAY,
    r"it must be \(height, width, 3\)": np.zeros((8, 8, 4), np.uint8),
    r"channels come last: image.transpose\(1, 2, 0\)": WIDE.transpose(2, 0, 1),
    "it has no pixels": np.zeros((0, 8, 3), np.uint8),
    "is of int64; it must be of uint8, 0 to 255, or floating, 0 to 1": WIDE.astype(np.int64),
    "is of bool": WIDE.astype(bool),
    "has values from 0 to 255; floating ones must be from 0 to 1": np.linspace(0, 255, 192).reshape(8, 8, 3),
    "has values from -2.1 to 0": WIDE - 2.1 * np.eye(8)[..., None],
    "NaN": WIDE + np.nan,
    "infinite": WIDE + np.inf,
    "3000 × 1 pixels is too narrow": np.zeros((1, 3000, 3), np.uint8),
}


@pytest.mark.parametrize("message", BAD)
def test_what_is_no_image_is_refused(message):
    with pytest.raises(UsageError, match=message):
        jaxzoo.detect(OfEverything(), [np.zeros((8, 8, 3), np.uint8), BAD[message]])


def test_other_bad_input_is_refused():
    model, image = OfEverything(), np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(UsageError, match="Linear is none"):
        jaxzoo.detect(jaxzoo.nn.Linear(2, 2, rngs=nnx.Rngs(0)), [image])
    with pytest.raises(UsageError, match="batch_size is 0"):
        jaxzoo.detect(model, [image], batch_size=0)
    with pytest.raises(UsageError, match='canvas is \'large\'; it must be "exact", "buckets"'):
        jaxzoo.detect(model, [image], canvas="large")
    with pytest.raises(UsageError, match="too small for an image resized to 64 × 64"):
        jaxzoo.detect(model, [image], canvas=(32, 64))


def test_no_images_and_small_ones():
    model = OfEverything()
    assert jaxzoo.detect(model, []) == []
    (found,) = jaxzoo.detect(model, [np.zeros((1, 1, 3), np.uint8)])
    assert found["boxes"].shape == (1, 4)
    model.transform = dataclasses.replace(model.transform, min_size=(1,), max_size=1)  # smaller than a stride
    assert jaxzoo.detect(model, [np.zeros((5, 5, 3))])[0]["boxes"].shape == (1, 4)


def test_the_page_runs(monkeypatch):
    """The examples of docs/detection.md, as users have it, but for the parts on single families, and with a narrow
    network in place of the page's, whose step compiles for a minute."""
    monkeypatch.setattr(jaxzoo, "create_model", lambda name, num_classes: test_ssd.build(num_classes))
    page = (Path(jaxzoo.__file__).parents[1] / "docs" / "detection.md").read_text()
    common, families = page.split("## On the command line")
    assert "\n## " in families
    names = {}
    with jax.enable_x64(False):
        for block in re.findall(r"```python\n(.*?)```", common, re.DOTALL):
            exec(block, names)
    assert all(np.isfinite(value) for value in names["losses"].values())
