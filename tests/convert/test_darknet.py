"""Darknet's `.weights` files: to Flax and back byte for byte, and refused where they do not fit."""

import struct

import numpy as np
import pytest

import convert
import jaxzoo
from convert import darknet, files
from convert.__main__ import main
from convert.shapes import default_shapes
from jaxzoo import UsageError

NAME = "yolov1_tiny"
HEADERS = {"0.1": struct.pack("<iiii", 0, 1, 7, 12345), "0.2": struct.pack("<iiiq", 0, 2, 5, 2**40)}


def numbers() -> np.ndarray:
    """As many as the network has, each another, variances above 0."""
    count = sum(int(np.prod(shape)) for shape in default_shapes(NAME).values())
    return np.random.default_rng(0).random(count, np.float32) + np.float32(0.1)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("darknet") / "tiny.weights"
    path.write_bytes(HEADERS["0.1"] + numbers().tobytes())
    return path


def test_the_order_is_darknets(file):
    """Of the first layer: 16 biases, scales, means and variances, then 16 kernels of 3 × 3 × 3."""
    given, found = numbers(), convert.state_dict(convert.load(NAME, file))
    first = {end: found[f"layers.0.{end}"] for end in ("bn.bias", "bn.weight", "bn.running_mean", "bn.running_var")}
    for i, array in enumerate(first.values()):
        assert np.array_equal(array, given[16 * i : 16 * (i + 1)])
    assert np.array_equal(found["layers.0.conv.weight"].ravel(), given[64 : 64 + 16 * 27])
    last = found["layers.14.linear.weight"]
    assert np.array_equal(last.ravel(), given[-last.size :])
    assert np.array_equal(found["layers.14.linear.bias"], given[-last.size - len(last) : -last.size])


@pytest.mark.parametrize("version", HEADERS)
def test_every_byte_comes_back(tmp_path, version):
    data = HEADERS[version] + numbers().tobytes()
    (tmp_path / "in.weights").write_bytes(data)
    main(["to-flax", "--model", NAME, "--weights", str(tmp_path / "in.weights"), "--out", str(tmp_path / "flax")])
    main(["to-torch", "--from", str(tmp_path / "flax"), "--out", str(tmp_path / "out.weights")])
    assert (tmp_path / "out.weights").read_bytes() == data


def test_weights_from_elsewhere_become_a_file_of_version_0_2(tmp_path, file):
    tensors = convert.state_dict(convert.load(NAME, file))
    files.write(tmp_path / "new.weights", tensors)
    data = (tmp_path / "new.weights").read_bytes()
    assert data[:20] == struct.pack("<iiiq", 0, 2, 0, 0) and data[20:] == file.read_bytes()[16:]
    with pytest.raises(UsageError, match="Darknet has float32 only"):
        files.write(tmp_path / "half.weights", {key: array.astype(np.float16) for key, array in tensors.items()})
    assert not (tmp_path / "half.weights").exists()


def test_files_that_do_not_fit_are_refused_with_both_counts(tmp_path, file):
    data, path = file.read_bytes(), tmp_path / "bad.weights"
    count = f"{len(numbers()):,}"
    for content, says in (
        (data[:-4], f"cut short.*{len(numbers()) - 1:,} numbers after its header, and this one has {count}"),
        (data + b"1234", f"too long.*{len(numbers()) + 1:,} numbers.*has {count}"),
        (data[:10], "ends within the header"),
        (struct.pack("<iii", 1000, 1001, 0) + data[12:], "matrices are transposed"),
    ):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=says):
            convert.load(NAME, path)


def test_numbers_that_are_none_are_named(tmp_path):
    given = numbers()
    given[3] = np.nan
    (tmp_path / "bad.weights").write_bytes(HEADERS["0.2"] + given.tobytes())
    with pytest.warns(UserWarning, match=r"bad\.weights holds NaN or infinity in layers\.0\.bn\.bias$"):
        convert.load(NAME, tmp_path / "bad.weights")


def test_the_authors_file_is_not_downloaded():
    with pytest.raises(UsageError, match=r"weights VOC of yolov1_tiny are their authors'.*1506\.02640.*give its path"):
        convert.load(NAME, "VOC")


def test_other_classes_are_asked_for(tmp_path):
    model = jaxzoo.create_model(NAME, num_classes=3)
    files.write(tmp_path / "three.weights", convert.state_dict(model))
    with pytest.raises(UsageError, match="cut short, or of another network"):
        convert.load(NAME, tmp_path / "three.weights")
    again = convert.load(NAME, tmp_path / "three.weights", num_classes=3)
    assert all(
        np.array_equal(a, b) for a, b in zip(*(convert.state_dict(m).values() for m in (model, again)), strict=True)
    )


def test_other_models_and_a_file_without_its_model_are_refused(tmp_path, file):
    assert darknet.is_darknet(file)
    with pytest.raises(UsageError, match=r"a Darknet file, which has no names: convert.load and to-flax"):
        convert.read(file)
    with pytest.raises(UsageError, match="and this one has 61,100,840"):
        convert.load("alexnet", file)
    with pytest.raises(UsageError, match=r"networks of numbered layers, and one of this is fc.weight"):
        files.write(tmp_path / "other.weights", {"fc.weight": np.zeros(3, np.float32)})
