"""What a run of segmentation draws and writes."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import jaccard_score

from jaxzoo import Preprocess
from jaxzoo.voc import VOC_CLASSES, colored, legend, overlay, palette
from train.data import masks
from train.metrics import init, update
from train.reporting import page, segments
from train.reporting.contact_sheet import read_tiles
from train.tasks.segmentation import Segmentation, SegmentationAugmentation

CLASSES = ["ground", "roof", "a road with a name that is rather long", "<b>water</b>", "sky"]


class Blocks:
    """Images of blocks; the network below errs more on those with larger numbers."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        mask = rng.integers(0, 4, (4, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        mask[:3] = 255
        return Image.fromarray(np.repeat(60 * np.minimum(mask, 4)[..., None], 3, 2).astype(np.uint8)), mask

    def name(self, index):
        return f"folder/blocks-{index}.png"


@pytest.fixture(scope="module")
def evaluated():
    """A task, and the states of its metrics after three batches of four images, the last of which is none."""
    task = Segmentation(
        CLASSES,
        Preprocess(crop=16),
        canvases=[masks.Canvas((32, 32), range(0))],
        augmentation=SegmentationAugmentation((0.75, 1.5), flip=True),
    )
    states = init(task.evaluation_metrics)
    for first in (0, 4, 8):
        examples = [task.evaluation_example(Blocks()[i]) for i in range(first, first + 4)]
        batch = {key: np.stack([example[key] for example in examples]) for key in examples[0]}
        logits = 3.0 * np.eye(5, dtype=np.float32)[np.minimum(batch["target"], 4)]
        for row in range(4):
            logits[row, :, : first + row] = np.eye(5)[1]  # so many columns are wrong
        batch |= {"mask": np.arange(first, first + 4) < 11, "indices": np.arange(first, first + 4, dtype=np.int32)}
        batch["indices"][~batch["mask"]] = -1
        outputs = task.evaluation_outputs(lambda x, y=logits: {"out": jnp.asarray(y)}, batch)
        states = update(task.evaluation_metrics, states, outputs)
    return task, jax.device_get(states)


def test_vocs_colours_are_the_development_kits():
    expected = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        8: (64, 0, 0),
        15: (192, 128, 128),
        20: (0, 64, 128),
        255: (224, 224, 192),
    }
    assert {value: tuple(palette()[value].tolist()) for value in expected} == expected
    assert len(np.unique(palette(), axis=0)) == 256 and len(VOC_CLASSES) == 21
    mask = np.array([[0, 1], [20, 255]], np.uint8)
    np.testing.assert_array_equal(np.asarray(colored(mask)), mask)
    assert colored(mask).convert("RGB").getpixel((1, 0)) == (128, 0, 0)


def test_an_overlay_colours_classes_and_leaves_the_background():
    image = np.full((2, 2, 3), 100, np.uint8)
    drawn = overlay(image, np.array([[0, 1], [2, 255]], np.uint8), alpha=0.5)
    assert drawn[0, 0].tolist() == [100] * 3 and drawn[0, 1].tolist() == [114, 50, 50]
    assert legend(CLASSES, 300, [0, 2, 255]).width == 300
    assert legend(VOC_CLASSES, 300).height > legend(VOC_CLASSES, 900).height


def test_the_first_images_and_the_worst_are_kept_with_what_was_predicted(evaluated):
    _, states = evaluated
    iou = []
    for i in range(11):
        truth = Blocks()[i][1]
        predicted = np.where(np.arange(24) < i, 1, truth)
        known = truth != 255
        present = np.union1d(truth[known], predicted[known])
        iou.append(jaccard_score(truth[known], predicted[known], labels=present, average="macro"))
    assert states["first"]["index"].tolist() == [0, 1, 2, 3] and states["first"]["iou"][0] == 1
    assert states["worst"]["index"].tolist() == np.argsort(iou)[:4].tolist()
    np.testing.assert_allclose(states["worst"]["iou"], np.sort(iou)[:4], rtol=1e-6)
    worst = states["worst"]["index"][0]
    assert (states["worst"]["predicted"][0][:, :worst] == 1).all()


def test_a_run_folder_gets_pictures_tables_and_a_page(evaluated, tmp_path):
    task, states = evaluated
    task.draw(states, Blocks(), tmp_path)
    with (tmp_path / "per_class.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == CLASSES
    assert rows[4]["iou"] == "" and 0 < float(rows[1]["iou"]) < float(rows[1]["accuracy"]) <= 1
    labelled = sum((Blocks()[i][1] != 255).sum() for i in range(11))
    assert sum(int(row["pixels"]) for row in rows) == labelled
    with Image.open(tmp_path / "segments.png") as drawn:
        assert drawn.width > 4 * segments.SIDE and drawn.height > 8 * segments.SIDE
        colors = {color for _, color in drawn.getcolors(1 << 24)}
    assert {tuple(palette()[value].tolist()) for value in (1, 2, 3, 255)} <= colors
    assert Image.open(tmp_path / "confusion_matrix.png").width > 300
    page.write(tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert 'id="segments"' in html and 'id="classes"' in html
    assert "&lt;b&gt;water&lt;/b&gt;" in html and "<b>water" not in html


def test_first_batches_are_drawn_as_the_model_sees_them(evaluated, tmp_path):
    task, _ = evaluated
    training = [task.training_example(Blocks()[i], np.random.default_rng(i)) for i in range(4)]
    held_out = [task.evaluation_example(Blocks()[i]) for i in range(4)]
    stacked = [{key: np.stack([e[key] for e in side]) for key in side[0]} for side in (training, held_out)]
    task.draw_first_batches(*stacked, jax.random.key(0), tmp_path)
    for name in ("train_batch.png", "val_batch.png"):
        tiles = read_tiles(tmp_path / name)
        assert len(tiles) == 4
    present = {CLASSES[value] for value in np.unique(held_out[0]["target"]) if 0 < value < 5}
    assert set(tiles[0]["caption"][0].split(", ")) == present


def test_without_labelled_pixels_the_tables_are_empty_and_written(tmp_path):
    segments.write_tables(np.zeros((3, 3), np.int64), ["a", "b", "c"], tmp_path)
    assert (tmp_path / "per_class.csv").read_text().splitlines()[1] == "a,0,,,"
