"""Objects from COCO's annotations, VOC's XML files, YOLO's text files, lists and tensorflow-datasets."""

import contextlib
import csv
import io
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from jaxzoo import UsageError
from jaxzoo.coco import PERSON_KEYPOINTS, PERSON_SIGMAS, SKELETON
from jaxzoo.voc import VOC_CLASSES
from tests.train.launch import train
from tests.train.test_data import paint
from train.data import load
from train.data.objects import Problem, count, mirrored, said, usable
from train.data.relabelled import relabelled
from train.reporting.boxes import draw_sizes

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pycocotools")
WIDTH, HEIGHT = 60, 40
NAN = float("nan")


def load_all(name, **options):
    """All images of a data set that has no split."""
    return load(name, "detection", val_fraction=1, **options)


def image_at(path, **options):
    paint(path, size=(WIDTH, HEIGHT), **options)


def boxes_of(source):
    """Boxes and labels of every image by its name's last part."""
    return {
        source.name(i).rsplit("/", 1)[-1]: [
            (*map(float, box), int(label))
            for box, label in zip(source.objects(i).boxes, source.objects(i).labels, strict=True)
        ]
        for i in range(len(source))
    }


def kinds(source):
    """What is wrong in a source, without details, sorted."""
    return sorted(problem.what.partition(" (")[0] for problem in source.problems)


def sane(source):
    """Whether all that is left of a source can be learnt from."""
    for i in range(len(source)):
        image, found = source[i]
        assert (image.height, image.width) == source.size(i) and image.mode == "RGB"
        assert found.boxes.dtype == np.float32 and found.boxes.shape == (len(found), 4)
        assert np.isfinite(found.boxes).all() and np.isfinite(found.area).all() and (found.area > 0).all()
        assert (found.boxes[:, 2:] > found.boxes[:, :2]).all() and (found.boxes >= 0).all()
        assert (found.boxes[:, 2:] <= image.size).all()
        assert found.labels.dtype == np.int32 and (found.labels > 0).all()
        again = source.objects(i)
        np.testing.assert_array_equal(found.boxes, again.boxes)
        np.testing.assert_array_equal(found.labels, again.labels)


# One box


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((1, 2, 3, 4), (1, 2, 3, 4)),
        ((-5, -1, 200, 300), (0, 0, 60, 40)),
        ((59.5, 39.5, 61, 41), (59.5, 39.5, 60, 40)),
        ((3, 3, 3.001, 4), tuple(map(float, np.float32([3, 3, 3.001, 4])))),
    ],
)
def test_a_box_is_cut_off_at_the_sides_of_the_image(box, expected):
    assert usable(box, (HEIGHT, WIDTH)) == expected


@pytest.mark.parametrize(
    ("box", "sentence"),
    [
        ((3, 3, 3, 9), r"its box is empty \(3, 3, 3, 9\)"),
        ((0, 0, 0, 0), "is empty"),
        ((3, 3, 3 + 1e-9, 9), "is empty"),
        ((9, 3, 3, 9), r"its box is reversed \(9, 3, 3, 9\)"),
        ((3, 9, 9, 3), "is reversed"),
        ((60, 3, 70, 9), r"outside of the image \(60, 3, 70, 9 of 60 x 40 pixels\)"),
        ((3, -9, 9, 0), "outside of the image"),
        ((3, NAN, 9, 9), r"not of finite numbers \(3, nan, 9, 9\)"),
        ((3, 3, float("inf"), 9), "not of finite numbers"),
        ((3, 3, 1e300, 9), "not of finite numbers"),
        ((3, 3, 9), r"not four numbers \(\(3, 3, 9\)\)"),
        ((3, 3, None, 9), "not four numbers"),
        ("3 3 9 9", "not four numbers"),
        (7, "not four numbers"),
    ],
)
def test_a_box_that_cannot_be_used_is_refused_in_words(box, sentence):
    with pytest.raises(ValueError, match=sentence):
        usable(box, (HEIGHT, WIDTH))


def test_left_and_right_keypoints_change_places_in_a_mirrored_image():
    assert [PERSON_KEYPOINTS[i] for i in mirrored(PERSON_KEYPOINTS)[:4]] == [
        "nose",
        "right_eye",
        "left_eye",
        "right_ear",
    ]
    assert mirrored(("Left", "tail", "RIGHT", "left wing", "eye-l", "eye-r")) == (2, 1, 0, 3, 5, 4)


# COCO


def write_coco(
    path, annotations, *, names=("1.jpg", "2.jpg"), categories=((7, "cat"), (3, "dog")), place="images", **more
):
    for name in names:
        image_at(path.parent / place / name)
    images = [
        {"id": 5 + i, "file_name": name, "height": HEIGHT, "width": WIDTH} | more.pop(name, {})
        for i, name in enumerate(names)
    ]
    categories = [{"id": number, "name": name} | more for number, name in categories]
    content = {"images": images, "categories": categories, "annotations": annotations}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def outline(left, top, right, bottom):
    return [[left, top, right, top, right, bottom, left, bottom]]


def random_annotations(rng, count, categories=(3, 7), images=(5, 6)):
    found = []
    for i in range(count):
        x, y = rng.uniform(0, WIDTH - 12), rng.uniform(0, HEIGHT - 12)
        width, height = rng.uniform(1, 11.9, 2)
        corners = np.stack([x + width * rng.random(6), y + height * rng.random(6)], 1).ravel().round(2).tolist()
        found.append(
            {
                "id": i,
                "image_id": int(rng.choice(images)),
                "category_id": int(rng.choice(categories)),
                "bbox": np.round([x, y, width, height], 2).tolist(),
                "area": round(float(width * height * 0.7), 3),
                "iscrowd": 0,
                "segmentation": [corners],
            }
        )
    return found


def torchvisions_target(api, image_id, width, height):
    """As ConvertCocoPolysToMask of torchvision's references/detection/coco_utils.py makes it: crowds left out."""
    import torch

    entries = [entry for entry in api.loadAnns(api.getAnnIds(imgIds=[image_id])) if not entry["iscrowd"]]
    boxes = torch.as_tensor([entry["bbox"] for entry in entries], dtype=torch.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    boxes[:, 0::2].clamp_(min=0, max=width)
    boxes[:, 1::2].clamp_(min=0, max=height)
    keep = (boxes[:, 3] > boxes[:, 1]) & (boxes[:, 2] > boxes[:, 0])
    labels = torch.tensor([entry["category_id"] for entry in entries])
    masks = np.stack([api.annToMask(entry) for entry in entries])
    return boxes[keep].numpy(), labels[keep].numpy(), masks[keep.numpy()]


def test_cocos_objects_are_those_of_pycocotools_and_torchvision(tmp_path):
    annotations = random_annotations(np.random.default_rng(0), 40)
    annotations[3]["bbox"][2] = 0  # torchvision's references drop it, too
    annotations[4]["bbox"] = [50.25, 30.5, 40, 40]
    runs = {"size": [HEIGHT, WIDTH], "counts": [100, 30, HEIGHT * WIDTH - 130]}
    annotations.append(annotations[0] | {"id": 99, "iscrowd": 1, "segmentation": runs})
    write_coco(tmp_path / "a.json", annotations)
    data = load_all(f"coco:{tmp_path}")
    assert data.classes == ["background", "dog", "cat"] and data.skeleton is None
    source, api = data.held_out.with_parts(masks=True), COCO(tmp_path / "a.json")
    for i, image_id in enumerate((5, 6)):
        _, found = source[i]
        learnt = found.some(~found.crowd)
        boxes, labels, masks = torchvisions_target(api, image_id, WIDTH, HEIGHT)
        np.testing.assert_array_equal(learnt.boxes, boxes)
        np.testing.assert_array_equal(learnt.labels, np.where(labels == 3, 1, 2))
        np.testing.assert_array_equal(learnt.masks, masks)
        assert found.masks.dtype == np.uint8
        areas = [e["area"] for e in api.loadAnns(api.getAnnIds(imgIds=[image_id])) if e["id"] not in (3, 99)]
        np.testing.assert_array_equal(learnt.area, np.float32(areas))
    crowd = np.concatenate([source.objects(i).masks[source.objects(i).crowd] for i in range(2)])
    np.testing.assert_array_equal(crowd, api.annToMask(annotations[-1])[None])
    assert kinds(source) == ["its box is empty"]


def test_parts_that_nobody_wants_are_not_drawn_and_those_that_are_missing_are_said(tmp_path):
    annotations = random_annotations(np.random.default_rng(0), 6)
    annotations[0]["segmentation"], annotations[1]["segmentation"] = [], [[1, 2, 3, 4]]
    annotations[2]["segmentation"] = {"size": [4, 4], "counts": [16]}
    write_coco(tmp_path / "a.json", annotations)
    source = load_all(f"coco:{tmp_path}").held_out
    assert all(source.objects(i).masks is None for i in range(2)) and not source.problems
    assert sum(len(source.objects(i)) for i in range(2)) == 6
    masked = source.with_parts(masks=True)
    assert sum(len(masked.objects(i).masks) for i in range(2)) == 3
    assert kinds(masked) == ["its mask cannot be drawn"] * 3 and not source.problems
    with pytest.raises(UsageError, match="no object has keypoints"):
        source.with_parts(keypoints=True)
    write_coco(tmp_path / "a.json", [entry | {"segmentation": []} for entry in annotations])
    with pytest.raises(UsageError, match="no object has an outline"):
        load_all(f"coco:{tmp_path}").held_out.with_parts(masks=True)


def test_an_image_without_objects_is_background(tmp_path):
    write_coco(tmp_path / "a.json", random_annotations(np.random.default_rng(0), 3, images=(5,)))
    source = load_all(f"coco:{tmp_path}").held_out.with_parts(masks=True)
    _, found = source[1]
    assert len(found) == 0 and found.boxes.shape == (0, 4) and found.masks.shape == (0, HEIGHT, WIDTH)
    counts = count(source, 3)
    assert counts.objects.sum() == 3 and counts.images.tolist()[0] == 1 and not counts.crowds.any()


def people(rng):
    points = np.concatenate([rng.integers(5, 35, (17, 2)), rng.integers(0, 3, (17, 1))], 1)
    return random_annotations(rng, 1, (1,))[0] | {"keypoints": points.ravel().tolist(), "num_keypoints": 17}


def test_keypoints_of_people_are_read_with_their_skeleton(tmp_path):
    rng = np.random.default_rng(0)
    limbs = [[a + 1, b + 1] for a, b in SKELETON]
    for part in ("train", "val"):
        annotations = [people(rng) | {"id": i, "image_id": 5} for i in range(3)]
        del annotations[1]["keypoints"]
        annotations[2]["keypoints"] = annotations[2]["keypoints"][:-1]
        file = tmp_path / "annotations" / f"person_keypoints_{part}2017.json"
        known = {"keypoints": PERSON_KEYPOINTS, "skeleton": limbs}
        write_coco(file, annotations, categories=((1, "person"),), place=f"../{part}2017", **known)
    (tmp_path / "annotations" / "captions_train2017.json").write_text("{}")
    for name in (f"coco:{tmp_path}", f"coco:{tmp_path}/annotations/person_keypoints_*.json"):
        data = load(name, "detection")
        assert (len(data.train), len(data.held_out), data.classes) == (2, 2, ["background", "person"])
        skeleton = data.skeleton
        assert (skeleton.names, skeleton.limbs, skeleton.sigmas) == (PERSON_KEYPOINTS, SKELETON, PERSON_SIGMAS)
        assert data.train.objects(0).keypoints is None
        found = data.held_out.with_parts(keypoints=True).objects(0)
        assert found.keypoints.shape == (2, 17, 3) and found.keypoints.dtype == np.float32
        np.testing.assert_array_equal(found.keypoints[0].ravel(), annotations[0]["keypoints"])
        assert not found.keypoints[1].any()
        assert kinds(data.held_out) == ["its keypoints are not 17 x 3 numbers"]


def test_sigmas_of_peoples_keypoints_are_pycocotools():
    from pycocotools.cocoeval import Params

    np.testing.assert_array_equal(PERSON_SIGMAS, Params(iouType="keypoints").kpt_oks_sigmas)


def test_images_and_annotations_may_lie_anywhere(tmp_path):
    write_coco(tmp_path / "here" / "boxes.json", random_annotations(np.random.default_rng(0), 6), place="../there")
    data = load_all(f"coco:images={tmp_path}/there,annotations={tmp_path}/here/boxes.json")
    assert data.held_out.name(0) == str(tmp_path / "there" / "1.jpg")
    assert load_all(f"coco:annotations={tmp_path}/here/*.json,images={tmp_path}/there").classes == data.classes
    with pytest.raises(UsageError, match=r"there is no folder .*nowhere"):
        load_all(f"coco:images={tmp_path}/nowhere,annotations={tmp_path}/here/boxes.json")
    with pytest.raises(UsageError, match=r"there is no folder .*else\.json"):
        load_all(f"coco:images={tmp_path}/there,annotations={tmp_path}/else.json")


GOOD = {"image_id": 5, "category_id": 3, "bbox": [1, 2, 3, 4], "iscrowd": 0}
BROKEN_COCO = [
    GOOD | {"bbox": [5, 5, 0, 5]},
    GOOD | {"bbox": [5, 5, -3, 5]},
    GOOD | {"bbox": [WIDTH, 5, 5, 5]},
    GOOD | {"bbox": [NAN, 5, 5, 5]},
    GOOD | {"bbox": [5, 5, 5]},
    GOOD | {"category_id": 4},
    {key: value for key, value in GOOD.items() if key != "category_id"},
    {key: value for key, value in GOOD.items() if key != "bbox"},
    GOOD | {"image_id": 77},
    {key: value for key, value in GOOD.items() if key != "image_id"},
    None,
]
BROKEN_COCO = [entry and entry | {"id": 100 + i} for i, entry in enumerate(BROKEN_COCO)]


def test_ten_broken_annotations_of_coco_are_left_out_and_named(tmp_path, capsys):
    good = random_annotations(np.random.default_rng(0), 4)
    crowd = GOOD | {"id": 200, "iscrowd": 1, "bbox": [-4, -4, 20, 20], "area": 0}
    write_coco(tmp_path / "a.json", [*good, *BROKEN_COCO, crowd], names=("1.jpg", "2.jpg", "3.jpg", "4.jpg"))
    content = json.loads((tmp_path / "a.json").read_text())
    content["images"] += [{"id": 70}, "7.jpg"]
    content["images"][3] |= {"width": None}
    (tmp_path / "a.json").write_text(json.dumps(content))
    (tmp_path / "images" / "3.jpg").unlink()
    (tmp_path / "images" / "4.jpg").write_bytes(b"no image")
    source = load_all(f"coco:{tmp_path}").held_out
    sane(source)
    assert [source.name(i)[-5:] for i in range(len(source))] == ["1.jpg", "2.jpg"]
    assert kinds(source) == sorted(
        [
            "its box is empty",
            "its box is reversed",
            "its box is outside of the image",
            "its box is not four numbers",
            "its box is not of finite numbers",
            "its category_id is in no category",
            "its category_id is missing",
            "it has no box",
            "its image_id is that of no image",
            "its image_id is that of no image",
            "it is no dictionary",
            "it has no id or file_name",
            "it has no id or file_name",
            "the image is not there",
            "an image cannot be read",
        ]
    )
    found = source.objects(0)
    assert found.crowd.sum() == 1 and found.boxes[found.crowd].tolist() == [[0, 0, 16, 16]]
    assert found.area[found.crowd] == 256
    assert sum(len(source.objects(i)) for i in range(2)) == 5
    said(source.problems, strict=False)
    printed = capsys.readouterr().out
    assert printed.startswith("left out: 8 objects of 1 image and 7 other entries:\n")
    assert "  1 x annotation 103 of 1.jpg: its box is not of finite numbers (nan, 5, 5, 5)\n" in printed
    with pytest.raises(UsageError, match="left out: 8 objects of 1 image"):
        said(source.problems, strict=True)


def test_an_image_of_another_size_is_refused_and_one_that_lies_on_its_side_stays_as_it_was_annotated(tmp_path):
    write_coco(tmp_path / "a.json", random_annotations(np.random.default_rng(0), 6))
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) // 10
    stored = Image.fromarray(pixels.astype(np.uint8))
    stored.save(tmp_path / "images" / "1.jpg", exif=exif, quality=95)
    paint(tmp_path / "images" / "2.jpg", size=(30, 20))
    source = load_all(f"coco:{tmp_path}").held_out
    image, _ = source[0]
    assert image.size == (WIDTH, HEIGHT) and source.size(0) == (HEIGHT, WIDTH)
    assert np.abs(np.asarray(image)[..., 0].astype(int) - pixels).max() < 9
    with pytest.raises(UsageError, match=r"2\.jpg is 30 x 20 pixels, but its annotations are for 60 x 40"):
        source[1]


# Pascal VOC


def xml(*found, size=(WIDTH, HEIGHT), filename="1.jpg"):
    """An XML file as labelImg writes it, of objects given as (name, box, flags) or as text."""
    entries = [entry if isinstance(entry, str) else voc_object(*entry) for entry in found]
    sides = size and f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"<annotation><filename>{filename}</filename>{sides or ''}{''.join(entries)}</annotation>"


def voc_object(name, box, **flags):
    corners = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=False)
    corners = "".join(f"<{tag}>{value}</{tag}>" for tag, value in corners)
    flags = "".join(f"<{tag}>{value}</{tag}>" for tag, value in flags.items())
    name = f"<name>{name}</name>" if name else ""
    return f"<object>{name}<pose>Left</pose>{flags}<bndbox>{corners}</bndbox></object>"


def write_voc(root, contents, images="JPEGImages", annotations="Annotations", lists=None):
    for name, content in contents.items():
        image_at(root / images / f"{name}.jpg")
        (root / annotations).mkdir(parents=True, exist_ok=True)
        (root / annotations / f"{name}.xml").write_text(content)
    for name, text in (lists or {}).items():
        (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text(text)


FOUR = {
    "a": xml(("cat", (1, 1, WIDTH, HEIGHT))),
    "b": xml(("dog", (11, 6, 20, 16))),
    "c": xml(),
    "d": xml(("cat", (2, 3, 4.5, 5)), ("dog", (5, 5, 5, 5))),
}
FOUND = {"a.jpg": [(0, 0, 60, 40, 1)], "b.jpg": [(10, 5, 20, 16, 2)], "c.jpg": []}
FOUND["d.jpg"] = [(1, 2, 4.5, 5, 1), (4, 4, 5, 5, 2)]


def test_vocs_boxes_begin_at_1_and_hold_their_last_pixel(tmp_path):
    write_voc(tmp_path, FOUR)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    source = load_all(f"voc:{tmp_path}").held_out
    assert boxes_of(source) == FOUND and not source.problems
    sane(source)


@pytest.mark.parametrize("place", ["VOCdevkit/VOC2012", "."])
def test_vocs_lists_say_what_is_held_out(tmp_path, place):
    lists = {"train": "a\nb\n", "val": "c\n", "trainval": "a\nb\nc\n", "cat_train": "a  1\nb -1\n", "cat_val": "c  0\n"}
    write_voc(tmp_path / place, FOUR, lists=lists)
    for known in (tmp_path, tmp_path / place):
        data = load(f"voc:{known}", "detection")
        assert [*boxes_of(data.train)] == ["a.jpg", "b.jpg"] and [*boxes_of(data.held_out)] == ["c.jpg"]
        assert data.classes == list(VOC_CLASSES) and data.train.objects(1).labels.tolist() == [12]


def test_trainval_is_trained_on_where_there_is_no_train_and_one_list_is_divided(tmp_path):
    write_voc(tmp_path, FOUR, lists={"trainval": "a\nb\n", "test": "c\nd\n", "cat_test": "c -1\nd 1\n"})
    data = load(f"voc:{tmp_path}", "detection")
    assert [*boxes_of(data.train)] == ["a.jpg", "b.jpg"] and [*boxes_of(data.held_out)] == ["c.jpg", "d.jpg"]
    for name in ("trainval", "test", "cat_test"):
        (tmp_path / "ImageSets" / "Main" / f"{name}.txt").unlink()
    write_voc(tmp_path, {}, lists={"default": "a\nd.jpg\nb\n"})
    data = load(f"voc:{tmp_path}", "detection")
    assert sorted([*boxes_of(data.train), *boxes_of(data.held_out)]) == ["a.jpg", "b.jpg", "d.jpg"]
    assert (len(data.train), len(data.held_out)) == (2, 1)


def test_xml_files_beside_images_are_read_as_labelimg_and_roboflow_write_them(tmp_path):
    write_voc(tmp_path / "flat", FOUR, images=".", annotations=".")
    (tmp_path / "flat" / "classes.txt").write_text("cat\ndog\n")
    assert boxes_of(load_all(f"voc:{tmp_path}/flat").held_out) == FOUND
    for part in ("train", "valid"):
        write_voc(tmp_path / "parts" / part, FOUR, images=".", annotations=".")
    data = load(f"voc:{tmp_path}/parts", "detection")
    assert boxes_of(data.train).keys() == boxes_of(data.held_out).keys() == FOUND.keys()


def test_vocs_classes_are_those_of_a_file_or_its_20_or_those_that_occur(tmp_path):
    write_voc(tmp_path, FOUR)
    assert load_all(f"voc:{tmp_path}").classes == list(VOC_CLASSES)
    write_voc(tmp_path, {"e": xml(("zebra", (1, 1, 5, 5)))})
    assert load_all(f"voc:{tmp_path}").classes == ["background", "cat", "dog", "zebra"]
    (tmp_path / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ndog:255,0,0::\ncat:::\n"
    )
    data = load_all(f"voc:{tmp_path}")
    assert data.classes == ["background", "dog", "cat"]
    assert kinds(data.held_out) == [f"its class is none of {tmp_path}/labelmap.txt"]


BROKEN_VOC = [
    voc_object("cat", (10, 10, 9, 20)),
    voc_object("cat", (20, 10, 9, 20)),
    voc_object("cat", (61, 10, 70, 20)),
    voc_object("cat", ("nan", 10, 9, 20)),
    voc_object("cat", ("left", 10, 9, 20)),
    voc_object("cat", (1, 2, 3)),
    voc_object("cow", (1, 1, 9, 9)),
    voc_object("", (1, 1, 9, 9)),
    "<object><name>cat</name></object>",
    "<object><name>cat</name><polygon><pt><x>1</x><y>1</y></pt></polygon></object>",
]


def test_ten_broken_annotations_of_voc_are_left_out_and_difficult_objects_are_crowds(tmp_path):
    good = [
        ("cat", (1, 1, 10, 10), {"difficult": 1, "truncated": 0}),
        ("cat", (1, 1, 11, 10), {"truncated": 1, "occluded": 1, "difficult": 0}),
        ("dog", (-9, 1, 200, 10), {"truncated": "Unspecified", "difficult": "Unspecified"}),
    ]
    contents = {"1": xml(*(voc_object(name, box, **flags) for name, box, flags in good), *BROKEN_VOC, size=(0, 0))}
    contents |= {"2": "<annotation><object>", "3": xml(), "4": xml(), "5": xml(("cat", (1, 1, 9, 9)), size=None)}
    write_voc(tmp_path, contents, lists={"default": "1\n2\n3\n4\n5\nnowhere\n"})
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    (tmp_path / "Annotations" / "3.xml").unlink()
    (tmp_path / "JPEGImages" / "4.jpg").unlink()
    source = load_all(f"voc:{tmp_path}").held_out
    sane(source)
    assert boxes_of(source) == {
        "1.jpg": [(0, 0, 10, 10, 1), (0, 0, 11, 10, 1), (0, 0, 60, 10, 2)],
        "5.jpg": [(0, 0, 9, 9, 1)],
    }
    assert source.objects(0).crowd.tolist() == [True, False, False]
    assert kinds(source) == sorted(
        [
            "its box is empty",
            "its box is reversed",
            "its box is outside of the image",
            "its box is not of finite numbers",
            "its box is not of numbers",
            "its box is not of numbers",
            f"its class is none of {tmp_path}/classes.txt",
            "it has no name",
            "it has no box",
            "a polygon needs three corners or more, each a place in the image",
            "its XML file cannot be read",
            "it has no XML file",
            "the image is not there",
            "there is neither image nor XML file",
        ]
    )
    counts = count(source, 3)
    assert (counts.objects.tolist(), counts.crowds.tolist()) == ([0, 2, 1], [0, 1, 0])


def test_polygons_of_labelme_have_masks(tmp_path):
    points = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in ((2, 3), (12, 3), (12, 9), (2, 9)))
    polygon = f"<object><name>roof</name><deleted>0</deleted><polygon>{points}</polygon></object>"
    size = f"<imagesize><nrows>{HEIGHT}</nrows><ncols>{WIDTH}</ncols></imagesize>"
    deleted = polygon.replace("<deleted>0", "<deleted>1")
    write_voc(tmp_path, {"1": f"<annotation>{size}{polygon}{deleted}</annotation>"}, images=".", annotations=".")
    found = load_all(f"voc:{tmp_path}").held_out.with_parts(masks=True).objects(0)
    assert found.boxes.tolist() == [[2, 3, 12, 9]]
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[3:9, 2:12] = 1
    np.testing.assert_array_equal(found.masks, expected[None])


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda root: [file.unlink() for file in (root / "Annotations").iterdir()], "has no XML file"),
        (lambda root: (root / "classes.txt").write_text("background\n"), "has no class of objects"),
        (lambda root: (root / "classes.txt").write_text("cat\ncat\n"), "names 'cat' twice"),
        (lambda root: (root / "ImageSets/Main/val.txt").write_text("\n"), r"val\.txt names no image"),
        (lambda root: root.rename(root.parent / "elsewhere"), "there is no folder"),
    ],
)
def test_what_is_not_vocs_layout_of_boxes_is_refused(tmp_path, break_it, sentence):
    write_voc(tmp_path / "voc", FOUR, lists={"train": "a\nb\n", "val": "c\n"})
    break_it(tmp_path / "voc")
    with pytest.raises(UsageError, match=sentence):
        load(f"voc:{tmp_path}/voc", "detection")


# YOLO


def write_yolo(root, yaml, parts, place="images/{}"):
    """A data set of text files; `parts` are texts of labels by part and name, None for images without a file."""
    for part, labels in parts.items():
        for name, text in labels.items():
            image = root / place.format(part) / f"{name}.jpg"
            image_at(image)
            if text is not None:
                file = root / place.replace("images", "labels").format(part) / f"{name}.txt"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
    if yaml is not None:
        (root / "data.yaml").write_text(yaml)


TWO = {"train": {"a": "0 0.5 0.5 1 1\n1 0.25 0.25 0.1 0.2\n", "b": None}, "val": {"c": "", "d": "1 0.5 0.5 0.5 0.5\n"}}
YAML = "train: images/train\nval: images/val\nnames: [cat, dog]\nnc: 2\n"


def test_yolos_boxes_are_parts_of_the_image_and_classes_begin_after_the_background(tmp_path):
    write_yolo(tmp_path, YAML, TWO)
    for name in (f"yolo:{tmp_path}", f"yolo:{tmp_path}/data.yaml"):
        data = load(name, "detection")
        assert data.classes == ["background", "cat", "dog"] and not data.train.problems
        first, second = boxes_of(data.train)["a.jpg"]
        assert first == (0, 0, WIDTH, HEIGHT, 1)
        np.testing.assert_allclose(second, (0.2 * WIDTH, 0.15 * HEIGHT, 0.3 * WIDTH, 0.35 * HEIGHT, 2), rtol=1e-6)
        assert boxes_of(data.train)["b.jpg"] == [] and boxes_of(data.held_out)["c.jpg"] == []
        assert boxes_of(data.held_out)["d.jpg"] == [(15, 10, 45, 30, 2)]
        sane(data.train)


@pytest.mark.parametrize(
    ("yaml", "place"),
    [
        ("path: ..\ntrain: {0}/images/train\nval: {0}/images/val\nnames:\n  0: cat\n  1: dog\n", "images/{}"),
        ("path: {1}\ntrain: images/train\nval: [images/val]\nnames: [cat, dog]\n", "images/{}"),
        ("train: ../train/images\nval: ../val/images\nnc: 2\nnames: ['cat', 'dog']\n", "{}/images"),
        ("train: train.txt\nval: images/val\ntest:\nnames: [cat, dog]\n", "images/{}"),
        ("train: images/train\ntest: images/val\nnames: [cat, dog]\n", "images/{}"),
    ],
)
def test_a_data_yaml_says_in_several_ways_where_images_are(tmp_path, yaml, place):
    root = tmp_path / "pets"
    write_yolo(root, yaml.format("pets", tmp_path / "pets"), TWO, place)
    (root / "train.txt").write_text("./images/train/a.jpg\n\nimages/train/b.jpg\n")
    data = load(f"yolo:{root}", "detection")
    assert [*boxes_of(data.train)] == ["a.jpg", "b.jpg"] and [*boxes_of(data.held_out)] == ["c.jpg", "d.jpg"]
    assert len(data.train.objects(0)) == 2 and len(data.held_out.objects(1)) == 1


def test_without_val_a_part_is_held_out_and_label_studios_folder_needs_no_yaml(tmp_path, capsys):
    write_yolo(tmp_path / "one", "train: images/train\nval: images/train\nnames: [cat, dog]\n", TWO)
    data = load(f"yolo:{tmp_path}/one", "detection")
    assert (len(data.train), len(data.held_out)) == (1, 1) and "names the same images" in capsys.readouterr().out
    write_yolo(tmp_path / "two", None, TWO)
    (tmp_path / "two" / "classes.txt").write_text("cat\ndog\n")
    data = load_all(f"yolo:{tmp_path}/two")
    assert len(data.held_out) == 4 and data.classes == ["background", "cat", "dog"]


def test_yolos_polygons_have_masks_as_cocos_do(tmp_path):
    corners = np.array([[6, 4], [30, 8], [24, 36], [3, 20]]) / (WIDTH, HEIGHT)
    line = "0 " + " ".join(map(str, corners.ravel())) + "\n"
    write_yolo(tmp_path, YAML, TWO | {"train": {"a": line, "b": "1 0.5 0.5 0.5 0.5\n" + line}})
    source = load(f"yolo:{tmp_path}", "detection").train
    assert len(source.objects(1)) == 2
    masked = source.with_parts(masks=True)
    found = masked.objects(0)
    np.testing.assert_allclose(found.boxes, [[3, 4, 30, 36]], rtol=1e-6)
    api = COCO()
    api.imgs = {1: {"height": HEIGHT, "width": WIDTH}}
    polygon = (corners * (WIDTH, HEIGHT)).ravel().tolist()
    np.testing.assert_array_equal(found.masks[0], api.annToMask({"image_id": 1, "segmentation": [polygon]}))
    assert len(masked.objects(1)) == 1 and kinds(masked) == ["its mask cannot be drawn"]


@pytest.mark.parametrize("each", [2, 3])
def test_yolos_keypoints_are_read_with_or_without_visibility(tmp_path, each):
    points = np.array([[0.1, 0.2, 2], [0.5, 0.5, 1], [0, 0, 0]])
    line = "0 0.5 0.5 1 1 " + " ".join(f"{value:g}" for value in points[:, :each].ravel()) + "\n"
    yaml = f"train: images/train\nval: images/val\nnames: [bird]\nkpt_shape: [3, {each}]\nflip_idx: [1, 0, 2]\n"
    write_yolo(tmp_path, yaml, {"train": {"a": line + "0 0.5 0.5 1 1\n"}, "val": {"b": line}})
    data = load(f"yolo:{tmp_path}", "detection")
    assert (data.skeleton.mirrored, data.skeleton.names) == ((1, 0, 2), ("0", "1", "2"))
    found = data.train.with_parts(keypoints=True).objects(0)
    expected = points * (WIDTH, HEIGHT, 1)
    expected[:, 2] = points[:, 2] if each == 3 else [2, 2, 0]
    np.testing.assert_allclose(found.keypoints, expected[None], rtol=1e-6)
    assert kinds(data.train) == [f"its line has another number of columns than {5 + 3 * each}"]


BROKEN_YOLO = [
    "0 0.5 0.5 0.5 0.5",
    "0 0.5 0.5 0 0.5",
    "0 0.5 0.5 -0.5 0.5",
    "0 1.5 0.5 0.5 0.5",
    "0 320 240 50 50",
    "0 nan 0.5 0.5 0.5",
    "0 inf 0.5 0.5 0.5",
    "2 0.5 0.5 0.5 0.5",
    "-1 0.5 0.5 0.5 0.5",
    "0.5 0.5 0.5 0.5 0.5",
    "cat 0.5 0.5 0.5 0.5",
    "0 0.5 0.5 0.5",
    "0 0.5 0.5 0.5 0.5 0.9",
    "0 0.1 0.1 nan 0.5 0.5 0.1",
    "1 0.1 0.1 0.4 0.4",
]


def test_ten_broken_lines_of_yolo_are_left_out_and_named(tmp_path, capsys):
    write_yolo(tmp_path, YAML, {"train": {"a": "\n".join(BROKEN_YOLO), "b": None, "c": None}, "val": {"d": None}})
    (tmp_path / "images" / "train" / "b.jpg").write_bytes(b"no image")
    (tmp_path / "data.yaml").write_text(YAML.replace("images/train", "train.txt"))
    (tmp_path / "train.txt").write_text("".join(f"images/train/{name}.jpg\n" for name in "abcx"))
    source = load(f"yolo:{tmp_path}", "detection").train
    sane(source)
    assert [*boxes_of(source)] == ["a.jpg", "c.jpg"]
    assert boxes_of(source)["a.jpg"][0] == (15, 10, 45, 30, 1) and len(source.objects(0)) == 2
    assert kinds(source) == sorted(
        [
            "its box is empty",
            "its box is reversed",
            "its box is outside of the image",
            "its box is outside of the image",
            "its box is not of finite numbers",
            "its box is not of finite numbers",
            "its class is not in names",
            "its class is not in names",
            "its class is not in names",
            "its line is not of numbers",
            "its line has another number of columns than 5, or of a polygon 7, 9, 11, …",
            "its line has another number of columns than 5, or of a polygon 7, 9, 11, …",
            "a polygon needs three corners or more, each a place in the image",
            "an image cannot be read",
            "the image is not there",
        ]
    )
    said(source.problems, strict=False)
    assert f"line 2 of {tmp_path}/labels/train/a.txt: its box is empty (30, 10, 30, 30)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("yaml", "sentence"),
    [
        ("train: [", "cannot be read"),
        ("cat", "has no entries such as train"),
        ("train: images/train\n", "needs names"),
        ("train: images/train\nnames: {1: cat, 2: dog}\n", "needs names"),
        ("train: images/train\nnames: {0: cat, one: dog}\n", "needs names"),
        ("train: images/train\nnames: [cat, cat]\n", "names 'cat' twice"),
        ("train: images/train\nnames: [cat]\nnc: 2\n", "has 1 names, but nc is 2"),
        ("names: [cat, dog]\n", "names no images"),
        ("train: images/nowhere\nnames: [cat, dog]\n", "names images/nowhere for train, but there is no"),
        ("train: labels\nnames: [cat, dog]\n", "where there are no images"),
        ("train: images/train\nnames: [cat, dog]\nkpt_shape: [2]\n", "needs kpt_shape"),
        ("train: images/train\nnames: [cat, dog]\nkpt_shape: [2, 3]\nflip_idx: [1, 1]\n", "needs kpt_shape"),
        (None, r"there is no .*data\.yaml"),
    ],
)
def test_what_is_not_yolos_layout_is_refused(tmp_path, yaml, sentence):
    write_yolo(tmp_path, yaml, TWO)
    with pytest.raises(UsageError, match=sentence):
        load(f"yolo:{tmp_path}", "detection")


# Lists


def write_list(root, text, header="path,x1,y1,x2,y2,label"):
    for name in ("1", "2", "3"):
        image_at(root / f"{name}.jpg")
    (root / "boxes.csv").write_text(f"{header}\n{text}")
    return f"list:{root}/boxes.csv"


def test_a_list_has_a_line_for_each_box_and_an_empty_one_for_background(tmp_path):
    text = "1.jpg,1,2,30,39.5,dog\n2.jpg,,,,,\n1.jpg,0,0,5,5,cat\n3.jpg,50,30,70,50,dog\n"
    data = load_all(write_list(tmp_path, text))
    assert data.classes == ["background", "cat", "dog"]
    boxes = {"1.jpg": [(1, 2, 30, 39.5, 2), (0, 0, 5, 5, 1)], "2.jpg": [], "3.jpg": [(50, 30, 60, 40, 2)]}
    assert boxes_of(data.held_out) == boxes
    sane(data.held_out)
    data = load(f"list:{tmp_path}/boxes.csv", "detection")
    assert (len(data.train), len(data.held_out)) == (2, 1)


def test_a_split_of_boxes_is_taken_as_it_is_and_no_image_may_be_on_both_sides(tmp_path):
    header = "split;label;path;x1;y1;x2;y2"
    name = write_list(tmp_path, "train;7;1.jpg;1;2;3;4\nval;10;2.jpg;1;2;3;4\ntrain;7;1.jpg;5;5;9;9\n", header)
    data = load(name, "detection")
    assert data.classes == ["background", "7", "10"]
    assert (len(data.train), len(data.held_out), len(data.train.objects(0))) == (1, 1, 2)
    name = write_list(tmp_path, "train;7;1.jpg;1;2;3;4\nval;10;1.jpg;1;2;3;4\n", header)
    with pytest.raises(UsageError, match=r"has 1\.jpg in train and in what is held out \(lines 2 and 3\)"):
        load(name, "detection")


def test_broken_lines_of_a_list_are_left_out(tmp_path):
    text = (
        "1.jpg,1,2,3,4,cat\n1.jpg,5,2,5,4,cat\n1.jpg,9,2,5,4,cat\n1.jpg,61,2,65,4,cat\n1.jpg,nan,2,65,4,cat\n"
        "1.jpg,one,2,65,4,cat\n1.jpg,,2,65,4,cat\n1.jpg,1,2,3,4,\n1.jpg,1,2,3,4,background\nnowhere.jpg,1,2,3,4,cat\n"
        "1.jpg,1,2\n"
    )
    source = load_all(write_list(tmp_path, text)).held_out
    sane(source)
    assert boxes_of(source) == {"1.jpg": [(1, 2, 3, 4, 1)]}
    assert kinds(source) == sorted(
        [
            "its box is empty",
            "its box is reversed",
            "its box is outside of the image",
            "its box is not of finite numbers",
            "its box is not of numbers",
            "its box is not of numbers",
            "it has no label",
            "it has no label",
            "its label is the background",
            "the image is not there",
        ]
    )
    with pytest.raises(UsageError, match=r"columns path,x1,y1,x2,y2,label\[,split\]; it begins with: path,label"):
        load_all(write_list(tmp_path, "1.jpg,cat\n", "path,label"))
    with pytest.raises(UsageError, match=r"no object that can be used: nowhere\.jpg: the image is not there"):
        load_all(write_list(tmp_path, "nowhere.jpg,1,2,3,4,cat\n"))


# tensorflow-datasets


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Two prepared data sets: one as voc and coco are, and one as wider_face is."""
    import tensorflow_datasets as tfds

    file = io.BytesIO()
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(file, "JPEG")
    image, box = file.getvalue(), tfds.features.BBox
    label = tfds.features.ClassLabel(names=["cat", "dog"])

    class JaxzooPets(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = code_path = None

        def _info(self):
            objects = {"bbox": tfds.features.BBoxFeature(), "label": label, "is_difficult": np.bool_, "area": np.int64}
            features = {"image": tfds.features.Image(), "objects": tfds.features.Sequence(objects)}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {part: self._generate_examples() for part in ("train", "validation")}

        def _generate_examples(self):
            first = {"bbox": box(0.1, 0.2, 0.5, 0.6), "label": "dog", "is_difficult": False, "area": 7}
            second = {"bbox": box(0.25, 0.25, 0.5, 1.0), "label": -1, "is_difficult": False, "area": 0}
            third = {"bbox": box(0.0, 0.0, 1.0, 1.0), "label": "cat", "is_difficult": True, "area": 0}
            fourth = {"bbox": box(0.25, 0.25, 0.25, 1.0), "label": "cat", "is_difficult": False, "area": 0}
            yield 0, {"image": image, "objects": [first, second, third, fourth]}
            yield 1, {"image": image, "objects": []}

    class JaxzooFaces(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = code_path = None

        def _info(self):
            faces = {"bbox": tfds.features.BBoxFeature(), "blur": np.uint8, "invalid": np.bool_}
            features = {"image": tfds.features.Image(), "faces": tfds.features.Sequence(faces)}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(5):
                face = {"bbox": box(0.1, 0.2, 0.5, 0.6), "blur": 1, "invalid": i == 0}
                yield i, {"image": image, "faces": [face]}

    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("tfds")
        patch.setattr(tfds.core.constants, "DATA_DIR", str(place))
        patch.setenv("TFDS_DATA_DIR", str(place))
        yield JaxzooPets, JaxzooFaces


def test_boxes_of_tensorflow_datasets_are_read_and_split(prepared):
    data = load("tfds:jaxzoo_pets", "detection")
    assert (len(data.train), len(data.held_out), data.classes) == (2, 2, ["background", "cat", "dog"])
    source = data.train
    sane(source)
    full = next(i for i in range(2) if len(source.objects(i)))
    found = source.objects(full)
    np.testing.assert_allclose(found.boxes, [[12, 4, 36, 20], [0, 0, WIDTH, HEIGHT]], rtol=1e-6)
    assert (found.labels.tolist(), found.crowd.tolist(), found.area.tolist()) == ([2, 1], [False, True], [7, 2400])
    assert len(source.objects(1 - full)) == 0 and kinds(source) == ["its box is empty", "its label is no class"]


def test_a_data_set_of_one_kind_of_object_has_one_class(prepared):
    data = load("tfds:jaxzoo_faces", "detection")
    assert (len(data.train), len(data.held_out), data.classes) == (4, 1, ["background", "face"])
    crowds = [source.objects(i).crowd.tolist() for source in (data.train, data.held_out) for i in range(len(source))]
    assert sorted(crowds) == [[False]] * 4 + [[True]]
    with pytest.raises(UsageError, match="detection needs an image, and objects with a bbox"):
        load("tfds:mnist", "detection")


# What all have in common


HUGE = 10**400  # which is no float
WEIRD = [None, -1, HUGE, NAN, float("inf"), "", "abc", [], {}, [[]], [None] * 4, {"size": 3}, True, "\ud800"]


@pytest.mark.parametrize("seed", range(4))
def test_whatever_an_annotation_file_holds_is_read_or_refused(tmp_path, seed):
    rng = np.random.default_rng(seed)
    annotations = [*random_annotations(rng, 3, images=(5,)), people(rng) | {"id": 9, "image_id": 5}]
    categories = ((3, "dog"), (7, "cat"), (1, "person"))
    file, known = tmp_path / "a.json", {"keypoints": PERSON_KEYPOINTS, "skeleton": [[1, 2]]}
    write_coco(file, annotations, categories=categories, **known)
    content = file.read_text()

    def places(value, path=()):
        """Paths to everything in nested lists and dictionaries."""
        yield path
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if type(value) is list else ():
            yield from places(inner, (*path, key))

    every = [path for path in places(json.loads(content)) if path]
    read = 0
    for _ in range(60):
        changed = inner = json.loads(content)
        *above, key = every[rng.integers(len(every))]
        for step in above:
            inner = inner[step]
        inner[key] = WEIRD[rng.integers(len(WEIRD))]
        file.write_text(json.dumps(changed))
        with contextlib.suppress(UsageError):
            source = load_all(f"coco:{tmp_path}").held_out
            sane(source)
            for parts in ({"masks": True}, {"keypoints": True}):
                with contextlib.suppress(UsageError):
                    sane(source.with_parts(**parts))
            read += 1
    assert read > 30


def test_data_without_any_object_is_refused_with_the_first_problem(tmp_path):
    write_coco(tmp_path / "a.json", random_annotations(np.random.default_rng(0), 2))
    write_yolo(tmp_path, YAML, {"train": {"a": None, "b": None}, "val": {"c": None}})
    with pytest.raises(UsageError, match=r"data\.yaml has no object that can be used$"):
        load(f"yolo:{tmp_path}", "detection")
    write_yolo(tmp_path, YAML, {"train": {"a": "0 0.5 0.5 0 0"}})
    with pytest.raises(UsageError, match=r"no object that can be used: line 1 of .*a\.txt: its box is empty \(30"):
        load(f"yolo:{tmp_path}", "detection")


def test_problems_are_said_once_each_kind_in_few_lines(capsys):
    problems = [Problem(f"object {i} of {i % 7}.jpg", f"its box is odd ({i})", f"{i % 7}.jpg") for i in range(12)]
    problems += [Problem(f"{i}.jpg", "the image is not there") for i in range(30)]
    problems += [Problem("x", f"kind {i}", "x.jpg") for i in range(40)]
    said(problems, strict=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "left out: 52 objects of 8 images and 30 other entries:"
    assert lines[1:3] == ["  30 x 0.jpg: the image is not there", "  12 x object 0 of 0.jpg: its box is odd (0)"]
    assert len(lines) == 20 and lines[-1] == "  24 of 24 other kinds"
    said([], strict=True)
    assert not capsys.readouterr().out
    with pytest.raises(UsageError, match=r"left out: 1 entry:\n  1 x 3\.jpg: it is gone\nwithout --strict-data"):
        said([Problem("3.jpg", "it is gone")], strict=True)


def test_relabelled_objects_keep_all_but_their_labels(tmp_path):
    annotations = random_annotations(np.random.default_rng(0), 8)
    write_coco(tmp_path / "a.json", [*annotations, annotations[0] | {"bbox": [1, 1, 0, 0]}])
    data = load_all(f"coco:{tmp_path}")
    moved = relabelled(data, ["background", "N/A", "cat", "dog"], "data", "weights", evaluated=True)
    source, known = moved.held_out.with_parts(masks=True), data.held_out.with_parts(masks=True)
    for i in range(2):
        for found in (source[i][1], source.objects(i)):
            expected = known.objects(i)
            np.testing.assert_array_equal(found.labels, np.where(expected.labels == 1, 3, 2))
            assert found.labels.dtype == np.int32
            np.testing.assert_array_equal(found.boxes, expected.boxes)
            np.testing.assert_array_equal(found.masks, expected.masks)
        assert source.size(i) == known.size(i) and source.name(i) == known.name(i)
    assert source.problems == known.problems and len(source.problems) == 1


def test_the_part_of_a_set_that_is_held_out_depends_on_names_alone(tmp_path):
    names = [f"{i}.jpg" for i in range(10)]
    for place in ("here", "there"):
        annotations = random_annotations(np.random.default_rng(0), 30, images=range(5, 15))
        write_coco(tmp_path / place / "a.json", [*annotations, annotations[0] | {"bbox": [1, 1, 0, 0]}], names=names)
    held_out = [[*boxes_of(load(f"coco:{tmp_path}/{place}", "detection").held_out)] for place in ("here", "there")]
    assert held_out[0] == held_out[1] and len(held_out[0]) == 2
    data = load(f"coco:{tmp_path}/here", "detection")
    assert len(data.train.problems) + len(data.held_out.problems) == 1


def test_sizes_and_places_are_drawn_also_of_no_objects_and_of_crowds_alone(tmp_path):
    annotations = random_annotations(np.random.default_rng(0), 60)
    for chosen, part in ((annotations, "held_out"), ([annotations[0] | {"iscrowd": 1}], "held_out"), ([], "train")):
        write_coco(tmp_path / "a.json", chosen or annotations)
        source = getattr(load_all(f"coco:{tmp_path}"), part)
        assert bool(len(source)) == bool(chosen)
        draw_sizes(source, tmp_path / "boxes.png")
        with Image.open(tmp_path / "boxes.png") as picture:
            assert picture.width > 2 * picture.height and len(picture.convert("RGB").getcolors(100_000)) > 20
        (tmp_path / "boxes.png").unlink()


def coco_with_faults(root):
    names = [f"{i}.jpg" for i in range(12)]
    annotations = random_annotations(np.random.default_rng(0), 20, images=range(5, 17))
    write_coco(root / "a.json", [*annotations, *BROKEN_COCO, GOOD | {"iscrowd": 1}], names=names)


def voc_with_faults(root):
    flags = [dict.fromkeys(("difficult", "truncated", "occluded"), i % 2) for i in range(11)]
    contents = {str(i): xml(voc_object("cat", (i + 1, 2, 40, 30), **flag)) for i, flag in enumerate(flags)}
    write_voc(root, contents | {"11": xml(*BROKEN_VOC, voc_object("dog", (1, 1, 30, 30)))})
    (root / "classes.txt").write_text("cat\ndog\n")


def yolo_with_faults(root):
    labels = {str(i): f"{i % 2} 0.5 0.5 0.3 0.{i + 2}\n" for i in range(8)}
    train = labels | {"8": "\n".join(BROKEN_YOLO), "9": None}
    write_yolo(root, YAML, {"train": train, "val": {name: labels[name] for name in "12"}})


@pytest.mark.parametrize(
    ("name", "write", "summary"),
    [
        ("coco", coco_with_faults, "left out: 8 objects of 1 image and 3 other entries:"),
        ("voc", voc_with_faults, "left out: 10 objects of 1 image:"),
        ("yolo", yolo_with_faults, "left out: 13 objects of 1 image:"),
    ],
)
def test_data_with_ten_faults_is_learnt_from_and_what_is_left_out_is_said(tmp_path, name, write, summary):
    write(tmp_path / name)
    options = ("--model=boxes", f"--data={name}:{tmp_path / name}", "--image-size=48", "--batch-size=4", "--epochs=2")
    printed = train(*options, "--out", tmp_path / "run")
    assert printed.count(summary) == 1 and "its box is reversed" in printed
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 and all(np.isfinite(float(row["train_loss"])) for row in rows)
    refused = train(*options, "--out", tmp_path / "other", "--strict-data", code=2)
    assert summary in refused and "without --strict-data" in refused and not (tmp_path / "other").exists()
