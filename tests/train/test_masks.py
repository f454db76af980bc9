"""Masks as people have them: binary, in gray, in colours, compressed, on their side."""

import numpy as np
import pytest
from PIL import Image

from jaxzoo import UsageError
from tests.train.test_data import damage, paint
from train.data import load, masks
from train.data.sources import pairs

HOW = {"val_fraction": 0.2, "seed": 0}
OBJECT = np.zeros((10, 12), np.uint8)
OBJECT[2:6, 2:6] = 255


@pytest.fixture
def street(tmp_path):
    """Ten images with masks of 0 and 255."""
    for i in range(10):
        paint(tmp_path / "images" / f"{i}.png")
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(OBJECT).save(tmp_path / "masks" / f"{i}.png")
    return tmp_path


def test_of_two_classes_255_is_the_second_where_masks_hold_0_and_255_alone(street, capsys):
    (street / "classes.txt").write_text("background\ncar\n")
    data = pairs.load(street, **HOW)
    assert "hold 0 and 255 alone: 255 stands for 'car'" in capsys.readouterr().out
    for source in (data.train, data.held_out):
        np.testing.assert_array_equal(source[0][1], OBJECT // 255)


def test_255_does_not_count_where_any_mask_holds_the_second_class(street, capsys):
    (street / "classes.txt").write_text("background\ncar\n")
    Image.fromarray(OBJECT // 255).save(street / "masks" / "9.png")
    data = pairs.load(street, **HOW)
    assert not capsys.readouterr().out
    np.testing.assert_array_equal(data.train[0][1], OBJECT)


def test_masks_of_one_class_alone_are_taken_if_it_is_not_the_first(street):
    (street / "classes.txt").write_text("background\ncar\nbus\n")
    for i in range(10):
        Image.fromarray(np.full_like(OBJECT, 2)).save(street / "masks" / f"{i}.png")
    assert (pairs.load(street, **HOW).train[0][1] == 2).all()


def test_masks_without_any_of_several_classes_are_refused(street):
    (street / "classes.txt").write_text("background\ncar\nbus\n")
    with pytest.raises(
        UsageError, match=r"are of class 'background' or do not count \(255\); number the classes 0 to 2"
    ):
        pairs.load(street, **HOW)
    damage(street / "masks" / "0.png")
    Image.fromarray(OBJECT // 255).save(street / "masks" / "9.png")
    pairs.load(street, **HOW)  # which is left out when its turn comes


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF"])
def test_compressed_masks_are_refused_whatever_their_ending(street, kind):
    (street / "classes.txt").write_text("background\ncar\n")
    for i in range(10):
        Image.fromarray(OBJECT).save(street / "masks" / f"{i}.png", kind)
    with pytest.raises(UsageError, match=f"is a {kind} image, whose compression changes classes; save masks as PNG"):
        pairs.load(street, **HOW)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "F", "I", "I;16"])
def test_a_gray_mask_is_read_however_it_is_saved(tmp_path, mode):
    gray = Image.fromarray(OBJECT // 100)
    image = gray.convert("RGB").convert("RGBA") if mode == "RGBA" else gray.convert(mode)
    image.save(tmp_path / "mask.tif")
    np.testing.assert_array_equal(masks.read_mask(tmp_path / "mask.tif"), OBJECT // 100)


def test_image_and_mask_are_turned_each_as_it_says_of_itself_or_else_together(street):
    exif = Image.Exif()
    exif[0x0112] = 6
    stored, upright = OBJECT // 255, np.rot90(OBJECT // 255, -1)
    (street / "classes.txt").write_text("background\ncar\n")
    for i in range(10):
        paint(street / "images" / f"{i}.png", exif=exif)
    for mask, options in ((stored, {}), (stored, {"exif": exif}), (upright, {})):
        for i in range(10):
            Image.fromarray(np.ascontiguousarray(mask)).save(street / "masks" / f"{i}.png", **options)
        data = pairs.load(street, **HOW).train
        assert data[0][0].size == (10, 12) and data.size(0) == (12, 10)
        np.testing.assert_array_equal(data[0][1], upright)


def test_sizes_that_differ_are_refused_still(street):
    (street / "classes.txt").write_text("background\ncar\n")
    for i in range(10):
        Image.fromarray(np.ascontiguousarray(OBJECT.T) // 255).save(street / "masks" / f"{i}.png")
    with pytest.raises(UsageError, match="they must be of one size"):
        pairs.load(street, **HOW).train[0]


@pytest.mark.parametrize("parts", [("train", "val"), ("Training", "test"), ("TRAIN", "VALIDATION")])
@pytest.mark.parametrize("inside", [False, True])
def test_pairs_are_divided_by_folders_of_either_order(tmp_path, parts, inside):
    for part, count in zip(parts, (3, 2), strict=True):
        for i in range(count):
            image, mask = (
                tmp_path / (f"{side}/{part}" if inside else f"{part}/{side}") for side in ("images", "masks")
            )
            paint(image / f"{i}.png")
            paint(image / ".ipynb_checkpoints" / f"{i}.png")
            mask.mkdir(parents=True, exist_ok=True)
            Image.fromarray(OBJECT // 255).save(mask / f"{i}.png")
    data = load(f"pairs:{tmp_path}", "segmentation")
    assert (len(data.train), len(data.held_out), data.classes) == (3, 2, ["0", "1"])


def test_the_size_of_a_turned_tiff_is_that_of_its_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    paint(tmp_path / "a.tif", exif=exif)
    assert masks.image_size(tmp_path / "a.tif") == (12, 10)
