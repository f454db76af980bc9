"""Errors of detectors are called by their names, counted, and drawn; nothing is something to draw."""

import csv

import numpy as np
import pytest
from PIL import Image

from jaxzoo.detection.drawing import annotated
from train.data.objects import Objects, Skeleton
from train.metrics.average_precision import CocoMetrics
from train.metrics.detection_errors import CONFIDENCES, by_confidence, confusion, outcomes
from train.reporting import detections, page
from train.reporting.contact_sheet import read_tiles
from train.reporting.curves import charts_of
from train.reporting.detection_errors import CROWD, RIGHT, detection_marks, object_marks, words, worst

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pycocotools")

CLASSES = ["background", "cat", "dog"]
CAT, DOG = 1, 2
BOX, BESIDE, FAR = [10, 10, 30, 30], [40, 10, 60, 30], [70, 70, 90, 90]
NEARLY, HARDLY = [11, 10, 31, 30], [20, 10, 40, 30]  # an overlap of 0.9, and one of 0.33 with BOX
FILES = {
    *("average_precision.csv", "per_class_ap.csv", "confidence.csv", "confusion.csv", "errors.csv"),
    *("errors_by_class.csv", "errors.json", "errors.png", "precision_recall.png", "confidence.png"),
    "confusion_matrix.png",
}
PICTURES = sorted(name for name in FILES if name.endswith(".png"))


class Photos:
    """A source of gray images."""

    def __init__(self, truths, size=(100, 100)):
        self.truths, self.pixels = truths, Image.new("RGB", size, "gray")

    def __len__(self):
        return len(self.truths)

    def __getitem__(self, index):
        return self.pixels, self.truths[index]

    def objects(self, index):
        return self.truths[index]

    def name(self, index):
        return f"photos/{index}.jpg"


def compared(*images, kinds=("bbox",), **options):
    """Of (objects as (box, label), detections as (box, label, score)) of each image."""
    truths, results = [], []
    for objects, found in images:
        truths.append(Objects.of([box for box, _ in objects], [label for _, label in objects], **options))
        results.append(
            {name: np.array([of[i] for of in found]) for i, name in enumerate(("boxes", "labels", "scores"))}
        )
        results[-1]["boxes"] = results[-1]["boxes"].reshape(-1, 4)
    metrics = CocoMetrics(Photos(truths), CLASSES, kinds)
    for index, result in enumerate(results):
        metrics.add(index, result)
    return metrics


def errors(objects, found, confidence=0.5, **options):
    outcome = outcomes(compared((objects, found), **options), confidence)[0]
    return [tuple(error) for error in outcome.errors]


def test_a_right_detection_is_no_error():
    metrics = compared(([(BOX, CAT)], [(NEARLY, CAT, 0.9)]))
    assert outcomes(metrics, 0.5)[0] == ([(0, 0)], [], [])


@pytest.mark.parametrize(
    "found, kinds",
    [
        ([], [("missed", 0, -1)]),
        ([(NEARLY, CAT, 0.4)], [("missed", 0, -1)]),  # not confident enough
        ([(FAR, CAT, 0.9)], [("false", -1, 0), ("missed", 0, -1)]),
        ([(HARDLY, CAT, 0.9)], [("badly placed", 0, 0)]),
        ([(HARDLY, DOG, 0.9)], [("false", -1, 0), ("missed", 0, -1)]),
        ([(NEARLY, DOG, 0.9)], [("confused", 0, 0)]),
        ([(NEARLY, CAT, 0.9), (BOX, CAT, 0.8)], [("found twice", 0, 1)]),
        ([(NEARLY, CAT, 0.8), (BOX, DOG, 0.9)], [("found twice", 0, 1)]),
        ([(NEARLY, CAT, 0.9), (HARDLY, CAT, 0.8)], [("false", -1, 1)]),
        ([(HARDLY, CAT, 0.9), (NEARLY, DOG, 0.8)], [("false", -1, 0), ("confused", 0, 1)]),
        ([(NEARLY, DOG, 0.9), (BOX, DOG, 0.8)], [("confused", 0, 0), ("found twice", 0, 1)]),
    ],
)
def test_errors_have_names(found, kinds):
    assert errors([(BOX, CAT)], found) == kinds


def test_a_crowd_is_neither_missed_nor_falsely_found():
    objects, found = [(BOX, CAT), (BESIDE, CAT)], [(BESIDE, CAT, 0.9), (BESIDE, CAT, 0.8)]
    metrics = compared((objects, found), crowd=[False, True])
    assert outcomes(metrics, 0.5)[0] == ([], [("missed", 0, -1)], [0, 1])


def test_confusions_count_every_object_and_detection():
    objects = [(BOX, CAT), (BESIDE, DOG), (FAR, DOG)]
    found = [(NEARLY, CAT, 0.9), (BESIDE, CAT, 0.8), ([70, 10, 90, 30], DOG, 0.7), (BOX, CAT, 0.6)]
    metrics = compared((objects, found), ([(BOX, CAT)], [(HARDLY, CAT, 0.9)]))
    matrix = confusion(metrics, outcomes(metrics, 0.5))
    assert matrix.tolist() == [[0, 2, 1], [1, 1, 0], [1, 1, 0]]
    assert matrix[1:].sum() == 4 and matrix[:, 1:].sum() == 5


def test_precision_recall_and_f1_by_confidence_are_counts():
    metrics = compared(
        ([(BOX, CAT), (BESIDE, CAT)], [(BOX, CAT, 0.9), (FAR, CAT, 0.6), (BESIDE, CAT, 0.3), (FAR, DOG, 0.4)])
    )
    scores = by_confidence(metrics)
    at = {confidence: int(np.flatnonzero(confidence == CONFIDENCES)[0]) for confidence in (0, 0.3, 0.31, 0.7, 1)}
    cat = [[of[0, i] for of in scores] for i in at.values()]
    np.testing.assert_allclose(cat[:2], [[2 / 3, 1, 0.8]] * 2)
    np.testing.assert_allclose(cat[2:], [[1 / 2, 1 / 2, 1 / 2], [1, 1 / 2, 2 / 3], [np.nan, 0, 0]])
    assert np.isnan(scores.recall[1]).all() and np.isnan(scores.f1[1]).all()  # there is no dog
    assert scores.precision[1, 0] == 0
    assert scores.best() == pytest.approx(0.15)  # F1 is 0.8 from 0 to 0.3


def test_where_nothing_is_found_a_half_is_as_good_as_any_confidence():
    assert by_confidence(compared(([(BOX, CAT)], []))).best() == 0.5
    assert by_confidence(compared()).best() == 0.5


def test_marks_say_what_is_wrong():
    objects = [(BOX, CAT), (BESIDE, DOG), (FAR, DOG), ([70, 10, 90, 30], DOG)]
    found = [(NEARLY, CAT, 0.9), (BESIDE, CAT, 0.8), (FAR, DOG, 0.7)]
    metrics = compared((objects, found), crowd=[False, False, True, False])
    outcome = outcomes(metrics, 0.5)[0]
    marks = object_marks(metrics.images[0].objects, outcome.errors, CLASSES)
    assert [mark.text for mark in marks] == ["confused: dog", "missed: dog", "cat", "crowd: dog"]
    assert [mark.color for mark in marks[2:]] == [RIGHT, CROWD]
    marks = detection_marks(metrics.images[0], outcome, CLASSES)
    assert [mark.text for mark in marks] == ["confused: cat 80 %, is dog", "cat 90 %", "crowd: dog 70 %"]
    assert words(outcome.errors) == "1 missed, 1 confused"


def test_the_images_of_the_most_errors_come_first():
    metrics = compared(([(BOX, CAT)], []), ([(BOX, CAT)], [(BOX, CAT, 1)]), ([(BOX, CAT), (FAR, DOG)], []))
    assert worst(outcomes(metrics, 0.5)) == [2, 0]


def test_everything_is_written_and_drawn(tmp_path):
    rng = np.random.default_rng(0)
    skeleton = Skeleton(("head", "left_foot"), (0, 1), ((0, 1),), (0.1, 0.1))
    truths, results = [], []
    for _ in range(30):
        count = rng.integers(0, 4)
        corners = rng.uniform(5, 60, (count, 2))
        true = np.concatenate([corners, corners + 30], 1)
        found = np.concatenate([true + rng.normal(0, 4, true.shape), [rng.uniform(5, 25, 4)]])
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        masks = np.zeros((count, 80, 100), np.uint8)
        masks[:, 20:40, 20:40] = 1
        keypoints = np.stack([true[:, :2], true[:, 2:]], 1)
        keypoints = np.concatenate([keypoints, np.full((count, 2, 1), 2)], -1).astype(np.float32)
        truths.append(Objects.of(true, rng.integers(1, 3, count), masks=masks, keypoints=keypoints))
        results.append(
            {
                "boxes": found.astype(np.float32),
                "labels": rng.integers(1, 3, count + 1),
                "scores": rng.random(count + 1).astype(np.float32),
                "masks": rng.random((count + 1, 1, 80, 100), np.float32),
                "keypoints": rng.uniform(0, 80, (count + 1, 2, 3)).astype(np.float32),
            }
        )
    source = Photos(truths, (100, 80))
    metrics = CocoMetrics(source, CLASSES, ("bbox", "segm", "keypoints"), skeleton.sigmas)
    for index, result in enumerate(results):
        metrics.add(index, result)
    detections.draw(metrics, source, CLASSES, tmp_path, skeleton)
    assert {path.name for path in tmp_path.iterdir()} == FILES
    rows = table(tmp_path / "average_precision.csv")
    assert rows[0] == {
        "measure": "AP, IoU 0.50 to 0.95",
        "boxes": str(metrics.compute()["map"]),
        "masks": str(metrics.compute()["segm_map"]),
        "keypoints": str(metrics.compute()["keypoints_map"]),
    }
    classes = table(tmp_path / "per_class_ap.csv")
    assert [row["class"] for row in classes] == ["cat", "dog"]
    assert np.mean([float(row["ap"]) for row in classes]) == pytest.approx(metrics.compute()["map"])
    assert [int(row["objects"]) for row in classes] == [sum((of.labels == i).sum() for of in truths) for i in (1, 2)]
    confidence = float(next(row["confidence"] for row in table(tmp_path / "confidence.csv") if row["chosen"] == "1"))
    found = outcomes(metrics, confidence)
    assert len(table(tmp_path / "errors.csv")) == sum(len(outcome.errors) for outcome in found.values())
    assert len(read_tiles(tmp_path / "errors.png")) == 12
    for row in table(tmp_path / "errors_by_class.csv"):
        label = CLASSES.index(row["class"])
        counts = [int(row[kind]) for kind in ("right", "missed", "badly placed", "confused")]
        assert sum(counts) == sum((of.labels == label).sum() for of in truths)
    page.write(tmp_path)
    text = (tmp_path / "report.html").read_text()
    for title in ("Average precision", "Confidence", "Errors", "Confusion", "Classes"):
        assert f"<h2>{title}</h2>" in text
    assert f"confidence {confidence:.2f} and more" in text and "VOC 2007" in text
    assert "objects are right" in text and "<h2>Precision recall</h2>" not in text


@pytest.mark.parametrize(
    "images", [[], [([], [])], [([(BOX, CAT)], [])], [([], [(BOX, CAT, 0.9)])], [([(BOX, CAT)], [(BOX, 7, 0.9)])]]
)
def test_nothing_is_something_to_draw(images, tmp_path):
    metrics = compared(*images)
    detections.draw(metrics, metrics.source, CLASSES, tmp_path)
    for name in PICTURES:
        Image.open(tmp_path / name).verify()
    page.write(tmp_path)
    assert "<h2>Average precision</h2>" in (tmp_path / "report.html").read_text()


def test_of_large_pictures_boxes_masks_and_points_stay_together():
    picture, mask = Image.new("RGB", (2000, 1000)), np.zeros((1000, 2000), bool)
    mask[400:600, 1000:1400] = True
    points = np.array([[[1200.0, 500.0]]])
    body = {"keypoints": points, "sure": np.ones((1, 1), bool)}
    sheet = np.array(annotated(picture, [[1000, 400, 1400, 600]], [""], ["#ff0000"], scale=0.2, masks=[mask], **body))
    assert sheet.shape == (200, 400, 3)
    rows, columns = np.nonzero(sheet.max(-1))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (80, 120, 200, 280)
    assert sheet[100, 240].tolist() == [255, 255, 255]  # the keypoint


def test_charts_are_those_of_the_headline():
    rows = [{"epoch": 1, "step": 1, "lr": 0.1, "train_loss": 1.0, "val_map": 0.5, "val_map_75": 0.4}]
    assert [title for title, _ in charts_of(rows, ("loss", "map"))] == ["mAP", "learning rate"]
    assert len(charts_of(rows)) == 3


def table(path):
    with path.open(newline="") as file:
        return [*csv.DictReader(file)]
