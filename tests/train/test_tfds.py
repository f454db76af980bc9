"""Data sets of tensorflow-datasets, without TensorFlow."""

import io

import pytest
from PIL import Image

from jaxzoo import UsageError
from train.data import load


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """A data set of 20 dark and light squares to train on and 6 to test, which nobody has prepared yet."""
    import tensorflow_datasets as tfds  # slow to import

    class JaxzooSquares(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = code_path = None  # a class of this test, not of a package

        def _info(self):
            label = tfds.features.ClassLabel(names=["dark", "light"])
            features = {"image": tfds.features.Image(shape=(None, None, 3)), "label": label}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            if not self.online:
                raise ConnectionError("no route to host")
            return {"train": self._generate_examples(20), "test": self._generate_examples(6)}

        def _generate_examples(self, count):
            for i in range(count):
                file = io.BytesIO()
                Image.new("RGB", (12, 10), (200 * (i % 2),) * 3).save(file, "PNG")
                yield i, {"image": file.getvalue() if i != 13 else b"nothing", "label": i % 2}

    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("tfds")
        patch.setattr(tfds.core.constants, "DATA_DIR", str(place))
        patch.setenv("TFDS_DATA_DIR", str(place))
        JaxzooSquares.online = False
        yield JaxzooSquares


@pytest.fixture
def prepared(squares):
    squares.online = True
    load("tfds:jaxzoo_squares")
    return squares


def test_without_a_network_the_error_says_what_prepares_the_data_set_and_where(squares):
    with pytest.raises(UsageError) as error:
        load("tfds:jaxzoo_squares")
    said = str(error.value)
    assert "cannot be prepared here (no route to host)" in said
    assert "tfds.builder('jaxzoo_squares').download_and_prepare(file_format='array_record')" in said
    assert "/jaxzoo_squares/1.0.0" in said and "TFDS_DATA_DIR" in said


def test_nobody_waits_for_hosts_that_cannot_be_reached(squares, monkeypatch):
    def no_address(*_):
        raise OSError

    monkeypatch.setattr("socket.getaddrinfo", no_address)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setattr(
        squares, "url_infos", {"https://images.example/a.zip": None, "https://images.example/b.zip": None}
    )
    with pytest.raises(UsageError, match=r"images\.example is not reachable"):
        load("tfds:jaxzoo_squares")
    monkeypatch.setattr(squares, "MANUAL_DOWNLOAD_INSTRUCTIONS", "Fetch it yourself.")
    with pytest.raises(UsageError, match="no route to host"):
        load("tfds:jaxzoo_squares")


def test_with_a_network_it_is_prepared_and_read(squares, capsys):
    squares.online = True
    data = load("tfds:jaxzoo_squares")
    assert "preparing jaxzoo_squares in" in capsys.readouterr().out
    assert (len(data.train), len(data.held_out), data.classes) == (20, 6, ["dark", "light"])
    read, broken = 0, []
    for source in (data.train, data.held_out):
        assert source.labels.tolist().count(0) == len(source) // 2
        for i in range(len(source)):
            try:
                image, label = source[i]
            except UsageError as error:
                assert source.name(i) in str(error)
                broken.append(source.name(i))
            else:
                assert image.getpixel((0, 0)) == (200 * label,) * 3 and label == source.labels[i]
                read += 1
    assert read == 25
    assert len(broken) == 1 and broken[0].endswith("of jaxzoo_squares, train")


@pytest.mark.parametrize(
    ("split", "sizes"),
    [
        (":train[:50%]", (10, 6)),
        (":train[:60%],train[60%:]", (12, 8)),
        (":1.0.0", (20, 6)),
        (":1.0.0:train[5:]", (15, 6)),
        (":test, train", (6, 20)),
        (":train+test", (20, 6)),  # nothing of its own to hold out: a fifth of each class
    ],
)
def test_parts_can_be_chosen(prepared, split, sizes):
    data = load(f"tfds:jaxzoo_squares{split}")
    assert (len(data.train), len(data.held_out)) == sizes
    if split == ":train+test":
        assert sorted(data.held_out.labels.tolist()) == [0, 0, 0, 1, 1, 1]
    names = [source.name(i) for source in (data.train, data.held_out) for i in range(len(source))]
    assert len(set(names)) == sum(sizes)


@pytest.mark.parametrize(
    ("split", "sentence"),
    [
        (":tarin", "has no split 'tarin'.*it has train, test"),
        (":train[5", "has no split 'train.5'"),
        (":train,valid", "has no split 'valid'"),
        (":2.0.0", "cannot be loaded at version 2.0.0"),
    ],
)
def test_a_part_that_is_not_there_is_refused(prepared, split, sentence):
    with pytest.raises(UsageError, match=sentence):
        load(f"tfds:jaxzoo_squares{split}")
