"""Folders as annotation tools write them, read as they are."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxzoo import UsageError
from jaxzoo.voc import colored
from tests.train.test_data import paint
from train.data import load, picture_side

SQUARE = [[2, 2, 6, 2, 6, 6, 2, 6]]
PIXELS = np.zeros((10, 12), int)
PIXELS[2:6, 2:6] = 1


def write(path, images, annotations, categories):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def coco(root, file, place, categories, *, count=5, named="{}.jpg", **annotation):
    """`count` images of 12 x 10 pixels below `place`, each with a square of the last category, in a file."""
    images, annotations = [], []
    for i in range(count):
        paint(root / place / f"{i}.jpg")
        images.append({"id": i + 1, "file_name": named.format(i), "height": 10, "width": 12})
        square = {"segmentation": SQUARE, "area": 16, "iscrowd": 0, "bbox": [2, 2, 4, 4]}
        annotations.append({"id": i, "image_id": i + 1, "category_id": categories[-1]["id"]} | square | annotation)
    write(root / file, images, annotations, categories)


CAT_AND_DOG = [{"id": 1, "name": "cat", "supercategory": ""}, {"id": 2, "name": "dog", "supercategory": ""}]


def roboflow(root):
    categories = [{"id": 0, "name": "pets", "supercategory": "none"}]
    categories += [category | {"supercategory": "pets"} for category in CAT_AND_DOG]
    for part, count in (("train", 4), ("valid", 1), ("test", 2)):
        coco(root, f"{part}/_annotations.coco.json", part, categories, count=count)


def cvat(root):
    coco(root, "annotations/instances_default.json", "images", CAT_AND_DOG)


def labelme(root):
    categories = [{"id": 0, "name": "_background_"}, *CAT_AND_DOG]
    coco(root, "annotations.json", "JPEGImages", categories, named="JPEGImages/{}.jpg")
    (root / "Visualization").mkdir()


def label_studio(root):
    categories = [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    coco(root, "result.json", "images", categories, named="..\\..\\media\\upload\\1\\{}.jpg", ignore=0)


@pytest.mark.parametrize("tool", [roboflow, cvat, labelme, label_studio])
def test_annotation_files_of_these_tools_are_read_as_they_are(tmp_path, tool, capsys):
    tool(tmp_path)
    data = load(f"coco:{tmp_path}", "segmentation", seed=1)
    assert data.classes[1:] == ["cat", "dog"] and data.classes[0] in ("background", "_background_")
    assert (len(data.train), len(data.held_out)) == (4, 1)
    names = [source.name(i) for source in (data.train, data.held_out) for i in range(len(source))]
    assert len(set(names)) == 5
    image, mask = data.held_out[0]
    np.testing.assert_array_equal(mask, 2 * PIXELS)
    assert image.size == (12, 10) and data.train.size(0) == (10, 12) and picture_side(data.train) == 10
    if tool is not roboflow:  # drawn by the seed
        assert load(f"coco:{tmp_path}", "segmentation", seed=1).held_out.name(0) == data.held_out.name(0)
        assert len({load(f"coco:{tmp_path}", "segmentation", seed=seed).held_out.name(0) for seed in range(8)}) > 1
    else:
        assert "left out: " in capsys.readouterr().out


def test_one_annotation_file_of_several_can_be_named(tmp_path):
    for name in ("first", "second"):
        coco(tmp_path, f"{name}.json", "images", CAT_AND_DOG)
    with pytest.raises(UsageError, match=r"several annotation files: first\.json, second\.json; name one"):
        load(f"coco:{tmp_path}", "segmentation")
    assert len(load(f"coco:{tmp_path}/second.json", "segmentation").train) == 4


def test_of_cocos_files_those_of_instances_count_and_the_latest_of_each_part(tmp_path):
    for year in (2014, 2017):
        for part in ("train", "val"):
            coco(tmp_path, f"annotations/instances_{part}{year}.json", f"{part}{year}", CAT_AND_DOG, count=2)
            (tmp_path / "annotations" / f"captions_{part}{year}.json").write_text("{}")
    data = load(f"coco:{tmp_path}", "segmentation")
    assert data.train.name(0) == str(tmp_path / "train2017" / "0.jpg") and len(data.held_out) == 2


def test_boxes_alone_are_refused_and_an_object_without_outline_is_named(tmp_path):
    for segmentation in ([], None, [[]]):
        coco(tmp_path, "result.json", "images", CAT_AND_DOG, segmentation=segmentation)
        with pytest.raises(UsageError, match=r"result\.json has boxes alone: none of its 5 annotations has an outline"):
            load(f"coco:{tmp_path}", "segmentation")
    content = json.loads((tmp_path / "result.json").read_text())
    content["annotations"][0]["segmentation"] = SQUARE
    content["annotations"][2]["segmentation"] = 7
    (tmp_path / "result.json").write_text(json.dumps(content))
    data = load(f"coco:{tmp_path}", "segmentation", val_fraction=1).held_out
    np.testing.assert_array_equal(data[0][1], 2 * PIXELS)
    with pytest.raises(UsageError, match=r"1\.jpg in .* cannot be drawn \(ValueError: it has no outline\)"):
        data[1]


@pytest.mark.parametrize("area", [[16], None, "16", "large", float("inf")])
@pytest.mark.parametrize("wrong", [{}, {"iscrowd": None}, {"iscrowd": "0"}, {"segmentation": [*SQUARE[0]]}])
def test_numbers_of_other_exporters_are_understood(tmp_path, area, wrong):
    """Ids as text or floats; areas in lists, as text or missing; sizes as text; a polygon without its list."""
    paint(tmp_path / "images" / "1.jpg")
    paint(tmp_path / "images" / "2.jpg")
    images = [
        {"id": "1", "file_name": "1.jpg", "height": "10", "width": [12]},
        {"id": 2.0, "file_name": "2.jpg", "height": None},
    ]
    large = {"segmentation": [[0, 0, 12, 0, 12, 10, 0, 10]], "area": 120, "category_id": 9}
    small = {"segmentation": SQUARE, "area": area, "category_id": "10"} | wrong
    annotations = [{"image_id": number} | entry for number in (1, "2") for entry in (small, large)]
    write(tmp_path / "a.json", images, annotations, [{"id": "10", "name": "dog"}, {"id": 9.0, "name": "cat"}])
    data = load(f"coco:{tmp_path}", "segmentation", val_fraction=1)
    assert data.classes == ["background", "cat", "dog"]
    for i in range(2):
        np.testing.assert_array_equal(data.held_out[i][1], np.where(PIXELS, 2, 1))


def test_annotations_of_other_images_are_refused(tmp_path):
    coco(tmp_path, "a.json", "images", CAT_AND_DOG, image_id=77)
    with pytest.raises(UsageError, match="belongs to one of its images"):
        load(f"coco:{tmp_path}", "segmentation")


def test_outlines_made_for_pixels_as_stored_are_turned_with_their_photograph(tmp_path):
    coco(tmp_path, "result.json", "images", CAT_AND_DOG)
    exif = Image.Exif()
    exif[0x0112] = 6
    paint(tmp_path / "images" / "0.jpg", exif=exif)
    data = load(f"coco:{tmp_path}", "segmentation", val_fraction=1).held_out
    assert data[0][0].size == (10, 12) and data.size(0) == (12, 10)
    np.testing.assert_array_equal(data[0][1], 2 * np.rot90(PIXELS, -1))


# In Pascal VOC's layout


def voc(root, folder="SegmentationClass", *, rgb=False, color=(250, 50, 83)):
    for i in range(5):
        paint(root / "JPEGImages" / f"{i}.jpg")
        (root / folder).mkdir(exist_ok=True)
        mask = Image.fromarray(np.where(PIXELS[..., None], color, 0).astype(np.uint8)) if rgb else colored(PIXELS)
        mask.save(root / folder / f"{i}.png")


@pytest.mark.parametrize("folder", ["SegmentationClass", "SegmentationClassPNG"])
def test_what_labelme2voc_writes_is_read_as_it_is(tmp_path, folder):
    voc(tmp_path, folder)
    for name in ("SegmentationClass", "SegmentationClassVisualization", "SegmentationClassNpy"):
        (tmp_path / name).mkdir(exist_ok=True)
        np.save(tmp_path / name / "0.npy", PIXELS)
    (tmp_path / "class_names.txt").write_text("_background_\ncat")
    data = load(f"voc:{tmp_path}", "segmentation")
    assert (len(data.train), len(data.held_out), data.classes) == (4, 1, ["_background_", "cat"])
    np.testing.assert_array_equal(data.held_out[0][1], PIXELS)


@pytest.mark.parametrize(
    "lists", [{"default": range(5)}, {"Train": range(4), "Validation": [4]}, {"train": range(5)}, {}]
)
def test_what_cvat_writes_in_vocs_layout_is_read_as_it_is(tmp_path, lists):
    voc(tmp_path, rgb=True)
    (tmp_path / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:0,128,0::\ndog:250,50,83::\n"
    )
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    for name, numbers in lists.items():
        (tmp_path / "ImageSets/Segmentation" / f"{name}.txt").write_text("".join(f"{i}\n" for i in numbers))
    data = load(f"voc:{tmp_path}", "segmentation")
    assert (len(data.train), len(data.held_out), data.classes) == (4, 1, ["background", "cat", "dog"])
    np.testing.assert_array_equal(data.train[0][1], 2 * PIXELS)


def test_a_labelmap_that_is_none_is_refused(tmp_path):
    voc(tmp_path)
    for content in ("background\ncat\n", "background:black::\ncat:red::\n"):
        (tmp_path / "labelmap.txt").write_text(content)
        with pytest.raises(UsageError, match=r"labelmap\.txt has no lines of name:red,green,blue"):
            load(f"voc:{tmp_path}", "segmentation")


def test_masks_in_vocs_own_colours_are_understood(tmp_path):
    voc(tmp_path, rgb=True, color=(192, 0, 0))
    assert set(np.unique(load(f"voc:{tmp_path}", "segmentation").train[0][1])) == {0, 9}  # chair
