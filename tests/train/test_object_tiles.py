"""Batches of detection are drawn with the objects in them, and nothing of the rows that hold none."""

import numpy as np
import pytest
from PIL import Image, ImageColor

from jaxzoo.detection.drawing import COLORS, LEFT, MIDDLE, RIGHT
from train.data.objects import Skeleton
from train.reporting import contact_sheet
from train.reporting.object_tiles import NAMED, SIDE, tiles

CLASSES = ["background", "cat", "dog", "owl"]
ENDS = Skeleton(("left tip", "right tip", "top"), mirrored=(1, 0, 2), limbs=((0, 1),))


def batch(*objects, rows=4, **parts):
    """One image's, of (label, box)."""
    boxes, labels = np.full((1, rows, 4), np.nan, np.float32), np.zeros((1, rows), np.int32)
    for row, (label, box) in enumerate(objects):
        boxes[0, row], labels[0, row] = box, label
    valid = np.arange(rows)[None] < len(objects)
    return {"boxes": boxes, "labels": labels, "valid": valid} | {name: part[None] for name, part in parts.items()}


def drawn(found, size=(72, 48), **options):
    (tile,) = tiles(np.full((1, *size[::-1], 3), 40, np.uint8), found, CLASSES, **options)
    return tile, np.asarray(tile.picture)


def where(pixels, color):
    """The box around the pixels of a colour."""
    rows, columns = np.nonzero((pixels == ImageColor.getrgb(color)).all(-1))
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else None


def test_a_box_is_drawn_where_it_is_in_the_colour_of_its_class():
    tile, pixels = drawn(batch((2, [10, 20, 40, 44])))
    assert tile.picture.size == (SIDE, SIDE * 48 // 72) and tile.caption == ["dog"] and tile.size == (72, 48)
    left, _, right, bottom = where(pixels, COLORS[2])  # its name is above it
    np.testing.assert_allclose([left, right, bottom], np.array([10, 40, 44]) * SIDE / 72, atol=2)
    assert where(pixels, COLORS[1]) is None


def test_an_image_without_objects_is_as_it_is():
    tile, pixels = drawn(batch())
    assert tile.caption == ["background"] and (pixels == 40).all()


def test_captions_count_objects():
    boxes = [(label, [5 * i, 5, 5 * i + 4, 9 + i]) for i, label in enumerate((3, 1, 3, 2))]
    assert drawn(batch(*boxes))[0].caption == ["owl × 2, dog, cat"]


def test_masks_are_laid_over_the_image():
    masks = np.zeros((4, 48, 72), np.uint8)
    masks[0, 30:40, 20:30] = 1
    _, pixels = drawn(batch((1, [15, 25, 35, 45]), masks=masks))
    inside, outside = pixels[35 * 4, 25 * 4], pixels[35 * 4, 32 * 4]
    assert inside[1] > 100
    np.testing.assert_allclose(outside, 40, atol=10)


@pytest.mark.parametrize("skeleton", [ENDS, None])
def test_keypoints_that_are_annotated_are_drawn(skeleton):
    keypoints = np.zeros((4, 3, 3), np.float32)
    keypoints[0] = [[20, 20, 2], [0, 0, 0], [30, 40, 1]]
    keypoints[3] = 60  # of no object
    _, pixels = drawn(batch((1, [10, 10, 50, 45]), keypoints=keypoints), skeleton=skeleton)
    assert (where(pixels, LEFT) is None) == (skeleton is None) and where(pixels, RIGHT) is None
    left, _, right, bottom = where(pixels, MIDDLE)
    assert left > 60 and right < 30 * 4 + 10 and bottom < 40 * 4 + 10


def test_of_many_objects_the_largest_have_names():
    count = NAMED + 5
    many = [(1, [2 * i, 10, 2 * i + 1.5 + i / 10, 30]) for i in range(count)]
    tile, pixels = drawn(batch(*many, rows=count))
    assert tile.caption == [f"cat × {count}"]
    written = (pixels == ImageColor.getrgb(COLORS[1])).all(-1)[: 9 * 4]  # above all boxes
    columns = np.flatnonzero(written.any(0))
    assert columns.min() > 4 * 2 * 4


def test_large_tiles_have_as_wide_a_sheet_as_usual_ones(tmp_path):
    for side, across in ((contact_sheet.SIDE, 8), (SIDE, 4)):
        sheet = [contact_sheet.Tile(Image.new("RGB", (side, side)), ["a name " * 12, "file"], side)] * 9
        contact_sheet.draw_sheet(sheet, "title", tmp_path / f"{side}.png", keep=False)
        with Image.open(tmp_path / f"{side}.png") as image:
            assert image.width == across * (side + contact_sheet.GAP) + contact_sheet.GAP
