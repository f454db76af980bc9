"""Where images come from, and how they become batches."""

import io

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from jaxzoo import UsageError
from train.data import digits, folder, load, stratified_split
from train.data.batches import EvaluationBatches, TrainingBatches, read_ahead


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
        (lambda pets: paint(pets / "val" / "emu" / "1.png") or (pets / "train").mkdir(), "for each class"),
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
                assert image.getpixel((0, 0)) == (40_000 // 256,) * 3
    assert sizes.pop("rotated") == (10, 12)
    assert set(sizes.values()) == {(12, 10)}


def test_a_damaged_image_is_named_when_its_turn_comes(pets):
    whole = (pets / "cat" / "3.png").read_bytes()
    (pets / "cat" / "3.png").write_bytes(whole[: len(whole) // 2])
    data = folder.load(pets, val_fraction=0.2, seed=0)
    batches = TrainingBatches(data.train, lambda item, rng: {"label": np.int32(item[1])}, 4, seed=0)
    with pytest.raises(UsageError, match=r"cat/3\.png"):
        list(read_ahead(batches, 0, 10, workers=2))


# tensorflow-datasets


def test_a_prepared_tfds_data_set_is_read_without_tensorflow(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds  # slow to import

    class JaxzooSquares(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = code_path = None  # a class of this test, not of a package

        def _info(self):
            label = tfds.features.ClassLabel(names=["dark", "light"])
            features = {"image": tfds.features.Image(shape=(None, None, 3)), "label": label}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {"train": self._generate_examples(20), "test": self._generate_examples(6)}

        def _generate_examples(self, count):
            for i in range(count):
                file = io.BytesIO()
                Image.new("RGB", (12, 10), (200 * (i % 2),) * 3).save(file, "PNG")
                yield i, {"image": file.getvalue(), "label": i % 2}

    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(UsageError, match=r"not prepared.*download_and_prepare"):
        load("tfds:jaxzoo_squares")
    JaxzooSquares(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    data = load("tfds:jaxzoo_squares")
    assert (len(data.train), len(data.held_out), data.classes) == (20, 6, ["dark", "light"])
    for source in (data.train, data.held_out):
        for image, label in (source[i] for i in range(len(source))):
            assert image.getpixel((0, 0)) == (200 * label,) * 3


@pytest.mark.parametrize("name", ["digit", "folder:", "tfds", "tfds:no_such_data_set", "/tmp", ""])
def test_an_unknown_data_set_is_refused(name):
    with pytest.raises(UsageError, match=r"unknown data|knows no data set"):
        load(name)


# Batches


class Numbers:
    """A source whose items are their own indices."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return index


def noisy(item, rng):
    return {"index": np.int64(item), "noise": rng.random(3)}


def stream(workers, start=0, stop=9, seed=5):
    return list(read_ahead(TrainingBatches(Numbers(23), noisy, 5, seed), start, stop, workers=workers))


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_batches_do_not_depend_on_the_number_of_workers(workers):
    assert_same(stream(workers), [TrainingBatches(Numbers(23), noisy, 5, 5)(i) for i in range(9)])


@pytest.mark.parametrize("start", [1, 4, 6])
def test_a_stream_continues_at_any_batch(start):
    assert_same(stream(2, start), stream(2)[start:])


def test_an_epoch_shows_no_image_twice_and_the_next_one_has_another_order_and_other_noise():
    batches = stream(1)
    first, second = (np.concatenate([b["index"] for b in batches[i : i + 4]]) for i in (0, 4))
    assert len(set(first)) == len(set(second)) == 20
    assert list(first) != list(second)
    noise = {index: set() for index in range(23)}
    for batch in batches[:8]:
        for index, values in zip(batch["index"], batch["noise"], strict=True):
            noise[int(index)].add(tuple(values))
    assert max(map(len, noise.values())) == 2


def test_another_seed_gives_another_order():
    assert list(stream(1)[0]["index"]) != list(stream(1, seed=6)[0]["index"])


def test_evaluation_sees_every_example_once_and_masks_the_filling():
    batches = EvaluationBatches(Numbers(23), lambda item: {"index": np.int64(item)}, 5)
    seen = [b["index"][b["mask"]] for b in read_ahead(batches, 0, len(batches), workers=2)]
    np.testing.assert_array_equal(np.concatenate(seen), np.arange(23))
    assert all(len(batches(i)["mask"]) == 5 for i in range(len(batches)))


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(UsageError, match="--batch-size 24 is more than the 23 training images"):
        TrainingBatches(Numbers(23), noisy, 24, seed=0)
