"""`python -m train data`: counts and a contact sheet."""

import numpy as np
import pytest
from PIL import Image

from jaxzoo import Preprocess, UsageError
from tests.train.test_data import damage, paint
from train.data import inspection, load
from train.report.sheet import read_sheet
from train.tasks.classification import Classification


@pytest.fixture
def pets(tmp_path):
    for name, count, color in (("cat", 10, (220, 30, 30)), ("[red]dog", 5, (30, 30, 220))):
        for i in range(count):
            paint(tmp_path / "pets" / name / f"{i}.png", color)
    return tmp_path / "pets"


def show(pets, tmp_path, **options):
    data = load(f"folder:{pets}")
    task = Classification(data.classes, Preprocess(crop=8), crop_area=0.5)
    inspection.show(data, task, "pets", tmp_path / "sheet.png", **options)
    return data, read_sheet(tmp_path / "sheet.png")


def test_images_are_counted_by_class_and_side(pets, tmp_path, capsys):
    show(pets, tmp_path)
    lines = [line.split() for line in capsys.readouterr().out.replace("│", " ").replace("┃", " ").splitlines()]
    assert ["[red]dog", "4", "1"] in lines and ["cat", "8", "2"] in lines
    assert ["2", "classes", "12", "3"] in lines


def test_the_sheet_shows_augmented_training_images_with_their_classes_and_names(pets, tmp_path, capsys):
    data, tiles = show(pets, tmp_path)
    assert len(tiles) == 12
    assert str(tmp_path / "sheet.png") in capsys.readouterr().out
    expected = {(data.classes[label], path.name) for path, label in data.train.files}
    assert {tuple(tile.caption) for tile in tiles} == expected
    for tile in tiles:
        red, _, blue = np.asarray(tile.picture)[0, 0]
        assert (red > blue) == (tile.caption[0] == "cat")


def test_a_long_data_set_is_shown_in_part_and_as_the_device_makes_it(pets, tmp_path):
    def seen(batch):
        return 255 - batch["image"], [f"number {index}" for index in batch["indices"]]

    _, tiles = show(pets, tmp_path, count=5, seen=seen)
    assert len(tiles) == 5 and all(tile.caption[0].startswith("number ") for tile in tiles)
    assert {tuple(np.asarray(tile.picture)[0, 0]) for tile in tiles} <= {(35, 225, 225), (225, 225, 35)}


def test_a_broken_image_is_named_and_another_one_shown(pets, tmp_path, capsys):
    for path in (pets / "cat").iterdir():
        damage(path)
    _, tiles = show(pets, tmp_path)
    assert {tile.caption[0] for tile in tiles} == {"[red]dog"}
    assert capsys.readouterr().out.count("left out: ") == 8
    with pytest.raises(UsageError, match="cannot be read"):
        show(pets, tmp_path, strict=True)


def test_digits_can_be_shown_too(tmp_path):
    data = load("digits")
    inspection.show(data, Classification(data.classes, Preprocess(crop=32)), "digits", tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").size[0] > 600
    assert len(read_sheet(tmp_path / "sheet.png")) == 48
