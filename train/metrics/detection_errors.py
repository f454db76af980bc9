"""What a detector does wrong, at one confidence and by confidence: at an overlap (IoU) of a half, by boxes.

A detection is right if COCO's rules match it with an object of its class. The others, and the objects that none is
matched with, are errors of a few kinds, as in Bolya et al. 2020, TIDE.
"""

from typing import NamedTuple

import numpy as np

from train.metrics.average_precision import CocoMetrics, Compared

OVERLAP = 0.5
NEAR = 0.1  # an overlap from which on a box is badly placed rather than false
CONFIDENCES = np.arange(101) / 100
KINDS = {
    "missed": "an object that nothing was found for",
    "false": "a detection where there is no object",
    "badly placed": "the right class, but box and object overlap by less than half",
    "confused": "a good box, but the wrong class",
    "found twice": "another detection of an object, whatever its class",
}


class Error(NamedTuple):
    """A kind, and the row of the object and that of the detection in an image; -1 for none."""

    kind: str
    truth: int
    detection: int


class Outcome(NamedTuple):
    """What became of an image: pairs (object, detection) that are right, the errors, and the detections that do not
    count because they find a crowd."""

    right: list[tuple[int, int]]
    errors: list[Error]
    ignored: list[int]


class ByConfidence(NamedTuple):
    """Precision, recall and F1 (K, 101) of each class when only detections of at least `CONFIDENCES` count; NaN where
    there is nothing to divide by."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray

    def best(self) -> float:
        """The confidence at which the mean F1 of the classes is highest; of several, the middle one. 0.5 if it is
        nowhere above 0."""
        means = mean_over_classes(self.f1)
        places = np.flatnonzero(means == np.nanmax(means, initial=0))
        return float(CONFIDENCES[places[len(places) // 2]]) if len(places) and means[places[0]] > 0 else 0.5


def by_confidence(metrics: CocoMetrics) -> ByConfidence:
    """Of all images together."""
    matches = metrics.matches()
    counts, right = ~matches.ignored[0, 0], matches.matched[0, 0] & ~matches.ignored[0, 0]
    columns = []
    for label in range(1, len(metrics.classes)):
        scores = [np.sort(matches.score[(matches.label == label) & of]) for of in (right, counts)]
        hits, found = (len(of) - np.searchsorted(of, CONFIDENCES, "left") for of in scores)
        objects = matches.objects[label, 0]
        with np.errstate(invalid="ignore"):
            f1 = 2 * hits / (found + objects if objects else np.nan)
            columns.append((hits / found, hits / (objects or np.nan), f1))
    return ByConfidence(*np.array(columns).reshape(-1, 3, len(CONFIDENCES)).swapaxes(0, 1))


def mean_over_classes(values: np.ndarray) -> np.ndarray:
    """(K, ...) to (...), without those that are NaN; NaN where all are."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0).sum(0) / known.sum(0)


def outcomes(metrics: CocoMetrics, confidence: float) -> dict[int, Outcome]:
    """Of every image by its index, when only detections of at least this confidence count."""
    matches, found = metrics.matches(), {}
    ends = np.searchsorted(matches.image, np.arange(len(metrics.indices) + 1))
    for place, index in enumerate(metrics.indices):
        rows = np.arange(ends[place], ends[place + 1])
        rows = rows[matches.score[rows] >= confidence]
        matched, ignored = matches.matched[0, 0, rows], matches.ignored[0, 0, rows]
        hits, wrong = rows[matched & ~ignored], matches.row[rows[~matched & ~ignored]]
        right = list(zip(matches.truth[hits].tolist(), matches.row[hits].tolist(), strict=True))
        errors = _errors(metrics.images[index], right, wrong)
        found[index] = Outcome(right, errors, matches.row[rows[ignored]].tolist())
    return found


def confusion(metrics: CocoMetrics, found: dict[int, Outcome]) -> np.ndarray:
    """Counts (classes, classes): objects by their class (rows) and what was found there (columns). In the first row is
    what was found where there is no object, or twice, in the first column what was missed."""
    matrix = np.zeros((len(metrics.classes), len(metrics.classes)), np.int64)
    for index, outcome in found.items():
        image = metrics.images[index]
        true, labels = image.objects.labels, image.found["labels"]
        for truth, detection in outcome.right:
            matrix[true[truth], labels[detection]] += 1
        for kind, truth, detection in outcome.errors:
            if kind == "confused":
                matrix[true[truth], labels[detection]] += 1
                continue
            if kind in ("missed", "badly placed"):
                matrix[true[truth], 0] += 1
            if kind != "missed":
                matrix[0, labels[detection]] += 1
    return matrix


def _errors(image: Compared, right: list[tuple[int, int]], wrong: np.ndarray) -> list[Error]:
    """The errors of an image whose `wrong` detections match nothing: the confident ones first, then what is missed."""
    objects, labels, overlaps = image.objects, image.found["labels"], image.overlaps["bbox"]
    free = ~objects.crowd & ~np.isin(np.arange(len(objects)), [truth for truth, _ in right])
    errors: dict[int, Error] = {}
    wrong = wrong[np.argsort(-image.found["scores"][wrong], kind="stable")].tolist()
    # Good boxes of a wrong class come first, so that a bad one does not take their object.
    for kind, least in (("confused", OVERLAP), ("badly placed", NEAR)):
        for row in wrong:
            other = objects.labels != labels[row] if kind == "confused" else objects.labels == labels[row]
            candidates = np.where(free & other, overlaps[row], 0)
            if row not in errors and len(candidates) and candidates.max() >= least:
                truth = int(candidates.argmax())
                errors[row] = Error(kind, truth, row)
                free[truth] = False
    for row in wrong:
        again = np.where(objects.crowd | free, 0, overlaps[row])
        twice = len(again) and again.max() >= OVERLAP
        errors.setdefault(row, Error("found twice", int(again.argmax()), row) if twice else Error("false", -1, row))
    return [errors[row] for row in wrong] + [Error("missed", int(truth), -1) for truth in np.flatnonzero(free)]
