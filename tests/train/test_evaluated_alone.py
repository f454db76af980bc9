"""Weights that are only evaluated: on a test set alone, on classes in another order or on some of them only."""

import numpy as np
import pytest
from flax import nnx
from PIL import Image

import jaxzoo
from convert import store
from jaxzoo import UsageError
from tests.train.test_data import paint
from train import loop
from train.config import command_line
from train.data import Data
from train.data.relabelled import relabelled
from train.data.sources import coco, csv_list, folder, pairs, voc
from train.engine import network

pytestmark = [pytest.mark.usefixtures("mean", "no_pictures"), pytest.mark.xdist_group("evaluated_alone")]
# Few images of two colours are learnt in three epochs.
QUICKLY = [
    "--model",
    "mean",
    "--image-size",
    "32",
    "--batch-size",
    "4",
    "--workers",
    "1",
    "--lr",
    "0.5",
    "--weight-decay",
    "0",
]
HOW = {"val_fraction": 0.2, "seed": 0}


def saved(path, classes=2, model="mean", classes_named=None, logit=None):
    """Weights of a network as a converted folder; with `logit`, that is all it says."""
    built, about = jaxzoo.create_model(model, seed=1, num_classes=classes), {"arguments": {"num_classes": classes}}
    arrays = network.flat(nnx.state(built, nnx.Not(nnx.RngState)))
    if logit is not None:
        arrays = {name: np.zeros_like(array) for name, array in arrays.items()}
        arrays[next(name for name in arrays if name in ("fc.bias", "classifier.1.bias"))] = np.float32([logit])
    named = {"classes": classes_named} if classes_named else {}
    store.save(path, {f"model/{name}": np.asarray(a) for name, a in arrays.items()}, {"model": model} | about | named)
    return path


def evaluated(weights, data, *options):
    """What is printed."""
    usual = ["--model", "mean", "--image-size", "32", "--batch-size", "8", "--workers", "1"]
    loop.run(command_line.parse([*usual, "--eval-only", "--weights", str(weights), "--data", str(data), *options]))


@pytest.fixture
def pets(tmp_path):
    """Ten cats and ten dogs in val/, and a list of them."""
    lines = ["path,label,split"]
    for name in ("cat", "dog"):
        for i in range(10):
            paint(tmp_path / "pets" / "val" / name / f"{i}.png", color=(12 * i, 40, 90))
            lines.append(f"val/{name}/{i}.png,{name},test")
    (tmp_path / "pets" / "all.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "pets"


def test_a_test_set_alone_is_evaluated_all_of_it_and_not_trained_on(pets, tmp_path, capsys):
    weights = saved(tmp_path / "weights")
    for data in (f"folder:{pets}", f"list:{pets / 'all.csv'}"):
        evaluated(weights, data)
        said = capsys.readouterr().out
        assert "0 training images, 20 held out" in said and "accuracy" in said
        with pytest.raises(UsageError, match="test set alone, with nothing to train on: --eval-only evaluates it"):
            loop.run(command_line.parse(["--model", "mean", "--data", data]))


def test_of_data_without_a_split_a_part_is_evaluated_or_all_on_request(pets, tmp_path, capsys):
    weights, data = saved(tmp_path / "weights"), f"folder:{pets / 'val'}"
    evaluated(weights, data)
    assert "16 training images, 4 held out; --val-fraction 1 evaluates all" in capsys.readouterr().out
    evaluated(weights, data, "--val-fraction", "1")
    assert "0 training images, 20 held out\n" in capsys.readouterr().out
    with pytest.raises(UsageError, match="which leaves no image to look at"):
        command_line.parse(["--val-fraction", "1"])


def test_held_out_images_may_be_fewer_than_a_training_batch_and_there_may_be_no_others(pets, tmp_path, capsys):
    evaluated(saved(tmp_path / "weights"), f"folder:{pets}", "--batch-size", "64")
    assert "20 held out" in capsys.readouterr().out


# Classes by name


class Numbered:
    """Items whose labels are 0, 1, 2 and so on, or masks of these."""

    def __init__(self, masks=False):
        self.labels, self.masks = np.arange(3), masks

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return "image", np.array([[index, 255]], np.uint8) if self.masks else index

    def name(self, index):
        return f"{index}.png"

    def size(self, index):
        return 1, 2


def test_classes_in_another_order_are_matched_by_name():
    data = Data(Numbered(), Numbered(masks=True), ["10", "9", "8"], drawn=True)
    found = relabelled(data, ["8", "9", "10"], "list", "run", evaluated=False)
    assert (found.classes, found.drawn) == (["8", "9", "10"], True)
    assert [found.train[i] for i in range(3)] == [("image", 2), ("image", 1), ("image", 0)]
    assert found.train.labels.tolist() == [2, 1, 0]
    assert found.held_out[0][1].tolist() == [[2, 255]] and found.held_out[0][1].dtype == np.uint8
    assert (found.held_out.name(1), found.held_out.size(1)) == ("1.png", (1, 2))


def test_who_is_evaluated_may_know_more_classes_and_who_learns_gets_another_head():
    data = Data(Numbered(), Numbered(), ["c", "a", "d"])
    found = relabelled(data, ["a", "b", "c", "d"], "list", "run", evaluated=True)
    assert (found.classes, found.held_out.labels.tolist()) == (["a", "b", "c", "d"], [2, 0, 3])
    assert relabelled(data, ["a", "b", "c", "d"], "list", "run", evaluated=False) is data


def test_classes_of_other_names_are_refused_unless_their_order_is_all_there_is(capsys):
    data = Data([], Numbered(), ["background", "cat", "dog"])
    with pytest.raises(UsageError, match="list has classes that run does not know: dog; it knows background, cow"):
        relabelled(data, ["background", "cow", "cat"], "list", "run", evaluated=True)
    assert relabelled(data, ["__background__", "cat", "dog"], "list", "run", evaluated=True) is data
    assert "matched by their order" in capsys.readouterr().out
    with pytest.raises(UsageError, match="does not know: background, cat, dog; it knows a, b, c, d and 6 more"):
        relabelled(data, "abcdefghij", "list", "run", evaluated=True)


def test_weights_of_a_run_are_right_about_classes_in_any_order(tmp_path, capsys):
    """Colours that are learnt from a list, which sorts 9 before 10, are found again in folders, which do not."""
    rows = ["path,label,split"]
    for name, color in (("9", (30, 30, 30)), ("10", (220, 220, 220))):
        for i in range(8):
            paint(tmp_path / "folder" / name / f"{i}.png", color=color)
            rows += [f"folder/{name}/{i}.png,{name},{'train' if i < 6 else 'val'}"]
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    options = ["--data", f"list:{tmp_path / 'list.csv'}", "--epochs", "3", "--out", str(tmp_path / "run")]
    assert loop.run(command_line.parse([*QUICKLY, *options])) == 0
    assert "held-out accuracy 100.00%" in capsys.readouterr().out
    evaluated(tmp_path / "run", f"folder:{tmp_path / 'folder'}", "--val-fraction", "1")
    assert "16 held out" in (said := capsys.readouterr().out) and "accuracy 100.00%" in said
    with pytest.raises(UsageError, match=r"cannot be continued with folder:.*, which are not its images"):
        loop.run(command_line.parse(["--resume", str(tmp_path / "run"), "--data", f"folder:{tmp_path / 'folder'}"]))


# Data sets of each layout


def masked(root, image="images", mask="masks"):
    for i in range(3):
        paint(root / image / f"{i}.jpg")
        path = root / mask / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((10, 12), i % 2, np.uint8)).save(path)


@pytest.mark.parametrize("part", ["val", "test", "Validation"])
def test_pairs_and_folders_of_a_test_set_alone(tmp_path, part):
    masked(tmp_path / "pairs" / part)
    data = pairs.load(tmp_path / "pairs", **HOW)
    assert (len(data.train), len(data.held_out), data.classes) == (0, 3, ["0", "1"])
    for name in ("cat", "dog"):
        paint(tmp_path / "folder" / part / name / "1.png")
    data = folder.load(tmp_path / "folder", **HOW)
    assert (len(data.train), len(data.held_out), data.classes) == (0, 2, ["cat", "dog"])
    assert data.train.labels.dtype == np.int64


def test_voc_of_a_test_set_alone(tmp_path):
    masked(tmp_path, "JPEGImages", "SegmentationClass")
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "test.txt").write_text("0\n1\n2\n")
    data = voc.load(tmp_path)
    assert (len(data.train), len(data.held_out)) == (0, 3)


def test_coco_of_a_test_set_alone(tmp_path):
    paint(tmp_path / "images" / "1.jpg")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val2017.json").write_text(
        '{"images": [{"id": 1, "file_name": "1.jpg", "height": 10, "width": 12}], "annotations": [],'
        ' "categories": [{"id": 1, "name": "cow"}]}'
    )
    data = coco.load(tmp_path)
    assert (len(data.train), len(data.held_out), data.classes) == (0, 1, ["background", "cow"])


def test_a_list_names_its_parts_as_people_do(tmp_path):
    for i in range(4):
        paint(tmp_path / f"{i}.png")
    rows = ["path,label,split", "0.png,cat,Training", "1.png,dog,training", "2.png,cat,test", "3.png,dog,valid"]
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    data = csv_list.load(tmp_path / "list.csv", **HOW)
    assert [data.held_out.name(i)[-5:] for i in range(len(data.held_out))] == ["3.png"]
    assert len(data.train) == 2
