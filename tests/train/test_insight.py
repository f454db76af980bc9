"""Pictures of what a network looks at while it learns."""

import types

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import jaxzoo
from jaxzoo import Preprocess, nn
from jaxzoo.inspect import cam
from train.config.options import Config
from train.data import masks
from train.reporting import insight
from train.reporting.contact_sheet import Tile
from train.run_log import RunLog
from train.tasks import Task
from train.tasks.classification import Classification
from train.tasks.detection import surest
from train.tasks.segmentation import Segmentation, main_class
from train.transfer.features import OnFeatures


def test_maps_lie_over_their_images_and_kernels_beside_each_other(tmp_path):
    maps = np.zeros((2, 2, 2))
    maps[:, 0, 0] = 1
    tiles = [Tile(Image.new("RGB", (8, 4), "black"), ["cat"]), Tile(Image.new("RGB", (8, 4), "black"), ["dog"])]
    insight.draw_maps(tiles, maps, (8, 8), tmp_path)
    sheet = np.asarray(Image.open(tmp_path / "class_activation.png"))
    rows = sheet.shape[0]
    assert sheet.shape[1] >= 2 * 144 and (sheet[rows // 2 :] != sheet[rows // 2, 0]).any()
    insight.draw_first_kernels(np.random.default_rng(0).standard_normal((3, 3, 3, 70)), "conv1", tmp_path)
    assert Image.open(tmp_path / "first_kernels.png").height < 1000


def test_a_mask_is_of_its_largest_class_but_for_the_background():
    targets = np.array([[[0, 0], [0, 2]], [[0, 0], [0, 0]], [[1, 255], [2, 2]]], np.uint8)
    assert main_class(targets, 3).tolist() == [2, 0, 2]


def test_the_surest_object_counts_if_it_is_there():
    outputs = {"scores": jnp.array([[0.9, 0.5], [0.4, 0.3]]), "valid": jnp.array([[False, True], [True, True]])}
    np.testing.assert_allclose(surest(outputs), [0.5, 0.4])


def batch(**more: np.ndarray) -> dict[str, np.ndarray]:
    return {"image": np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8), **more}


def test_classification_is_explained_by_the_true_class():
    task = Classification(["cat", "dog"], Preprocess(8))
    model = nn.Sequential(nn.Conv(3, 4, 3, rngs=nnx.Rngs(0)), nn.Flatten(), nn.Linear(144, 2, rngs=nnx.Rngs(0)))
    given = batch(label=np.array([1, 0], np.int32))
    inputs, score = task.explained(given)
    np.testing.assert_array_equal(cam(model, inputs, score), cam(model, inputs, [1, 0]))
    tiles = task.explained_tiles(given)
    assert [tile.caption for tile in tiles] == [["dog"], ["cat"]]
    np.testing.assert_array_equal(np.asarray(tiles[0].picture), given["image"][0])


def test_segmentation_is_explained_by_the_pixels_of_a_class():
    task = Segmentation(["ground", "cat", "dog"], Preprocess(8), canvases=[masks.Canvas((8, 8), range(2))])
    given = batch(target=np.zeros((2, 8, 8), np.uint8))
    given["target"][0, 2:5, 2:5] = 2
    _, score = task.explained(given)
    logits = jnp.asarray(np.random.default_rng(1).standard_normal((2, 8, 8, 3)))
    expected = [logits[0, 2:5, 2:5, 2].sum(), logits[1, ..., 0].sum()]
    np.testing.assert_allclose(score({"out": logits}), expected, rtol=1e-5)
    assert [tile.caption for tile in task.explained_tiles(given)] == [["dog"], ["ground"]]


def test_features_and_tasks_of_ones_own_are_not_explained():
    assert OnFeatures.explained(None, {}) is None
    assert Task.explained(None, {}) is None and Task.explained_tiles(None, {}) == []


@pytest.mark.parametrize("found", [{}, {"conv.0": np.ones((3, 3, 3, 2), np.float32)}])
def test_a_run_draws_what_there_is(tmp_path, found):
    task = types.SimpleNamespace(explained_tiles=lambda batch: [])
    steps = types.SimpleNamespace(explain=lambda layer, weights, batch: found)
    setup = types.SimpleNamespace(task=task, steps=steps, held_out=lambda number: batch(mask=np.array([True, False])))
    log = RunLog(Config(model="lenet5"), setup, tmp_path, 1)
    log.explain({"params": {}, "stats": {}})
    assert (tmp_path / "first_kernels.png").exists() == bool(found) and not (tmp_path / "class_activation.png").exists()


def test_networks_without_maps_are_passed_over(tmp_path, capsys):
    def explain(*arguments: object) -> None:
        raise jaxzoo.UsageError("MLP has no layer that gives a map of its images")

    steps = types.SimpleNamespace(explain=explain)
    setup = types.SimpleNamespace(steps=steps, held_out=lambda number: batch(mask=np.ones(2, bool)))
    RunLog(Config(model="lenet5"), setup, tmp_path, 1).explain({"params": {}, "stats": {}})
    assert not capsys.readouterr().out and not list(tmp_path.glob("*.png"))
