"""`python -m jaxzoo predict` for detectors, as people call it."""

import csv
import json

import jax
import numpy as np
import pytest
import skimage.data
import torch
import torchvision
from PIL import Image, ImageColor
from pycocotools import mask as coco_masks
from torchvision.models import detection

from convert import store
from convert.to_flax import to_flax
from jaxzoo.coco import COCO_CATEGORIES, PERSON_KEYPOINTS, SKELETON
from jaxzoo.coco_rle import compressed, run_lengths
from jaxzoo.commands.tasks.detection import class_names, coco_results, example_labels, targets
from jaxzoo.detection.drawing import COLORS, LEFT, drawn
from jaxzoo.voc import VOC_CLASSES
from tests.detection.test_detect import SMALL, confident, theirs
from tests.jaxzoo.test_commands import refused, run

NAME = "retinanet_resnet50_fpn"


@pytest.fixture(scope="module")
def twin() -> torch.nn.Module:
    torch.manual_seed(0)
    return confident(torchvision.models.get_model(NAME, weights_backbone=None, **SMALL))


@pytest.fixture(scope="module")
def weights(twin, tmp_path_factory):
    """A converted directory of a detector for small images."""
    folder = tmp_path_factory.mktemp("weights")
    torch.save(twin.state_dict(), folder / "a.pth")
    to_flax(NAME, str(folder / "a.pth"), folder / "model")
    store.write_manifest(folder / "model", store.read_manifest(folder / "model") | {"arguments": SMALL})
    return folder / "model"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "b").mkdir()
    Image.fromarray(skimage.data.coffee()).save(folder / "000000000139.png")
    Image.fromarray(skimage.data.coffee()).resize((90, 60)).save(folder / "b" / "cup.png")
    return folder


def test_objects_are_torchvisions(capsys, tmp_path, twin, weights, pictures):
    files = ["--out", tmp_path / "out", "--json", tmp_path / "a.json", "--csv", tmp_path / "a.csv"]
    options = ["--score", 0.3, "--max-detections", 40]
    assert run("predict", pictures, "--model", NAME, "--weights", weights, *options, *files) == 0
    out = capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "coco.json").read_text())
    rows = json.loads((tmp_path / "a.json").read_text())["images"]
    with (tmp_path / "a.csv").open() as file:
        first, *lines = csv.reader(file)
    assert first == ["image", "rank", "index", "class", "x", "y", "width", "height", "score"]
    paths = [pictures / "000000000139.png", pictures / "b" / "cup.png"]
    assert [row["image"] for row in rows] == [str(path) for path in paths]
    for path, image_id, row in zip(paths, (139, "cup"), rows, strict=True):
        (expected,) = theirs(twin, [np.asarray(Image.open(path))])
        expected = {name: value[expected["scores"] >= 0.3][:40] for name, value in expected.items()}
        x1, y1, x2, y2 = expected["boxes"].T
        boxes = np.stack([x1, y1, x2 - x1, y2 - y1], 1)
        mine = [result for result in results if result["image_id"] == image_id]
        assert [result["category_id"] for result in mine] == expected["labels"].tolist()
        np.testing.assert_allclose([result["bbox"] for result in mine], boxes, rtol=0, atol=6e-3)  # of two decimals
        np.testing.assert_allclose([result["score"] for result in mine], expected["scores"], atol=1e-5)
        assert [p["name"] for p in row["top"]] == [COCO_CATEGORIES[label] for label in expected["labels"]]
        assert [[p["x"], p["y"], p["width"], p["height"]] for p in row["top"]] == [result["bbox"] for result in mine]
        assert [p["score"] for p in row["top"]] == [result["score"] for result in mine]
        for rank, p in enumerate(row["top"], 1):
            assert f"{100 * p['score']:8.2f} %  {p['name']} ({p['index']}), {p['width']:.0f} × " in out
            assert [str(path), str(rank), *map(str, p.values())] in lines
    assert len(lines) == len(results) == sum(len(row["top"]) for row in rows)
    sizes = {path.name: Image.open(path).size for path in (tmp_path / "out").glob("*.jpg")}
    assert sizes == {"000000000139.jpg": (600, 400), "cup.jpg": (480, 320)}


def test_images_that_cannot_be_read_are_named_and_left_out(capsys, tmp_path, weights, pictures):
    (tmp_path / "a.jpg").write_text("no image")
    Image.new("RGB", (1000, 1)).save(tmp_path / "narrow.png")  # nothing of it is left on a canvas
    place = pictures / "b" / "cup.png"
    assert run("predict", tmp_path, place, "--model", NAME, "--weights", weights, "--score", 1) == 1
    said = capsys.readouterr()
    assert str(tmp_path / "a.jpg") in said.err
    assert f"error: {tmp_path / 'narrow.png'}: an image of 1000 × 1 pixels is too narrow" in said.err
    assert said.out.splitlines() == [str(place), "   no object of 100 % or more"]


def test_other_options_are_refused(capsys, tmp_path, pictures):
    command = ["predict", pictures, "--model", NAME, "--weights", "a.pth"]
    others = refused(capsys, *command, "--crf", "--annotate", tmp_path / "a")
    assert f"--annotate and --crf are options of other tasks, and {NAME} is for detection" in others
    few = refused(capsys, *command, "--top", 3, "--temperature", 2)
    assert f"--top and --temperature are options of other tasks, and {NAME} is for detection" in few
    assert "--score must be a number from 0 to 1" in refused(capsys, *command, "--score", 50)
    assert "--max-detections must be at least 1" in refused(capsys, *command, "--max-detections", 0)
    command[3] = "resnet18"
    assert "--score is an option of other tasks" in refused(capsys, *command, "--score", 0.5)
    assert "--canvas is an option of other tasks" in refused(capsys, *command, "--canvas", "exact")


def test_names_are_those_of_the_weights_or_of_the_data_set():
    assert class_names(["cat", "dog"], 3) == ["background", "cat", "dog"]
    assert class_names(["nothing", "cat", "dog"], 3) == ["nothing", "cat", "dog"]
    assert class_names(None, 91) == class_names(["cat"], 91) == COCO_CATEGORIES
    assert class_names(None, 21) == VOC_CLASSES and class_names(None, 2) == ("background", "person")
    assert class_names(None, 3) == ["class 0", "class 1", "class 2"]


def test_names_and_keypoints_are_torchvisions():
    published = detection.KeypointRCNN_ResNet50_FPN_Weights.DEFAULT.meta
    assert list(PERSON_KEYPOINTS) == published["keypoint_names"]
    categories = detection.FasterRCNN_ResNet50_FPN_Weights.DEFAULT.meta["categories"]
    assert list(COCO_CATEGORIES[1:]) == categories[1:]
    assert len({frozenset(limb) for limb in SKELETON}) == 19 and {i for limb in SKELETON for i in limb} == {*range(17)}


def test_masks_and_keypoints_are_written_as_coco_has_them(tmp_path):
    rng = np.random.default_rng(0)
    found = {
        "boxes": np.array([[1.0, 2, 11, 22], [0, 0, 5.5, 6.25]], np.float32),
        "labels": np.array([1, 18]),
        "scores": np.array([0.75, 0.5], np.float32),
        "masks": rng.uniform(size=(2, 1, 30, 40)).astype(np.float32),
        "keypoints": np.tile(np.float32([[3.5, 4.25, 1]]), (2, 17, 1)),
        "keypoints_scores": rng.uniform(size=(2, 17)),
    }
    results = json.loads(json.dumps(coco_results(tmp_path / "a.png", found)))
    assert [r["bbox"] for r in results] == [[1, 2, 10, 20], [0, 0, 5.5, 6.25]]
    assert [(r["image_id"], r["category_id"], r["score"]) for r in results] == [("a", 1, 0.75), ("a", 18, 0.5)]
    for result, mask in zip(results, found["masks"], strict=True):
        np.testing.assert_array_equal(coco_masks.decode(result["segmentation"]), mask[0] > 0.5)
        assert result["keypoints"] == [3.5, 4.25, 1] * 17


def test_run_lengths_are_pycocotools():
    rng = np.random.default_rng(0)
    for density in (0, 0.01, 0.5, 0.99, 1) * 20:
        mask = np.kron(rng.random(rng.integers(1, 20, 2)) < density, np.ones(rng.integers(1, 30, 2))) > 0
        text = compressed(mask)
        assert text == coco_masks.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
        np.testing.assert_array_equal(run_lengths(text, mask.shape), mask)


def test_the_bench_has_targets_that_all_detectors_take():
    shape = jax.ShapeDtypeStruct((2, 60, 90, 3), np.float32)
    targets = example_labels(shape, 10, np.random.default_rng(0))
    boxes, keypoints = targets["boxes"], targets["keypoints"]
    assert (boxes[..., 2:] >= boxes[..., :2] + 1).all() and (boxes >= 0).all() and (boxes <= [91, 61, 91, 61]).all()
    assert (keypoints[..., :2] >= boxes[:, :, None, :2]).all() and (keypoints[..., :2] <= boxes[:, :, None, 2:]).all()
    assert targets["masks"].shape == (*boxes.shape[:2], 60, 90) and targets["valid"].all()
    first, last = np.ceil(boxes[..., :2]), np.minimum(np.ceil(boxes[..., 2:]), [90, 60])
    np.testing.assert_array_equal(targets["masks"].sum((2, 3)), np.prod(last - first, -1))


def test_what_is_drawn():
    """Boxes and masks in the colour of the class, names beside them, limbs between sure keypoints alone."""
    size = 640, 480
    masks = np.zeros((1, 1, 480, 640), np.float32)
    masks[0, 0, 200:300, 300:400] = 0.9
    points = np.ones((1, 17, 3), np.float32)
    points[0, [5, 7, 9], :2] = [[150, 150], [150, 200], [150, 400]]  # a left arm, whose wrist is not sure
    found = {
        "boxes": np.array([[100.0, 100, 500, 400]]),
        "labels": np.array([1]),
        "scores": np.array([0.9]),
        "masks": masks,
        "keypoints": points,
        "keypoints_scores": np.where(np.isin(np.arange(17), [5, 7]), 5.0, 0.0)[None],
    }
    sheet = np.asarray(drawn(Image.new("RGB", size, "gray"), found, COCO_CATEGORIES))
    color, gray = np.array(ImageColor.getrgb(COLORS[1])), np.array(ImageColor.getrgb("gray"))
    assert (sheet[101, 450] == color).all() and (sheet[399, 300] == color).all() and (sheet[300, 101] == color).all()
    np.testing.assert_allclose(sheet[250, 350], 0.55 * gray + 0.45 * color, atol=1)
    assert (sheet[201, 350] == color).all() and (sheet[350, 350] == gray).all()
    assert (sheet[175, 150] == ImageColor.getrgb(LEFT)).all() and (sheet[300, 150] == gray).all()
    assert (sheet[85:99, 100:150] != gray).any() and (sheet[:70] == gray).all()


def test_names_of_objects_in_one_place_do_not_hide_each_other():
    corners = [[50, 200, 300, 300], [51, 201, 301, 301], [0, 0, 640, 480], [-30, -20, 900, 900], [635, 475, 640, 480]]
    found = {"boxes": np.array(corners, float), "labels": np.arange(1, 6), "scores": np.full(5, 0.5)}
    together = np.asarray(drawn(Image.new("RGB", (640, 480)), found, COCO_CATEGORIES))
    for color in COLORS[1:6]:
        assert (together == ImageColor.getrgb(color)).all(-1).sum() > 800  # the ground of a name; edges may be hidden


def test_objects_may_be_none_or_odd():
    empty = {"boxes": np.zeros((0, 4)), "labels": np.zeros(0, int), "scores": np.zeros(0)}
    picture = Image.new("RGB", (500, 300), "gray")
    np.testing.assert_array_equal(np.asarray(drawn(picture, empty, ())), np.asarray(picture))
    boxes = np.array([[np.nan, 0, 10, 10], [30, 20, 10, 5], [np.inf, 0, np.inf, 3], [7, 7, 7, 7]])
    odd = {"boxes": boxes, "labels": np.ones(4, int), "scores": np.ones(4), "masks": np.zeros((4, 1, 300, 500))}
    assert drawn(picture, odd, COCO_CATEGORIES).size == (500, 300)


def test_maps_are_of_the_surest_object_or_of_the_nearest_to_a_box():
    names = ["background", "cat", "dog"]
    outputs = {
        "boxes": np.array([[[0, 0, 9, 9], [20, 20, 40, 40], [0, 0, 10, 10], [0, 0, 1, 1]]], np.float32),
        "labels": np.array([[1, 1, 2, 2]]),
        "scores": np.array([[0.5, 0.7, 0.6, 0.99]], np.float32),
        "valid": np.array([[True, True, True, False]]),
    }
    texts = [target.text for target in targets(outputs, names, [], None)]
    assert texts == ["cat (1) 70.0 %"]
    texts = [target.text for target in targets(outputs, names, [2, 0], None)]
    assert texts == ["dog (2) 60.0 %", "no background found"]
    (target,) = targets(outputs, names, [1], np.array([1, 1, 9, 9]))
    assert target.text == "cat (1) 50.0 %" and target.box.tolist() == [0, 0, 9, 9]
    np.testing.assert_allclose(target.score({name: jax.numpy.asarray(rows) for name, rows in outputs.items()}), [0.5])


def test_a_detectors_maps_lie_on_the_image_without_the_canvas(capsys, tmp_path, weights, pictures):
    image, out, arrays = pictures / "b" / "cup.png", tmp_path / "a.png", tmp_path / "a.npz"
    options = ["--model", NAME, "--weights", weights, "--out", out, "--arrays", arrays]
    assert run("inspect", "cam", image, *options) == 0
    said = capsys.readouterr().out
    assert "grad-cam of backbone.body.layer4" in said and " %" in said
    (values,) = np.load(arrays).values()
    assert values.ndim == 2 and values.min() >= 0 and np.isfinite(values).all()
    assert run("inspect", "cam", image, *options[:4], "--class", "9999", "--out", tmp_path / "b.png") == 2
    assert "there is no class '9999'" in capsys.readouterr().err
