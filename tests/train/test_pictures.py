"""The pictures and tables of a run: curves, confusion, mistakes, batches."""

import base64
import csv
import io
import re

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from train.metrics.confusion import most_confused
from train.metrics.errors import ConfidentErrors
from train.reporting import batch, confusion, contact_sheet, curves, mistakes

CLASSES = ["cat", "dog", "emu"]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def epochs(count, averaged=False):
    sides = ("train", "val", *["ema"] * averaged)
    metrics = {f"{side}_{metric}": {"loss": 2.0, "accuracy": 0.5} for side in sides for metric in ("loss", "accuracy")}
    return [
        {"epoch": epoch, "step": 10 * epoch, "lr": 1e-3 / epoch}
        | {name: of[name.split("_")[1]] / epoch for name, of in metrics.items()}
        for epoch in range(1, count + 1)
    ]


def colors(path):
    """How much of a picture is drawn in red, green and blue that differ: curves rather than letters and axes."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return {tuple(pixel) for pixel in pixels.reshape(-1, 3)[np.ptp(pixels.reshape(-1, 3), 1) > 80]}


# Curves


@pytest.mark.parametrize("count", [1, 7, 300])
def test_curves_of_any_number_of_epochs_fill_the_picture(tmp_path, count):
    curves.draw_curves(epochs(count), "tiny on $digits", tmp_path / "curves.png")
    width, height = Image.open(tmp_path / "curves.png").size
    assert height < width < 2000
    blue = tuple(int(curves.BLUE[i : i + 2], 16) for i in (1, 3, 5))
    assert blue in colors(tmp_path / "curves.png")
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_averaged_weights_get_a_curve_of_their_own(tmp_path):
    for name, averaged in (("plain.png", False), ("averaged.png", True)):
        curves.draw_curves(epochs(5, averaged), "", tmp_path / name)
    orange = tuple(int(curves.ORANGE[i : i + 2], 16) for i in (1, 3, 5))
    assert orange in colors(tmp_path / "averaged.png")
    assert orange not in colors(tmp_path / "plain.png")
    charts = dict(curves.charts_of(epochs(5, averaged=True)))
    assert [column for column, _, _ in charts["accuracy"]] == ["train_accuracy", "val_accuracy", "ema_accuracy"]
    assert list(charts) == ["loss", "accuracy", "learning rate"]


def test_a_loss_that_is_not_finite_does_not_stop_the_drawing(tmp_path):
    rows = epochs(3)
    rows[1] |= {"val_loss": float("nan"), "train_loss": float("inf")}
    curves.draw_curves(rows, "", tmp_path / "curves.png")
    assert len(curves.curves_as_svg(rows)) == 3


def test_curves_in_a_page_take_its_colours_and_keep_text_as_text():
    for svg in curves.curves_as_svg(epochs(60)):
        assert svg.startswith("<svg") and "currentColor" in svg and "<text" in svg
        assert not re.findall("#0[0-9a-f]{5}|http(?!://www.w3.org|://purl.org|://creativecommons.org)", svg)
    assert "var(--blue)" in curves.curves_as_svg(epochs(2))[0]


def test_every_number_that_a_task_logs_has_a_panel_also_one_that_comes_later():
    lines = [{"step": step, "loss": 1.0, "loss_box": 0.1 * step} for step in range(1, 30)]
    lines[5]["gradient_norm"] = lines[20]["gradient_norm"] = 0.5
    charts = curves.steps_as_svg(lines)
    assert [re.findall(r"<text[^>]*>([a-z ]+)</text>", svg)[-1] for svg in charts] == [
        "loss",
        "loss box",
        "gradient norm",
    ]


def test_a_spike_does_not_flatten_a_curve():
    figure = matplotlib.figure.Figure()
    rows = [{"step": step, "gradient_norm": 1 + step % 3} for step in range(100)]
    rows[50]["gradient_norm"] = 1e6
    axes = figure.subplots()
    curves._draw(axes, rows, "step", "gradient norm", [("gradient_norm", "blue", "")])
    assert axes.get_ylim()[0] == 0 and 3 < axes.get_ylim()[1] < 5


def test_long_logs_are_drawn_as_means_of_neighbours():
    lines = [{"step": step, "loss": 1.0 + step % 2, "note": None} for step in range(1, 4001)]
    (svg,) = curves.steps_as_svg(lines)
    assert len(svg) < 40_000
    assert curves.steps_as_svg([]) == []
    assert curves.steps_as_svg(lines[:1]) == []


# Confusion


def confused(seed=0, classes=7, images=300):
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes - 1, images)  # one class has no image
    predicted = np.where(rng.random(images) < 0.6, true, rng.integers(1, classes, images))
    return true, predicted, confusion_matrix(true, predicted, labels=range(classes))


def test_precision_recall_and_f1_are_scikit_learns(tmp_path):
    true, predicted, matrix = confused()
    names = [f"class {i}" for i in range(7)]
    confusion.write(matrix, names, tmp_path)
    with (tmp_path / "per_class.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["class", "images", "precision", "recall", "f1"]
    assert [row["class"] for row in rows] == names
    expected = precision_recall_fscore_support(true, predicted, labels=range(7), zero_division=0)
    for column, values in zip(("precision", "recall", "f1", "images"), expected, strict=True):
        np.testing.assert_allclose([float(row[column]) for row in rows], values, rtol=1e-15, err_msg=column)
    assert rows[6]["images"] == "0"


def test_a_confusion_matrix_can_be_read_back(tmp_path):
    matrix = confused(classes=3)[2]
    confusion.write(matrix, CLASSES, tmp_path)
    ours, classes = confusion.read(tmp_path)
    np.testing.assert_array_equal(ours, matrix)
    assert classes == CLASSES
    assert confusion.read(tmp_path / "elsewhere") is None
    assert Image.open(tmp_path / "confusion_matrix.png").size[0] > 300


def test_the_commonest_errors_are_named():
    matrix = np.array([[9, 0, 3], [5, 9, 0], [0, 0, 9]])
    assert most_confused(matrix, CLASSES) == [("dog", "cat", 5), ("cat", CLASSES[2], 3)]
    assert most_confused(matrix, CLASSES, 1) == [("dog", "cat", 5)]
    assert matrix[0, 0] == 9


@pytest.mark.parametrize("count", [2, 30, 200])
def test_a_single_error_is_seen_among_few_and_many_classes(tmp_path, count):
    matrix = np.eye(count, dtype=int) * 40
    drawn = []
    for _ in range(2):
        confusion.draw_confusion(matrix, [f"$class {i} ネコ" for i in range(count)], tmp_path / "matrix.png")
        drawn.append(np.asarray(Image.open(tmp_path / "matrix.png").convert("L")).astype(int))
        matrix[-1, 0] = 1
    assert drawn[0].shape[1] < 2200
    below_title = slice(drawn[0].shape[0] // 20, None)
    assert np.abs(drawn[1] - drawn[0])[below_title].max() > 20


# Mistakes


def test_the_most_confident_errors_are_found_whatever_the_batches():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(60, 5)).astype(np.float32) * 3, rng.integers(0, 5, 60)
    mask = rng.random(60) < 0.9
    probabilities = np.asarray(jax.nn.softmax(logits))
    wrong = [i for i in range(60) if mask[i] and logits[i].argmax() != labels[i]]
    expected = sorted(wrong, key=lambda i: -probabilities[i].max())[:8]
    for size in (60, 20, 6):
        kept = ConfidentErrors(8)
        errors = kept.init()
        for start in range(0, 60, size):
            part = slice(start, start + size)
            outputs = {"logits": logits, "labels": labels, "mask": mask, "indices": np.arange(60)}
            outputs = {name: values[part] for name, values in outputs.items()}
            errors = jax.jit(kept.update)(errors, **outputs)
        assert errors["index"].tolist() == expected
        assert errors["true"].tolist() == labels[expected].tolist()
        assert errors["predicted"].tolist() == logits[expected].argmax(-1).tolist()
        np.testing.assert_allclose(errors["probability"], probabilities[expected].max(-1), rtol=1e-6)


def test_where_nothing_is_wrong_or_a_number_all_places_are_free():
    for logits in (jnp.eye(3), jnp.eye(3) * jnp.nan):
        kept, outputs = ConfidentErrors(4), {"mask": jnp.ones(3, bool), "indices": jnp.arange(3) + 5}
        errors = kept.update(kept.init(), logits=logits, labels=jnp.arange(3), **outputs)
        for name, free in kept.init().items():
            assert errors[name].tolist() == free.tolist() == [0] * 4


def test_mistakes_are_shown_with_picture_name_and_what_was_said(tmp_path):
    errors = {"index": [7, 4, 0], "true": [0, 2, 0], "predicted": [1, 0, 0], "probability": [0.998, 0.5, 0]}
    errors = {name: np.array(values) for name, values in errors.items()}
    shown = np.full((9, 32, 32, 3), 10, np.uint8)
    shown[7] = 200
    mistakes.write(errors, CLASSES, lambda i: shown[i], lambda i: f"val/cat/{i}.jpg", tmp_path)
    with (tmp_path / "mistakes.csv").open() as file:
        first, second = csv.DictReader(file)
    assert first == {"name": "val/cat/7.jpg", "true": "cat", "predicted": "dog", "probability": "0.998"}
    assert second["true"] == CLASSES[2]
    tiles = contact_sheet.read_tiles(tmp_path / "mistakes.png")
    assert tiles[0]["caption"] == ["is cat", "said dog 99.8%", "7.jpg"]
    assert [np.unique(pixels_of(tile)).tolist() for tile in tiles] == [[200], [10]]


def test_no_mistakes_are_said_to_be_none(tmp_path):
    errors = jax.device_get(ConfidentErrors().init())
    mistakes.write(errors, CLASSES, lambda i: None, str, tmp_path)
    assert (tmp_path / "mistakes.csv").read_text().split() == ["name,true,predicted,probability"]
    assert contact_sheet.read_tiles(tmp_path / "mistakes.png") == []


def pixels_of(tile):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(tile["jpeg"]))))


# Batches


@pytest.mark.parametrize("dtype", [np.float32, np.float64, jnp.bfloat16])
def test_normalised_images_come_back_as_they_were(dtype):
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), np.uint8)
    normalised = ((images / 255 - MEAN) / STD).astype(dtype)
    far = np.abs(batch.denormalised(normalised, MEAN, STD).astype(int) - images).max()
    assert far <= (2 if dtype == jnp.bfloat16 else 0)


def test_what_is_beyond_white_black_or_number_is_cut_off():
    images = np.array([[[9.0, -9, np.nan]]])
    assert batch.denormalised(images, (0.5,) * 3, (0.5,) * 3).tolist() == [[[255, 0, 0]]]


@pytest.mark.parametrize(
    ("label", "text"),
    [
        (1, "dog"),
        ([0, 1, 0], "dog"),
        ([0.7, 0.3, 0], "cat 0.7 + dog 0.3"),
        ([0.001, 0.649, 0.35], "dog 0.65 + emu 0.35"),
        ([0.93, 0.035, 0.035], "cat 0.93"),
        ([0.01] * 3, "nothing"),
    ],
)
def test_mixed_labels_are_written_in_parts(label, text):
    assert batch.label_text(np.array(label), CLASSES) == text


def test_a_batch_is_drawn_as_the_model_sees_it(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 36, 36, 3), np.uint8)
    images = ((pixels / 255 - MEAN) / STD).astype(np.float32)
    labels = np.array([[0.5, 0.5, 0]] * 5)
    contact_sheet.draw_sheet(
        batch.batch_tiles(images, labels, CLASSES, mean=MEAN, std=STD)[:3], "First", tmp_path / "b.png"
    )
    tiles = contact_sheet.read_tiles(tmp_path / "b.png")
    assert [tile["caption"] for tile in tiles] == [["cat 0.5 + dog 0.5"]] * 3
    assert pixels_of(tiles[2]).shape == (144, 144, 3)
    top, left = contact_sheet.LINE + 2 * contact_sheet.GAP, contact_sheet.GAP + 2 * (144 + contact_sheet.GAP)
    drawn = np.asarray(Image.open(tmp_path / "b.png"))[top : top + 144, left : left + 144]
    np.testing.assert_array_equal(drawn[::4, ::4], pixels[2])


def test_a_sheet_holds_pictures_of_any_size_and_captions_of_any_length(tmp_path):
    for size in ((400, 300), (1, 1), (150, 200)):
        tiles = [contact_sheet.Tile(Image.new("RGB", size), ["long " * 30, "W" * 99, "Сова ネコ", ""])] * 11
        contact_sheet.draw_sheet(tiles, "title", tmp_path / "sheet.png")
        again = contact_sheet.read_tiles(tmp_path / "sheet.png")
        assert [tile["caption"] for tile in again] == [tile.caption for tile in tiles]
        assert max(pixels_of(again[0]).shape) <= contact_sheet.SIDE
    contact_sheet.draw_sheet(tiles, "title", tmp_path / "other.png", keep=False)
    assert contact_sheet.read_tiles(tmp_path / "other.png") == []
