"""`python -m train data`: counts and a contact sheet."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxzoo import Preprocess, UsageError
from tests.train.test_data import damage, paint
from train import inspection
from train.data import load
from train.reporting import contact_sheet
from train.tasks.classification import Classification


class Negatives(Classification):
    """A task whose device turns red, (220, 30, 30), into cyan, and mixes every label with the first class."""

    def training_example(self, item, rng):
        image, label = item
        return {"image": np.asarray(image.resize((8, 8))), "label": np.int32(label)}

    def augmented(self, batch, key):
        classes = jnp.eye(len(self.classes))
        return self.normalised(255 - batch["image"]), 0.6 * classes[batch["label"]] + 0.4 * classes[:1]


@pytest.fixture
def pets(tmp_path):
    for name, count, color in (("cat", 10, (220, 30, 30)), ("[red]dog", 5, (30, 30, 220))):
        for i in range(count):
            paint(tmp_path / "pets" / name / f"{i}.png", color)
    return tmp_path / "pets"


def show(pets, tmp_path, **options):
    data = load(f"folder:{pets}")
    tiles = []

    def keep(drawn, *rest, **settings):
        tiles[:] = drawn
        contact_sheet.draw_sheet(drawn, *rest, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspection, "draw_sheet", keep)
        inspection.show(data, Negatives(data.classes, Preprocess(crop=8)), "pets", tmp_path / "sheet.png", **options)
    assert {path.name for path in tmp_path.iterdir()} == {"pets", "sheet.png"}
    return data, tiles


def test_images_are_counted_by_class_and_side(pets, tmp_path, capsys):
    show(pets, tmp_path)
    lines = [line.split() for line in capsys.readouterr().out.replace("│", " ").replace("┃", " ").splitlines()]
    assert ["[red]dog", "4", "1"] in lines and ["cat", "8", "2"] in lines
    assert ["2", "classes", "12", "3"] in lines


def test_the_sheet_shows_training_images_as_the_model_sees_them_with_classes_and_names(pets, tmp_path, capsys):
    data, tiles = show(pets, tmp_path)
    assert data.classes == ["[red]dog", "cat"]
    assert str(tmp_path / "sheet.png") in capsys.readouterr().out
    labels = ("[red]dog", "cat 0.6 + [red]dog 0.4")
    assert {tuple(tile.caption) for tile in tiles} == {(labels[label], path.name) for path, label in data.train.files}
    for tile in tiles:
        color = (225, 225, 35) if tile.caption[0] == "[red]dog" else (35, 225, 225)
        assert tuple(np.asarray(tile.picture)[0, 0]) == color


def test_of_many_images_the_first_of_a_run_are_shown(pets, tmp_path):
    _, tiles = show(pets, tmp_path, count=5, seed=3)
    assert len(tiles) == 5
    assert tiles != show(pets, tmp_path, count=5, seed=4)[1]
    _, again = show(pets, tmp_path, count=5, seed=3)
    assert [tile.caption for tile in again] == [tile.caption for tile in tiles]


def test_a_broken_image_is_named_and_another_one_shown(pets, tmp_path, capsys):
    for path in (pets / "cat").iterdir():
        damage(path)
    _, tiles = show(pets, tmp_path)
    assert {tile.caption[0] for tile in tiles} == {"[red]dog"}
    assert capsys.readouterr().out.count("left out: ") == 8
    with pytest.raises(UsageError, match="cannot be read"):
        show(pets, tmp_path, strict=True)


def test_a_place_that_is_not_there_is_refused(pets, tmp_path):
    with pytest.raises(UsageError, match="there is no folder"):
        show(pets, tmp_path / "nowhere")
