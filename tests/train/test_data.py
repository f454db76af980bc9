"""Where images come from."""

import os

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from jaxzoo import UsageError
from jaxzoo.errors import exit_on_usage_error
from train import loop
from train.config import command_line
from train.config.provenance import read
from train.data import load, stratified_split, write_split
from train.data.batches import TrainingBatches
from train.data.prefetch import read_ahead
from train.data.sources import digits, folder


def paint(path, color=(200, 30, 30), size=(12, 10), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).convert(mode).save(path, **options)


@pytest.fixture
def pets(tmp_path):
    """A folder with 10 cats and 5 dogs."""
    for name, count in (("cat", 10), ("dog", 5)):
        for i in range(count):
            paint(tmp_path / "pets" / name / f"{i}.png", color=(i, i, i))
    return tmp_path / "pets"


# Digits


def test_digits_are_scikit_learns():
    expected = sklearn.datasets.load_digits()
    with np.load(digits.__file__.replace("digits.py", "digits.npz")) as ours:
        np.testing.assert_array_equal(ours["images"], expected.images)
        np.testing.assert_array_equal(ours["labels"], expected.target)


def test_a_fifth_of_every_digit_is_held_out_and_none_is_lost():
    data = load("digits")
    assert len(data.train) + len(data.held_out) == 1797
    held_out, trained = (np.bincount(part.labels) for part in (data.held_out, data.train))
    np.testing.assert_array_equal(held_out, np.round(0.2 * (held_out + trained)))
    both = np.concatenate([data.train.images, data.held_out.images]).reshape(1797, -1)
    whole = np.load(digits.__file__.replace("digits.py", "digits.npz"))["images"].reshape(1797, -1)
    np.testing.assert_array_equal(both[np.lexsort(both.T)], whole[np.lexsort(whole.T)])


def test_a_digit_is_an_rgb_image_of_32_pixels():
    image, label = load("digits").train[0]
    assert (image.mode, image.size, label) == ("RGB", (32, 32), 0)


# Folders


def test_a_folder_is_split_by_fraction_and_seed(pets):
    data = folder.load(pets, val_fraction=0.2, seed=0)
    assert data.classes == ["cat", "dog"]
    assert [label for _, label in data.held_out.files] == [0, 0, 1]
    assert data.held_out.files == folder.load(pets, val_fraction=0.2, seed=0).held_out.files
    assert data.held_out.files != folder.load(pets, val_fraction=0.2, seed=1).held_out.files
    assert not set(data.held_out.files) & set(data.train.files)


def test_images_keep_their_side_when_others_come_and_go(pets):
    before = {file for file, _ in folder.load(pets, val_fraction=0.4, seed=0).train.files}
    (pets / "cat" / "3.png").unlink()
    paint(pets / "dog" / "new.png")
    after = {file for file, _ in folder.load(pets, val_fraction=0.4, seed=0).train.files}
    assert len(before ^ after) <= 4


def test_train_and_val_folders_are_taken_as_they_are(tmp_path):
    for split, name in (("train", "cat"), ("train", "dog"), ("train", "emu"), ("val", "cat"), ("val", "emu")):
        paint(tmp_path / split / name / "nested" / "1.JPG", format="JPEG")
    data = folder.load(tmp_path, val_fraction=0.2, seed=0)
    assert data.classes == ["cat", "dog", "emu"]
    assert [label for _, label in data.train.files] == [0, 1, 2]
    assert [label for _, label in data.held_out.files] == [0, 2]


@pytest.mark.parametrize(
    ("splits", "sizes"),
    [
        (("train", "valid", "test"), (8, 4)),
        (("train", "test"), (8, 4)),
        (("training", "validation"), (8, 4)),
        (("Train", "Val"), (8, 4)),
        (("TRAIN", "VALIDATION"), (8, 4)),
        (("train_set", "dev"), (8, 4)),
        (("train2017", "val2017", "annotations"), (8, 4)),
        (("train", "test1"), (6, 2)),  # a test part without classes, as Kaggle's: some of the training images
        (("test",), (0, 4)),
    ],
)
def test_parts_are_known_by_their_usual_names_and_never_taken_for_classes(tmp_path, splits, sizes, capsys):
    for split in splits:
        for name in ("cat", "dog"):
            for i in range(4 if split.lower().startswith("train") else 2):
                paint(tmp_path / split / ("" if split in ("test1", "annotations") else name) / f"{i}.png")
    data = load(f"folder:{tmp_path}")
    assert data.classes == ["cat", "dog"] and (len(data.train), len(data.held_out)) == sizes
    assert ("left out: " in capsys.readouterr().out) == (len(splits) == 3 and "test" in splits)


def test_a_class_may_be_called_train(tmp_path):
    for name in ("bus/1.png", "bus/2.png", "train/1.png", "train/old/2.png"):
        paint(tmp_path / name)
    assert load(f"folder:{tmp_path}").classes == ["bus", "train"]


def test_a_part_that_comes_twice_is_refused(tmp_path):
    for name in ("train/a", "train/b", "val/a", "valid/a"):
        paint(tmp_path / name / "1.png")
    with pytest.raises(UsageError, match=r"val and .*valid are both called val; remove or rename one"):
        load(f"folder:{tmp_path}")


def test_hidden_folders_and_links_upwards_are_neither_classes_nor_images(pets):
    for name in (".ipynb_checkpoints", "__MACOSX", "cat/.ipynb_checkpoints", "cat/old/.thumbnails"):
        paint(pets / name / "1.png")
    (pets / "cat" / "all").symlink_to(pets)
    (pets / "again").symlink_to("..")
    data = load(f"folder:{pets}")
    assert data.classes == ["cat", "dog"] and len(data.train) + len(data.held_out) == 15


def test_files_that_are_no_images_are_said_once(pets, capsys):
    for name in ("cat/1.heic", "dog/2.HEIC", "dog/notes", "dog/3.txt"):
        (pets / name).touch()
    load(f"folder:{pets}")
    assert capsys.readouterr().out == (
        f"left out in {pets}, as they are no images that Pillow reads: 2 .heic, 1 .txt, 1 without an ending\n"
    )


def test_a_tilde_is_the_home_folder(pets, monkeypatch):
    monkeypatch.setenv("HOME", str(pets.parent))
    assert load("folder:~/pets").classes == ["cat", "dog"]
    with pytest.raises(UsageError, match="there is no folder ~nobody-of-this-name"):
        load("folder:~nobody-of-this-name/pets")


def test_every_class_is_held_out_and_trained_if_it_has_two_images():
    train, held_out = stratified_split([0] * 100 + [1, 1, 2], fraction=0.05, seed=0)
    assert len(held_out) == 6
    assert sorted(np.concatenate([train, held_out])) == list(range(103))
    assert 102 in train


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda pets: (pets / "emu").mkdir(), "emu holds no images"),
        (
            lambda pets: (pets / "dog").rename(pets.parent / "dog"),
            "needs a folder of images for each class.*only 'cat'",
        ),
        (lambda pets: pets.rename(pets.parent / "zoo"), "there is no folder"),
        (lambda pets: paint(pets / "val" / "emu" / "1.png") or (pets / "train").mkdir(), "train holds no images"),
    ],
)
def test_an_impossible_folder_is_refused_in_one_sentence(pets, break_it, sentence):
    break_it(pets)
    with pytest.raises(UsageError, match=sentence):
        folder.load(pets, val_fraction=0.2, seed=0)


def test_a_class_that_is_only_held_out_is_refused(tmp_path):
    for place in ("train/cat", "train/dog", "val/cat", "val/emu"):
        paint(tmp_path / place / "1.png")
    with pytest.raises(UsageError, match="emu"):
        folder.load(tmp_path, val_fraction=0.2, seed=0)


def test_odd_images_are_read_as_rgb(tmp_path):
    red = (200, 30, 30)
    paint(tmp_path / "a" / "gray.png", mode="L")
    paint(tmp_path / "a" / "cmyk.jpg", mode="CMYK")
    paint(tmp_path / "a" / "palette.gif", mode="P")
    paint(tmp_path / "a" / "alpha.png", mode="RGBA")
    sixteen = np.full((10, 12), 40_000, np.uint16)
    Image.fromarray(sixteen).save(tmp_path / "a" / "sixteen.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    paint(tmp_path / "b" / "rotated.jpg", red, exif=exif)
    paint(tmp_path / "b" / "plain.jpg", red)
    data = folder.load(tmp_path, val_fraction=0.2, seed=0)
    sizes = {}
    for files in (data.train, data.held_out):
        for (path, _), (image, _) in zip(files.files, [files[i] for i in range(len(files))], strict=True):
            assert image.mode == "RGB"
            sizes[path.stem] = image.size
            if path.stem == "sixteen":
                assert image.getpixel((0, 0)) == (round(40_000 / 257),) * 3
    assert sizes.pop("rotated") == (10, 12)
    assert set(sizes.values()) == {(12, 10)}


def damage(path):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def labels(item, rng):
    return {"label": np.int32(item[1])}


def test_a_damaged_image_stops_the_run_by_name_when_data_is_strict(pets):
    damage(pets / "cat" / "3.png")
    data = folder.load(pets, val_fraction=0.2, seed=0)
    with pytest.raises(UsageError, match=r"cat/3\.png"):
        list(read_ahead(TrainingBatches(data.train, labels, 4, seed=0), 0, 10, workers=2))


def test_a_damaged_image_is_left_out_by_name_otherwise(pets):
    damage(pets / "cat" / "3.png")
    data, said = folder.load(pets, val_fraction=0.2, seed=0), []
    batches = TrainingBatches(data.train, labels, 4, seed=0, strict=False, report=said.append)
    assert len(list(read_ahead(batches, 0, 10, workers=2))) == 10
    assert len(said) == 1 and f"left out: {pets}/cat/3.png cannot be read" in said[0]
    assert list(batches.broken.values()) == [f"{pets}/cat/3.png"]


# Names that are no text


@pytest.fixture
def cafes(tmp_path):
    """Six images each of two classes, one of which has a name in Windows-1252, as the folder and all images have."""
    root = tmp_path / os.fsdecode(b"d\xe9j\xe0")
    for name in (b"caf\xe9", "thé".encode()):
        for i in range(6):
            try:
                paint(root / os.fsdecode(name) / os.fsdecode(b"\xe9%d.png" % i), color=(40 * i, 80, 9))
            except OSError:
                pytest.skip("this file system takes names in UTF-8 only")
    return root


def test_images_whose_names_are_no_text_are_read_and_split(cafes, tmp_path):
    data = load(f"folder:{cafes}")
    assert data.classes == ["café", "thé"]
    write_split(data, tmp_path)
    again = load(f"list:{tmp_path / 'split.csv'}")
    assert again.classes == data.classes
    assert [again.train.name(i) for i in range(len(again.train))] == [str(path) for path, _ in data.train.files]
    assert again.train[0][0].size == (12, 10)


@pytest.mark.usefixtures("pooled")
def test_a_run_says_and_writes_down_names_that_are_no_text(cafes, tmp_path, capsys):
    damage(cafes / "thé" / os.fsdecode(b"\xe91.png"))
    options = ["--model", "pooled", "--image-size", "32", "--data", f"folder:{cafes}", "--epochs", "1"]
    options += ["--batch-size", "4", "--workers", "1"]
    with exit_on_usage_error():
        loop.run(command_line.parse([*options, "--out", str(tmp_path / "run")]))
    said = capsys.readouterr().out
    assert "not complete" not in said and "d\\udce9j\\udce0" in said and "udce91.png cannot be read" in said
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "folder:" in report and "déjà" in report and "café" in report
    assert read(tmp_path / "run").data == f"folder:{cafes}"
    _, *rows = (tmp_path / "run" / "per_class.csv").read_text(encoding="utf-8").splitlines()
    assert [row.split(",")[0] for row in rows] == ["café", "thé"]
    with pytest.raises(UsageError, match="checkpoints need a folder whose name is UTF-8"):
        command_line.parse([*options, "--out", os.fsdecode(b"r\xfcn")])


# The split of a run


def test_the_split_that_was_drawn_is_written_down_and_can_be_used_again(pets, tmp_path, monkeypatch):
    monkeypatch.chdir(pets.parent)
    data = load("folder:pets", seed=3)
    write_split(data, tmp_path)
    rows = (tmp_path / "split.csv").read_text().splitlines()
    assert rows[0] == "path,label,split" and len(rows) == 16
    assert sum(row.endswith("cat,val") for row in rows) == 2 and sum(row.endswith("dog,val") for row in rows) == 1
    monkeypatch.chdir("/")
    again = load(f"list:{tmp_path / 'split.csv'}", seed=99)
    assert again.classes == data.classes
    for ours, theirs in ((again.train, data.train), (again.held_out, data.held_out)):
        assert [(path.name, label) for path, label in ours.files] == [
            (path.name, label) for path, label in theirs.files
        ]
        np.testing.assert_array_equal(ours.labels, theirs.labels)


def test_no_split_is_written_where_none_was_drawn(tmp_path):
    for place in ("train/cat", "train/dog", "val/cat", "val/dog"):
        paint(tmp_path / place / "1.png")
    for name in ("digits", f"folder:{tmp_path}"):
        write_split(load(name), tmp_path)
    assert not (tmp_path / "split.csv").exists()


# Any source


@pytest.mark.parametrize("name", ["digit", "folder:", "list:", "tfds", "tfds:no_such_data_set", "/tmp", ""])
def test_an_unknown_data_set_is_refused(name):
    with pytest.raises(UsageError, match=r"unknown data|knows no data set"):
        load(name)


def test_every_item_has_a_name_and_its_label_is_known_without_reading_it(pets):
    for data in (load("digits"), load(f"folder:{pets}")):
        for source in (data.train, data.held_out):
            assert len({source.name(i) for i in range(len(source))}) == len(source)
            assert source.labels[:20].tolist() == [source[i][1] for i in range(min(20, len(source)))]
