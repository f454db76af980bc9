"""VOC's average precision by its two rules, beside the development kit's procedure written out."""

import numpy as np
import pytest

from tests.train.test_average_precision import scene
from train.data.objects import Objects
from train.metrics.voc_ap import average_precisions

FROM_1 = np.array([1, 1, 0, 0])  # edges as VOC's pixels


def procedure(truths, found, label):
    """As the development kit describes it, detection by detection, in VOC's pixels: from 1, the last one included."""
    objects = [
        [
            {"box": truth.boxes[i].astype(float) + FROM_1, "difficult": truth.crowd[i], "found": False}
            for i in range(len(truth))
            if truth.labels[i] == label
        ]
        for truth in truths
    ]
    detections = [
        (float(of["scores"][i]), image, of["boxes"][i].astype(float) + FROM_1)
        for image, of in enumerate(found)
        for i in range(len(of["labels"]))
        if of["labels"][i] == label
    ]
    outcomes = []
    for _, image, (x1, y1, x2, y2) in sorted(detections, key=lambda of: -of[0]):
        nearest, most = None, 0
        for candidate in objects[image]:
            u1, v1, u2, v2 = candidate["box"]
            width, height = min(x2, u2) - max(x1, u1) + 1, min(y2, v2) - max(y1, v1) + 1
            if width > 0 and height > 0:
                both = width * height
                union = (x2 - x1 + 1) * (y2 - y1 + 1) + (u2 - u1 + 1) * (v2 - v1 + 1) - both
                if both / union > most:
                    nearest, most = candidate, both / union
        if most <= 0.5:
            outcomes.append(False)
        elif not nearest["difficult"]:
            outcomes.append(not nearest["found"])
            nearest["found"] = True
    count = sum(not of["difficult"] for image in objects for of in image)
    if not count:
        return np.nan, np.nan
    curve = [(sum(outcomes[:n]) / count, sum(outcomes[:n]) / n) for n in range(1, len(outcomes) + 1)]
    eleven = sum(max((p for r, p in curve if r >= step / 10), default=0) for step in range(11)) / 11
    area, before = 0, 0
    for recall, _ in curve:
        area += (recall - before) * max(p for r, p in curve if r >= recall)
        before = recall
    return eleven, area


@pytest.mark.parametrize("start", range(0, 200, 100))
def test_random_cases_are_as_the_kit_describes(start):
    for seed in range(start, start + 100):
        truths, found = scene(np.random.default_rng(seed), kinds=(), images=5)
        ours = np.stack(average_precisions(truths, found, 3), 1)
        np.testing.assert_allclose(ours, [procedure(truths, found, label) for label in (1, 2)], rtol=1e-12)


BOX, BESIDE = [10, 10, 30, 30], [50, 10, 70, 30]


def judged(truth, boxes, scores, **options):
    """By both rules, of a single image and class."""
    found = {"boxes": np.array(boxes, np.float32).reshape(-1, 4), "labels": np.ones(len(boxes), int), "scores": scores}
    return np.stack(average_precisions([Objects.of(truth, [1] * len(truth), **options)], [found], 2), 1)[0].tolist()


def test_all_found_is_1():
    assert judged([BOX, BESIDE], [BOX, BESIDE], [0.9, 0.8]) == [1, 1]


def test_half_found_is_the_area_or_six_of_eleven_recalls():
    assert judged([BOX, BESIDE], [BOX], [0.9]) == [6 / 11, 0.5]


def test_an_object_that_is_found_twice_is_a_false_one():
    assert judged([BOX, BESIDE], [BOX, BOX, BESIDE], [0.9, 0.8, 0.7]) == pytest.approx(
        [(6 + 5 * 2 / 3) / 11, 0.5 + 0.5 * 2 / 3]
    )


def test_the_second_nearest_object_is_not_asked_for():
    """COCO would match the later detection with the object beside."""
    near = [10, 10, 30, 34]
    between = [10, 10, 30, 31]  # nearer to BOX, and also more than half over `near`
    assert judged([BOX, near], [BOX, between], [0.9, 0.8]) == pytest.approx([6 / 11, 0.5])


def test_difficult_objects_and_what_finds_them_do_not_count():
    assert judged([BOX, BESIDE], [BESIDE, BESIDE, BOX], [0.9, 0.8, 0.7], crowd=[False, True]) == [1, 1]
    assert np.isnan(judged([BOX], [BOX], [0.9], crowd=[True])).all()


def test_exactly_a_half_is_not_enough():
    assert judged([[0, 0, 20, 20]], [[0, 0, 20, 10]], [0.9]) == [0, 0]
    assert judged([[0, 0, 20, 20]], [[0, 0, 20, 11]], [0.9]) == [1, 1]


def test_a_pixel_wide_box_has_a_pixel():
    """VOC's (5, 5, 5, 5) is (4, 4, 5, 5) in edges."""
    assert judged([[4, 4, 5, 5]], [[4, 4, 5, 5]], [0.9]) == [1, 1]


def test_nothing_found_is_0_and_nothing_to_find_is_not_a_number():
    assert judged([BOX], [], []) == [0, 0]
    assert np.isnan(judged([], [BOX], [0.9])).all()
    assert np.isnan(average_precisions([], [], 3)).all()
