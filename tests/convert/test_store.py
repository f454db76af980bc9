"""Checkpoint directories give back what was put in, or say what is wrong with them."""

import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from convert import store
from jaxzoo import UsageError

ARRAYS = {
    "model/layer1.0.conv1.kernel": np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1),
    "model/half": np.arange(3, dtype=np.float16),
    "model/brain": np.array([1.5, -2.5], ml_dtypes.bfloat16),
    "model/large": np.array(2**40),
    "model/mask": np.array([True, False]),
    "optimizer/0/mu": jnp.arange(6, dtype=jnp.float32).reshape(2, 3),
    "step": np.int64(3),
}


@pytest.fixture
def checkpoint(tmp_path):
    store.save(tmp_path / "new" / "checkpoint", ARRAYS, {"model": "resnet18", "classes": ["cat", "dog"]})
    return tmp_path / "new" / "checkpoint"


@pytest.mark.parametrize("x64", [False, True])
def test_every_dtype_and_shape_comes_back_bit_for_bit(checkpoint, x64):
    with jax.enable_x64(x64):
        arrays, manifest = store.load(checkpoint)
    assert manifest["model"] == "resnet18"
    assert manifest["classes"] == ["cat", "dog"]
    assert arrays.keys() == ARRAYS.keys()
    for key, value in ARRAYS.items():
        assert isinstance(arrays[key], np.ndarray)
        assert (arrays[key].dtype, arrays[key].shape) == (value.dtype, value.shape)
        assert arrays[key].tobytes() == np.asarray(value).tobytes()


def test_a_prefix_selects_and_is_taken_off(checkpoint):
    arrays, _ = store.load(checkpoint, prefix="model/")
    assert arrays.keys() == {key.removeprefix("model/") for key in ARRAYS if key.startswith("model/")}


def test_a_flipped_bit_is_found_and_the_file_named(checkpoint):
    path = checkpoint / "arrays" / "model" / "layer1.0.conv1.kernel" / "c" / "0" / "0" / "0"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UsageError, match="SHA-256") as error:
        store.load(checkpoint)
    assert str(path.relative_to(checkpoint)) in str(error.value)
    store.load(checkpoint, prefix="optimizer/")  # is whole


def test_every_single_file_is_guarded(checkpoint):
    for path in [p for p in checkpoint.rglob("*") if p.is_file()]:
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(UsageError):
            store.load(checkpoint)
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 4]))
        with pytest.raises(UsageError):
            store.load(checkpoint)
        path.write_bytes(content)
    store.load(checkpoint)


def test_a_changed_manifest_is_found(checkpoint):
    path = checkpoint / "manifest.json"
    path.write_text(path.read_text().replace("resnet18", "resnet19"))
    with pytest.raises(UsageError, match=r"manifest\.json"):
        store.load(checkpoint)


def test_a_newer_format_is_refused(checkpoint, monkeypatch):
    monkeypatch.setattr(store, "FORMAT", 2)
    store.write_manifest(checkpoint, {})
    monkeypatch.undo()
    with pytest.raises(UsageError, match="format 2"):
        store.load(checkpoint)


def test_what_is_no_checkpoint_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"holds no manifest\.json"):
        store.load(tmp_path)
    with pytest.raises(UsageError, match="no checkpoint directory"):
        store.load(tmp_path / "nowhere")
    (tmp_path / "manifest.json").write_text(json.dumps([1, 2]))
    with pytest.raises(UsageError, match="damaged"):
        store.load(tmp_path)


def test_nothing_is_overwritten_and_nothing_half_written_stays(checkpoint, tmp_path, monkeypatch):
    before = {path: path.read_bytes() for path in checkpoint.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match="exists already"):
        store.save(checkpoint, ARRAYS, {})
    assert {path: path.read_bytes() for path in checkpoint.rglob("*") if path.is_file()} == before

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(store, "write_manifest", fail)
    with pytest.raises(UsageError, match="disk full"):
        store.save(tmp_path / "other", ARRAYS, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new"]


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        store.save(tmp_path / "file" / "checkpoint", ARRAYS, {})


def test_arrays_without_elements_are_refused_by_name(tmp_path):
    with pytest.raises(UsageError, match="model/empty"):
        store.save(tmp_path / "checkpoint", {"model/empty": np.zeros((0, 3))}, {})
