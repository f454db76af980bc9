"""TensorBoard events, read back byte by byte as TensorBoard reads them."""

import io
import struct
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxzoo import UsageError
from train.reporting.tensorboard import BINS, Events, histograms

pytest.importorskip("tensorboardX")

from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event, SessionLog


def read(folder):
    """All events of a folder, oldest file first; the checksum of every record is compared."""
    events = []
    for path in sorted(folder.glob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            record, data_crc = data[12 : 12 + length], data[12 + length : 16 + length]
            assert struct.unpack("<I", data[8:12])[0] == masked(data[:8])
            assert struct.unpack("<I", data_crc)[0] == masked(record)
            events.append(Event.FromString(record))
            data = data[16 + length :]
    return events


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def values(folder):
    return {(value.tag, event.step): value for event in read(folder) for value in event.summary.value}


def test_numbers_of_one_metric_share_a_group(tmp_path):
    events = Events(tmp_path)
    events.scalars(5, {"epoch": 1, "step": 5, "lr": 0.1, "train_loss": 2.5, "val_top5": 0.75, "ema_loss": None})
    events.close()
    found = {key: value.simple_value for key, value in values(tmp_path).items()}
    assert found == {("lr", 5): pytest.approx(0.1), ("loss/train", 5): 2.5, ("top5/val", 5): 0.75}


def test_pictures_are_those_of_the_run_folder_and_written_when_they_change(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 7, 9, 3), np.uint8)
    events, curves = Events(tmp_path / "events"), tmp_path / "curves.png"
    for step, picture in ((3, 0), (6, 0), (9, 1)):
        Image.fromarray(pixels[picture]).save(curves)
        events.pictures(step, {"curves": curves, "mistakes": tmp_path / "mistakes.png"})
    events.close()
    found = values(tmp_path / "events")
    assert list(found) == [("curves", 3), ("curves", 9)]
    for value, expected in zip(found.values(), pixels, strict=True):
        assert (value.image.width, value.image.height) == (9, 7)
        np.testing.assert_array_equal(Image.open(io.BytesIO(value.image.encoded_image_string)), expected)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_histograms_are_numpys(tmp_path, dtype):
    array = jnp.asarray(np.random.default_rng(0).normal(size=(50, 30)), dtype)
    events = Events(tmp_path)
    events.histograms(2, histograms({"weights/fc.kernel": array}))
    events.close()
    found = values(tmp_path)["weights/fc.kernel", 2].histo
    array = np.asarray(array.astype(jnp.float32), np.float64)
    counts, edges = np.histogram(array, BINS)
    assert np.abs(np.subtract(found.bucket, counts)).sum() <= 4  # values at the edge of a bin, in float32
    np.testing.assert_allclose(found.bucket_limit, edges[1:], rtol=1e-6, atol=1e-6)
    assert (found.min, found.max, found.num) == (array.min(), array.max(), 1500)
    np.testing.assert_allclose([found.sum, found.sum_squares], [array.sum(), (array**2).sum()], rtol=1e-4)


def test_what_is_not_finite_is_counted_and_left_out(tmp_path):
    events = Events(tmp_path)
    counted = histograms({"half": jnp.array([1.0, jnp.nan, 3.0, jnp.inf]), "none": jnp.full(3, jnp.nan)})
    events.histograms(1, counted)
    events.close()
    found = values(tmp_path)
    assert found["half/finite", 1].simple_value == 0.5 and found["none/finite", 1].simple_value == 0
    half = found["half", 1].histo
    assert (half.min, half.max, half.num, half.sum) == (1, 3, 2, 4) and sum(half.bucket) == 2
    assert ("none", 1) not in found


def test_equal_values_make_one_bar(tmp_path):
    events = Events(tmp_path)
    events.histograms(1, histograms({"zeros": jnp.zeros(9), "one": jnp.ones(())}))
    events.close()
    for name, count in (("zeros", 9), ("one", 1)):
        found = values(tmp_path)[name, 1].histo
        assert sorted(found.bucket)[-2:] == [0, count]
        assert (np.diff(found.bucket_limit) > 0).all()


def test_a_run_that_continues_tells_tensorboard_what_to_forget(tmp_path):
    for after in (None, 7):
        events = Events(tmp_path, after)
        events.scalars(8 if after else 9, {"loss": 1.0})
        events.close()
    assert len(list(tmp_path.iterdir())) == 2 and set(values(tmp_path)) == {("loss", 8), ("loss", 9)}
    starts = [event.step for event in read(tmp_path) if event.session_log.status == SessionLog.START]
    assert starts == [8]


def test_what_was_written_is_on_the_disk_at_once(tmp_path):
    events = Events(tmp_path)
    events.scalars(1, {"loss": 1.0})
    assert ("loss", 1) in values(tmp_path)
    events.histograms(2, histograms({"zeros": jnp.zeros(9)}))
    assert ("zeros", 2) in values(tmp_path)
    events.close()


def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UsageError, match=r"pip install 'jaxzoo-vision\[tensorboard\]'"):
        Events(tmp_path / "events")
    assert not (tmp_path / "events").exists()
