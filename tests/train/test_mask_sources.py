"""Images with masks from VOC's layout, from pairs of folders, from COCO's annotations and from tensorflow-datasets."""

import contextlib
import io
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as reference

from jaxzoo import UsageError
from jaxzoo.voc import VOC_CLASSES, colored
from tests.train.test_data import damage, paint
from train.data import load, masks
from train.data.outlines import drawn_outline
from train.data.sources import coco, pairs, voc

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pycocotools")


def write_mask(path, values, mode="P"):
    path.parent.mkdir(parents=True, exist_ok=True)
    (colored(values) if mode == "P" else Image.fromarray(values)).save(path)


def squares(height, width, value):
    """A mask with a square of a class, and its border ignored."""
    mask = np.zeros((height, width), np.uint8)
    mask[1:7, 2:8] = 255
    mask[2:6, 3:7] = value
    return mask


def jpeg(values):
    file = io.BytesIO()
    Image.fromarray(values).save(file, "JPEG", quality=80)
    return file.getvalue()


# Pascal VOC


@pytest.fixture
def devkit(tmp_path):
    """VOC2012 with three images to train on and one held out, of different sizes."""
    root = tmp_path / "VOCdevkit" / "VOC2012"
    sizes = {"a": (12, 10), "b": (20, 9), "c": (15, 15), "d": (40, 33)}
    for value, (name, (width, height)) in enumerate(sizes.items(), 1):
        paint(root / "JPEGImages" / f"{name}.jpg", size=(width, height))
        write_mask(root / "SegmentationClass" / f"{name}.png", squares(height, width, value))
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nb\nc\n")
    (lists / "val.txt").write_text("d\n\n")
    return root


def test_vocs_layout_is_read_with_its_lists_palettes_and_borders(devkit):
    for place in (devkit, devkit.parent, devkit.parent.parent):
        data = load(f"voc:{place}", "segmentation")
        assert (len(data.train), len(data.held_out), data.classes) == (3, 1, list(VOC_CLASSES))
    image, mask = data.train[1]
    assert (image.mode, image.size, mask.dtype) == ("RGB", (20, 9), np.uint8)
    np.testing.assert_array_equal(mask, squares(9, 20, 2))
    assert data.held_out.name(0) == str(devkit / "JPEGImages" / "d.jpg")
    assert data.held_out.size(0) == (33, 40)
    assert [canvas.size for part in (data.held_out, data.train) for canvas in masks.canvases(part)] == [
        (64, 64),
        (32, 32),
    ]


def test_a_file_beside_vocs_folders_names_other_classes(devkit):
    (devkit / "classes.txt").write_text("ground\nroof\nroad\n")
    data = voc.load(devkit)
    assert data.classes == ["ground", "roof", "road"]
    assert data.train[0][1].max() == 255
    with pytest.raises(UsageError, match=r"c\.png holds the value 3, but there are 3 classes: 0 to 2, and 255"):
        data.train[2]


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda root: (root / "SegmentationClass" / "b.png").unlink(), r"b\.jpg has no mask"),
        (lambda root: (root / "JPEGImages" / "b.jpg").unlink(), r"train\.txt names b, but there is no"),
        (lambda root: (root / "ImageSets/Segmentation/val.txt").write_text("\n"), "names no image"),
        (lambda root: (root / "JPEGImages").rename(root / "images"), "not laid out as Pascal VOC"),
        (lambda root: root.rename(root.parent.parent / "elsewhere"), "there is no folder"),
        (lambda root: (root / "classes.txt").write_text("cat\ncat\n"), "names 'cat' twice"),
        (lambda root: (root / "classes.txt").write_text("cat\n"), "has 1 class names"),
    ],
)
def test_what_is_not_vocs_layout_is_refused_in_one_sentence(devkit, break_it, sentence):
    break_it(devkit)
    with pytest.raises(UsageError, match=sentence):
        voc.load(devkit)


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda path: write_mask(path, squares(9, 11, 1)), r"a\.png is 11 x 9 pixels, its image .*a\.jpg 12 x 10"),
        (lambda path: write_mask(path, squares(10, 12, 21)), r"a\.png holds the value 21, but there are 21 classes"),
        (lambda path: paint(path), r"a\.png is an RGB image with a colour of no class, \(200, 30, 30\); a mask holds"),
        (
            lambda path: path.with_suffix(".png").write_bytes(jpeg(squares(10, 12, 1))),
            r"a\.png is a JPEG image, whose compr",
        ),
        (lambda path: damage(path), r"a\.png cannot be read as a mask"),
        (lambda path: path.unlink(), r"there is no mask at .*a\.png"),
        (lambda path: Image.fromarray(np.full((10, 12), 300, np.uint16)).save(path), "holds the value 300"),
    ],
)
def test_a_mask_that_does_not_fit_is_named(devkit, write, sentence):
    data = voc.load(devkit)
    write(devkit / "SegmentationClass" / "a.png")
    with pytest.raises(UsageError, match=sentence):
        data.train[0]
    data.train[1]


def test_masks_of_one_channel_and_sixteen_bits_are_read_as_they_are(tmp_path):
    for mode, values in (("L", np.uint8), ("I;16", np.uint16), ("1", bool)):
        Image.fromarray(
            squares(9, 9, 1).astype(values) % 2 == 1 if mode == "1" else squares(9, 9, 1).astype(values)
        ).save(tmp_path / "mask.png")
        expected = squares(9, 9, 1) % 2 if mode == "1" else squares(9, 9, 1)
        np.testing.assert_array_equal(masks.read_mask(tmp_path / "mask.png"), expected)


def test_the_size_of_an_image_is_that_of_the_image_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    paint(tmp_path / "a.jpg", size=(12, 10), exif=exif)
    assert masks.image_size(tmp_path / "a.jpg") == (12, 10)


# Pairs of folders


@pytest.fixture
def street(tmp_path):
    for i in range(10):
        paint(tmp_path / "images" / "old" / f"{i}.jpg", size=(12, 10))
        write_mask(tmp_path / "masks" / "old" / f"{i}.png", squares(10, 12, 1 + i % 3), mode="L")
    return tmp_path


def test_pairs_are_split_by_fraction_seed_and_name(street, capsys):
    data = load(f"pairs:{street}", "segmentation", seed=1)
    assert (len(data.train), len(data.held_out)) == (8, 2)
    held_out = {data.held_out.name(i) for i in range(2)}
    paint(street / "images" / "new.png", size=(12, 10))
    write_mask(street / "masks" / "new.png", squares(10, 12, 1))
    again = load(f"pairs:{street}", "segmentation", seed=1)
    assert len(held_out - {again.held_out.name(i) for i in range(len(again.held_out))}) <= 1
    image, mask = data.train[0]
    assert image.size == (12, 10) and mask[3, 4] in (1, 2, 3)


def test_without_names_the_classes_are_the_numbers_in_the_masks_and_that_is_said(street, capsys):
    assert load(f"pairs:{street}", "segmentation").classes == ["0", "1", "2", "3"]
    assert "has no classes.txt: its classes are the numbers 0 to 3" in capsys.readouterr().out
    (street / "classes.txt").write_text("ground\nroof\n\nroad\nwater\n")
    assert load(f"pairs:{street}", "segmentation").classes == ["ground", "roof", "road", "water"]
    assert not capsys.readouterr().out


def test_folders_named_train_and_val_are_taken_as_they_are(tmp_path):
    for side, count in (("train", 3), ("val", 2)):
        for i in range(count):
            paint(tmp_path / side / "images" / f"{i}.png")
            write_mask(tmp_path / side / "masks" / f"{i}.png", squares(10, 12, 1))
    data = load(f"pairs:{tmp_path}", "segmentation")
    assert (len(data.train), len(data.held_out), data.classes) == (3, 2, ["0", "1"])


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda root: (root / "masks/old/3.png").unlink(), r"the image .*old/3\.jpg has no mask .*masks/old/3"),
        (lambda root: (root / "images/old/3.jpg").unlink(), r"the mask .*old/3\.png has no image"),
        (lambda root: (root / "masks").rename(root / "labels"), "needs the folders images/ and masks/"),
        (lambda root: paint(root / "images/old/3.png"), "differ only in their endings"),
        (lambda root: paint(root / "masks/old/3.png"), r"3\.png is an RGB image.*all masks are read"),
        (lambda root: (root / "classes.txt").write_bytes(b"\xff\xfe\x00\xd8"), "cannot be read as text"),
    ],
)
def test_impossible_pairs_are_refused_in_one_sentence(street, break_it, sentence):
    break_it(street)
    with pytest.raises(UsageError, match=sentence):
        pairs.load(street, val_fraction=0.2, seed=0)


def test_masks_of_0_and_255_alone_are_refused_with_advice(tmp_path):
    for i in range(3):
        paint(tmp_path / "images" / f"{i}.png")
        write_mask(tmp_path / "masks" / f"{i}.png", squares(10, 12, 255))
    with pytest.raises(UsageError, match=r"no class but 0 .*number the classes"):
        pairs.load(tmp_path, val_fraction=0.2, seed=0)


def test_pixels_of_classes_are_counted(street):
    found = masks.count(pairs.load(street, val_fraction=0.2, seed=0).train, 4)
    assert found.pixels.sum() + found.ignored == 8 * 120
    assert found.images[0] == 8 and (found.pixels[1:] == 16 * found.images[1:]).all()


# COCO


def write_coco(root, annotations, size=(40, 60), part="train", categories=((7, "cat"), (3, "dog"))):
    height, width = size
    paint(root / f"{part}2017" / "1.jpg", size=(width, height))
    content = {
        "images": [{"id": 5, "file_name": "1.jpg", "height": height, "width": width}],
        "categories": [{"id": number, "name": name} for number, name in categories],
        "annotations": [{"id": i, "image_id": 5, **annotation} for i, annotation in enumerate(annotations)],
    }
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{part}2017.json").write_text(json.dumps(content))


def box(left, top, right, bottom):
    return [[left, top, right, top, right, bottom, left, bottom]]


def test_cocos_instances_become_masks_small_ones_on_top_and_crowds_ignored(tmp_path):
    crowd = np.zeros((40, 60), bool)
    crowd[:, 40:] = True
    annotations = [
        {"category_id": 3, "area": 100, "iscrowd": 0, "segmentation": box(10, 10, 20, 20)},
        {"category_id": 7, "area": 1000, "iscrowd": 0, "segmentation": box(5, 5, 50, 30)},
        {"category_id": 7, "area": 800, "iscrowd": 1, "segmentation": {"size": [40, 60], "counts": lengths_of(crowd)}},
    ]
    for part in ("train", "val"):
        write_coco(tmp_path, annotations, part=part)
    data = load(f"coco:{tmp_path}", "segmentation")
    assert data.classes == ["background", "dog", "cat"]
    image, mask = data.train[0]
    expected = np.zeros((40, 60), np.uint8)
    expected[:, 40:], expected[5:30, 5:50], expected[10:20, 10:20] = 255, 2, 1
    np.testing.assert_array_equal(mask, expected)
    assert image.size == (60, 40) and data.held_out.size(0) == (40, 60)


def test_run_lengths_compressed_or_not_give_the_mask_they_were_made_of():
    rng = np.random.default_rng(0)
    for size in ((1, 1), (7, 5), (61, 83), (300, 211)):
        for density in (0.0, 0.02, 0.5, 1.0):
            inside = rng.random(size) < density
            encoded = reference.encode(np.asfortranarray(inside.astype(np.uint8)))
            for counts in (encoded["counts"], encoded["counts"].decode(), lengths_of(inside)):
                np.testing.assert_array_equal(drawn_outline({"size": list(size), "counts": counts}, size), inside)


def lengths_of(inside):
    """Lengths of runs without and with the object in turn, down one column after the other."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], inside.T.ravel(), [0]])))
    return np.diff(np.concatenate([[0], edges, [inside.size]])).tolist()


def test_a_polygon_covers_a_square_whole_and_several_what_any_of_them_covers():
    squares = ([1, 2, 5, 2, 5, 4, 1, 4], [0, 0, 2, 0, 2, 3, 0, 3.0])
    expected = np.zeros((2, 6, 7), bool)
    expected[0, 2:4, 1:5] = expected[1, :3, :2] = True
    np.testing.assert_array_equal(drawn_outline([squares[0]], (6, 7)), expected[0])
    np.testing.assert_array_equal(drawn_outline(squares[0], (6, 7)), expected[0])
    np.testing.assert_array_equal(drawn_outline(list(squares), (6, 7)), expected.any(0))


@pytest.mark.parametrize("corners", [[1, 2, 5, 2], [1, 2, 5, 2, 5, np.nan], [1, 2, 5, 2, 5, 1e9]])
def test_a_polygon_that_would_take_all_memory_is_refused(corners):
    with pytest.raises(ValueError, match="three corners"):
        drawn_outline([[0, 0, 1, 0, 1, 1], corners], (6, 7))


def test_damaged_run_lengths_are_refused_or_read_and_never_crash():
    rng = np.random.default_rng(0)
    for _ in range(500):
        size = tuple(rng.integers(1, 60, 2).tolist())
        text = rng.integers(48, 112, rng.integers(0, 30)).astype(np.uint8).tobytes()
        with contextlib.suppress(ValueError):
            assert drawn_outline({"size": size, "counts": text}, size).shape == size


@pytest.mark.parametrize(
    ("annotation", "sentence"),
    [
        ({"category_id": 9, "segmentation": box(1, 1, 5, 5)}, r"annotation 0 of .*1\.jpg .*KeyError: '9'"),
        ({"category_id": 3, "segmentation": {"size": [4, 4], "counts": [16]}}, "run lengths for"),
        ({"category_id": 3, "segmentation": {"size": [40, 60], "counts": [16]}}, "run lengths of 16 pixels"),
        ({"category_id": 3, "segmentation": {"size": [40, 60], "counts": "P"}}, "end within a number"),
        ({"category_id": 3, "segmentation": [[1, 2, 3, 4]]}, "three corners"),
    ],
)
def test_an_annotation_that_cannot_be_drawn_is_named(tmp_path, annotation, sentence):
    for part in ("train", "val"):
        write_coco(tmp_path, [annotation], part=part)
    with pytest.raises(UsageError, match=sentence):
        coco.load(tmp_path).train[0]


def test_what_is_not_cocos_layout_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(UsageError, match=r"there is no .*instances_train\*\.json"):
        coco.load(tmp_path)
    write_coco(tmp_path, [])
    write_coco(tmp_path, [], part="val", categories=((7, "cow"),))
    with pytest.raises(UsageError, match="different categories"):
        coco.load(tmp_path)
    write_coco(tmp_path, [], part="val")
    paint(tmp_path / "train2017" / "1.jpg", size=(9, 9))
    with pytest.raises(UsageError, match="is 9 x 9 pixels, but 60 x 40 in"):
        coco.load(tmp_path).train[0]
    (tmp_path / "val2017").rename(tmp_path / "held_out")
    with pytest.raises(UsageError, match=r"1\.jpg, which .* names, is not in"):
        coco.load(tmp_path)
    (tmp_path / "annotations" / "instances_train2017.json").write_text("[]")
    with pytest.raises(UsageError, match="is not an annotation file of COCO"):
        coco.load(tmp_path)


# tensorflow-datasets


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    """A prepared data set of 10 images with masks, of classes 0 to 2."""
    import tensorflow_datasets as tfds

    def encoded(values):
        file = io.BytesIO()
        Image.fromarray(values).save(file, "PNG")
        return file.getvalue()

    class JaxzooPatches(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = code_path = None

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "segmentation_mask": tfds.features.Image(shape=(None, None, 1)),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {"train": self._generate_examples(10)}

        def _generate_examples(self, count):
            for i in range(count):
                image = encoded(np.zeros((10, 12, 3), np.uint8))
                yield i, {"image": image, "segmentation_mask": encoded(squares(10, 12, 1 + i % 2))}

    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("tfds")
        patch.setattr(tfds.core.constants, "DATA_DIR", str(place))
        patch.setenv("TFDS_DATA_DIR", str(place))
        yield JaxzooPatches


def test_masks_of_tensorflow_datasets_are_read_and_split(patches, capsys):
    data = load("tfds:jaxzoo_patches", "segmentation")
    assert (len(data.train), len(data.held_out), data.classes) == (8, 2, ["0", "1", "2"])
    assert "they are the numbers 0 to 2" in capsys.readouterr().out
    image, mask = data.train[0]
    assert image.size == (12, 10) and mask.shape == (10, 12) and {0, 255} < set(np.unique(mask).tolist())
    assert data.held_out.size(1) == (10, 12)
