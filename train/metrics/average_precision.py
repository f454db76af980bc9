"""COCO's numbers for boxes, masks and keypoints, equal to pycocotools' in every digit.

Lin et al. 2014, Microsoft COCO: Common Objects in Context; the rules are those of its evaluation (cocodataset.org). The
overlaps of boxes and masks are pycocotools' own; the rest is in `train.metrics.coco_matching`, much faster.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from jaxzoo.detection.drawing import INSIDE
from jaxzoo.errors import UsageError
from train.metrics.coco_matching import THRESHOLDS, Curves, Matches, Pairing, curves, match, mean

if TYPE_CHECKING:
    from train.data import Source
    from train.data.objects import Objects

RANGES = {"all": (0, 1e10), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}  # square pixels
OUTLINED = 30  # detections of an image whose masks are kept for pictures


class Measure(NamedTuple):
    """One of COCO's numbers: average precision or recall, at one threshold or over all, for a range of area, among so
    many of the best detections of each image and class."""

    name: str
    threshold: float | None
    area: str
    most: int

    @property
    def of_precision(self) -> bool:
        return self.name.startswith("map")

    def line(self, value: float) -> str:
        """As pycocotools prints it; -1 where there is no such object."""
        kind = "Precision  (AP)" if self.of_precision else "Recall     (AR)"
        threshold = f"{self.threshold:.2f}" if self.threshold else "0.50:0.95"
        value = -1 if np.isnan(value) else value
        return f" Average {kind} @[ IoU={threshold:<9} | area={self.area:>6} | maxDets={self.most:>3} ] = {value:.3f}"


_DETECTION = (
    *(Measure("map", None, "all", 100), Measure("map_50", 0.5, "all", 100), Measure("map_75", 0.75, "all", 100)),
    *(Measure(f"map_{area}", None, area, 100) for area in ("small", "medium", "large")),
    *(Measure(f"mar_{most}", None, "all", most) for most in (1, 10, 100)),
    *(Measure(f"mar_{area}", None, area, 100) for area in ("small", "medium", "large")),
)
_KEYPOINTS = tuple(
    Measure(f"{name}{part}", threshold, area, 20)
    for name in ("map", "mar")
    for part, threshold, area in (
        *(("", None, "all"), ("_50", 0.5, "all"), ("_75", 0.75, "all")),
        *(("_medium", None, "medium"), ("_large", None, "large")),
    )
)
MEASURES = {"bbox": _DETECTION, "segm": _DETECTION, "keypoints": _KEYPOINTS}
PREFIXES = {"bbox": "", "segm": "segm_", "keypoints": "keypoints_"}
TITLES = {"bbox": "Boxes", "segm": "Masks", "keypoints": "Keypoints"}


class Compared(NamedTuple):
    """What was found in an image beside what is there: `overlaps` (D, M) and the detections' `areas` (D,) by kind;
    `found` has the detections' arrays, and `outlines`, run lengths of the first masks. Objects are without masks."""

    objects: "Objects"
    found: dict[str, Any]
    overlaps: dict[str, np.ndarray]
    areas: dict[str, np.ndarray]


class CocoMetrics:
    """A `train.metrics.Collector` of detections.

    Every image that is added counts once, also where nothing is or was found; the order does not matter. Numbers are
    NaN where there is no object to find. Results have `boxes` (D, 4), `labels` and `scores` (D,); for "segm" also
    `masks` (D, 1, H, W), probabilities; for "keypoints" `keypoints` (D, K, 3).

    Args:
      source: of it `objects(index)` is the truth; crowds and `area` count by COCO's rules.
      classes: names, of which the first is the background.
      kinds: of overlap, "bbox", "segm" and "keypoints".
      sigmas: (K,) of the keypoints, as `Skeleton` has them; 1 / K each unless given, as Ultralytics has it.
    """

    def __init__(
        self, source: "Source", classes: Sequence[str], kinds: Sequence[str] = ("bbox",), sigmas: Sequence[float] = ()
    ):
        self.source, self.classes, self.kinds, self.sigmas = source, list(classes), tuple(kinds), np.array(sigmas)
        self.images: dict[int, Compared] = {}
        self._matches: dict[str, Matches] = {}
        self._curves: dict[str, Curves] = {}

    def add(self, index: int, result: Mapping[str, np.ndarray]) -> None:
        """Compares an image's detections with its objects. Raises `UsageError` where masks are asked for that the
        objects lack."""
        objects = self.source.objects(index)
        found = {name: np.asarray(result[name]) for name in ("boxes", "labels", "scores")}
        overlaps, areas = {}, {}
        if "segm" in self.kinds:
            if len(objects) and objects.masks is None:
                raise UsageError(f"{self.source.name(index)} has objects without masks: their precision is unknown")
            found["outlines"] = _outlines(np.asarray(result["masks"])[:, 0] > INSIDE)
            areas["segm"] = coco_mask.area(found["outlines"]) if found["outlines"] else np.zeros(0)
            true = _outlines(objects.masks) if len(objects) else []
            overlaps["segm"] = _overlaps(found["outlines"], true, objects.crowd)
            del found["outlines"][OUTLINED:]
        if "keypoints" in self.kinds:
            found["keypoints"] = np.asarray(result["keypoints"])
            overlaps["keypoints"] = similarities(found["keypoints"], objects, self.sigmas)
            sides = np.ptp(found["keypoints"][..., :2].astype(np.float64), 1)
            areas["keypoints"] = sides[:, 0] * sides[:, 1]
        boxes = _sides(found["boxes"])
        overlaps["bbox"] = _overlaps(boxes, _sides(objects.boxes), objects.crowd)
        areas["bbox"] = boxes[:, 2] * boxes[:, 3]
        self.images[index] = Compared(dataclasses.replace(objects, masks=None), found, overlaps, areas)
        self._matches.clear()
        self._curves.clear()

    def compute(self) -> dict[str, float]:
        """COCO's numbers by torchmetrics' names, such as `map`, `segm_map_50` and `keypoints_mar_large`."""
        measured = {kind: self._measured(kind) for kind in self.kinds}
        return {PREFIXES[kind] + name: mean(values) for kind, of in measured.items() for name, values in of.items()}

    def per_class(self) -> dict[str, np.ndarray]:
        """The same numbers (K,) for each class but the background."""
        return {
            PREFIXES[kind] + name: np.array([mean(values[..., i]) for i in range(values.shape[-1])])
            for kind in self.kinds
            for name, values in self._measured(kind).items()
        }

    def _measured(self, kind: str) -> dict[str, np.ndarray]:
        """For each of COCO's numbers what it is the mean of: (..., K)."""
        (areas, most), found = _settings(kind), self.curves(kind)
        parts = {}
        for name, threshold, area, among in MEASURES[kind]:
            chosen = slice(None) if threshold is None else threshold == THRESHOLDS
            place = areas.index(area)
            precise = name.startswith("map")
            parts[name] = (
                found.precision[chosen, ..., place] if precise else found.recall[chosen, ..., place, most.index(among)]
            )
        return parts

    def matches(self, kind: str = "bbox") -> Matches:
        """What became of every detection; images by their place in `indices`."""
        if kind not in self._matches:
            areas, most = _settings(kind)
            pairings = [_pairing(self.images[index], kind) for index in self.indices]
            self._matches[kind] = match(pairings, len(self.classes), [RANGES[area] for area in areas], most[-1])
        return self._matches[kind]

    def curves(self, kind: str = "bbox") -> Curves:
        """Precision and recall of every class."""
        if kind not in self._curves:
            self._curves[kind] = curves(self.matches(kind), _settings(kind)[1])
        return self._curves[kind]

    @property
    def indices(self) -> list[int]:
        """Of the images that were added, in the source's order."""
        return sorted(self.images)


def coco_table(numbers: Mapping[str, float]) -> str:
    """The numbers of `CocoMetrics.compute`, or of a row of metrics.csv without its side, as pycocotools prints them."""
    kinds = [kind for kind in MEASURES if f"{PREFIXES[kind]}map" in numbers]
    lines = []
    for kind in kinds:
        lines += [f"{TITLES[kind]}:"] * (len(kinds) > 1)
        lines += [measure.line(numbers[PREFIXES[kind] + measure.name]) for measure in MEASURES[kind]]
    return "\n".join(lines)


def similarities(keypoints: np.ndarray, objects: "Objects", sigmas: np.ndarray) -> np.ndarray:
    """COCO's object keypoint similarity (D, M) float64 of detections (D, K, 3) and objects.

    Where an object's keypoints are not annotated, those near its box are right: within twice its sides.
    """
    found, similarity = keypoints[..., :2].astype(np.float64), np.zeros((len(keypoints), len(objects)))
    if not similarity.size:
        return similarity
    count = keypoints.shape[1]
    variances = ((sigmas if len(sigmas) else np.full(count, 1 / count)) * 2) ** 2
    true = np.zeros((len(objects), count, 3)) if objects.keypoints is None else objects.keypoints.astype(np.float64)
    for i, (points, box, area) in enumerate(
        zip(true, _sides(objects.boxes), objects.area.astype(np.float64), strict=True)
    ):
        seen = points[:, 2] > 0
        distances = found - points[:, :2]
        if not seen.any():
            low, high = box[:2] - box[2:], box[:2] + box[2:] * 2
            distances = np.maximum(0, low - found) + np.maximum(0, found - high)
        squares = (distances[..., 0] ** 2 + distances[..., 1] ** 2) / variances / (area + np.spacing(1)) / 2
        squares = squares[:, seen] if seen.any() else squares
        similarity[:, i] = np.exp(-squares).sum(1) / squares.shape[1]
    return similarity


def _settings(kind: str) -> tuple[list[str], list[int]]:
    """Which ranges of area and numbers of detections count."""
    areas = [area for area in RANGES if any(measure.area == area for measure in MEASURES[kind])]
    return areas, sorted({measure.most for measure in MEASURES[kind]})


def _pairing(image: Compared, kind: str) -> Pairing:
    objects, ignored = image.objects, image.objects.crowd
    if kind == "keypoints":
        unseen = True if objects.keypoints is None else ~(objects.keypoints[..., 2] > 0).any(1)
        ignored = ignored | unseen
    found = (image.found["labels"], image.found["scores"], image.areas[kind])
    return Pairing(*found, objects.labels, objects.area, ignored, objects.crowd, image.overlaps[kind])


def _sides(boxes: np.ndarray) -> np.ndarray:
    """(x1, y1, x2, y2) as (x, y, width, height), float64."""
    boxes = boxes.astype(np.float64)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)


def _outlines(masks: np.ndarray) -> list[dict]:
    """Masks (N, H, W) as run lengths."""
    return coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0), np.uint8)) if len(masks) else []


def _overlaps(found: Any, true: Any, crowd: np.ndarray) -> np.ndarray:
    """Intersection over union, or of a crowd over the detection: (D, M) float64."""
    if not len(found) or not len(true):
        return np.zeros((len(found), len(true)))
    return np.asarray(coco_mask.iou(found, true, crowd.astype(np.uint8).tolist()))
