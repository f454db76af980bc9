"""Pictures and tables of what a detector found: average precision, curves, confusions, and errors by name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from jaxzoo.images import as_text
from train.metrics import voc_ap
from train.metrics.average_precision import MEASURES, PREFIXES, TITLES, CocoMetrics
from train.metrics.coco_matching import RECALLS
from train.metrics.detection_errors import (
    CONFIDENCES,
    KINDS,
    ByConfidence,
    Outcome,
    by_confidence,
    confusion,
    mean_over_classes,
    outcomes,
)
from train.reporting import records
from train.reporting.confusion import draw_confusion, write_matrix
from train.reporting.curves import BLUE, GRAY
from train.reporting.detection_errors import draw_errors, worst
from train.reporting.figure import save

if TYPE_CHECKING:
    from train.data import Source
    from train.data.objects import Skeleton

LISTED = 1000  # images whose errors are written down
NAMED = 10  # more classes than these, and curves are all of one colour
CLASS_COLUMNS = (
    *("map", "map_50", "map_75", "map_small", "map_medium", "map_large", "mar_100"),
    *(f"{kind}_{name}" for kind in ("segm", "keypoints") for name in ("map", "map_50", "map_75")),
)
AREAS = {
    "all": "",
    "small": ", small objects (up to 32 × 32 pixels)",
    "medium": ", medium objects",
    "large": ", large objects (from 96 × 96 pixels on)",
}


def draw(
    metrics: CocoMetrics, source: "Source", classes: Sequence[str], folder: Path, skeleton: "Skeleton | None" = None
) -> None:
    """Writes all of them into a run's folder.

    Tables: average_precision.csv, per_class_ap.csv, confidence.csv, confusion.csv, errors.csv, errors_by_class.csv.
    Pictures: precision_recall.png, confidence.png, confusion_matrix.png, errors.png.
    """
    scores = by_confidence(metrics)
    confidence = scores.best()
    found = outcomes(metrics, confidence)
    matrix = confusion(metrics, found)
    images = [metrics.images[index] for index in metrics.indices]
    voc = voc_ap.average_precisions(
        [image.objects for image in images], [image.found for image in images], len(classes)
    )
    _write_precision(metrics, voc, folder)
    _write_classes(metrics, voc, scores, confidence, classes, folder)
    _write_confidence(scores, confidence, folder)
    write_matrix(matrix, classes, folder)
    _write_errors(metrics, source, found, classes, folder)
    draw_precision_recall(metrics, classes, folder / "precision_recall.png")
    draw_confidence(scores, confidence, classes, folder / "confidence.png")
    right = f"{np.trace(matrix)} of {matrix[1:].sum()} objects are right, at confidence {confidence:.2f} and more"
    right += "\nfirst column: missed; first row: false, or found twice"
    draw_confusion(matrix, classes, folder / "confusion_matrix.png", title=right)
    draw_errors(metrics, source, found, confidence, folder / "errors.png", skeleton)


# Tables


def _write_precision(metrics: CocoMetrics, voc: Sequence[np.ndarray], folder: Path) -> None:
    """average_precision.csv: COCO's numbers in words, a column for each kind, and VOC's; empty where there is none."""
    numbers, rows = metrics.compute(), {}
    for kind in metrics.kinds:
        for measure in MEASURES[kind]:
            recall = {1: "AR, 1 detection", 10: "AR, 10 detections"}.get(measure.most, "AR")
            threshold = f"{measure.threshold:.2f}" if measure.threshold else "0.50 to 0.95"
            name = f"{'AP' if measure.of_precision else recall}, IoU {threshold}{AREAS[measure.area]}"
            rows.setdefault(name, {})[TITLES[kind].lower()] = numbers[PREFIXES[kind] + measure.name]
    for year, values in zip(("2007 (eleven recalls)", "2012 (area)"), voc, strict=True):
        rows[f"VOC {year}, IoU 0.50"] = {"boxes": float(mean_over_classes(values))}
    columns = [TITLES[kind].lower() for kind in metrics.kinds]
    table = [{"measure": name} | {column: _known(row.get(column)) for column in columns} for name, row in rows.items()]
    records.write(folder / "average_precision.csv", table)


def _write_classes(
    metrics: CocoMetrics,
    voc: Sequence[np.ndarray],
    scores: ByConfidence,
    confidence: float,
    classes: Sequence[str],
    folder: Path,
) -> None:
    """per_class_ap.csv; precision, recall and F1 are those at the best confidence, for boxes."""
    place, each = int(np.searchsorted(CONFIDENCES, confidence)), metrics.per_class()
    columns = {name.replace("map", "ap").replace("mar", "ar"): each[name] for name in each if name in CLASS_COLUMNS}
    columns |= {name: values[:, place] for name, values in scores._asdict().items()}
    columns |= {"voc_2007": voc[0], "voc_2012": voc[1]}
    counts = metrics.matches().objects[1:, 0].tolist()
    rows = [
        {"class": classes[i + 1], "objects": count} | {name: _known(values[i]) for name, values in columns.items()}
        for i, count in enumerate(counts)
    ]
    records.write(folder / "per_class_ap.csv", rows, ["class", "objects", *columns])


def _write_confidence(scores: ByConfidence, confidence: float, folder: Path) -> None:
    """confidence.csv: means over the classes, and which confidence was chosen for the errors."""
    rows = [
        {"confidence": float(least)} | {name: _known(mean_over_classes(of)[i]) for name, of in scores._asdict().items()}
        for i, least in enumerate(CONFIDENCES)
    ]
    records.write(folder / "confidence.csv", [row | {"chosen": int(row["confidence"] == confidence)} for row in rows])


def _write_errors(
    metrics: CocoMetrics, source: "Source", found: Mapping[int, Outcome], classes: Sequence[str], folder: Path
) -> None:
    """errors.csv, of the images with the most errors, and errors_by_class.csv: by the object's class, or by that of a
    detection where there is no object."""
    rows = []
    for index in worst(found)[:LISTED]:
        image = metrics.images[index]
        for kind, truth, detection in found[index].errors:
            row = {"name": source.name(index), "error": kind, "true": "", "predicted": "", "confidence": "", "iou": ""}
            row |= {"true": classes[image.objects.labels[truth]]} if truth >= 0 else {}
            if detection >= 0:
                label, score = image.found["labels"][detection], float(image.found["scores"][detection])
                row |= {"predicted": classes[label], "confidence": score}
            if truth >= 0 and detection >= 0:
                row["iou"] = float(image.overlaps["bbox"][detection, truth])
            rows.append(row)
    records.write(folder / "errors.csv", rows, ["name", "error", "true", "predicted", "confidence", "iou"])
    counts = np.zeros((len(classes), 1 + len(KINDS)), np.int64)
    for index, outcome in found.items():
        true, predicted = metrics.images[index].objects.labels, metrics.images[index].found["labels"]
        for truth, _ in outcome.right:
            counts[true[truth], 0] += 1
        for kind, truth, detection in outcome.errors:
            label = true[truth] if truth >= 0 else predicted[detection]
            counts[label, 1 + list(KINDS).index(kind)] += 1
    columns = ["class", "right", *KINDS]
    table = [dict(zip(columns, [name, *row], strict=True)) for name, row in zip(classes, counts.tolist(), strict=True)]
    records.write(folder / "errors_by_class.csv", table[1:], columns)


def _known(value: float | None) -> float | str:
    return "" if value is None or value != value else float(value)


# Curves


def draw_precision_recall(metrics: CocoMetrics, classes: Sequence[str], path: Path) -> None:
    """Precision by recall at an IoU of 0.5: thin lines are classes, the thick one is their mean."""
    figure = Figure(figsize=(5.6 * len(metrics.kinds), 4.6), layout="constrained")
    places = figure.subplots(1, len(metrics.kinds), squeeze=False)[0]
    for axes, kind in zip(places, metrics.kinds, strict=True):
        precision = metrics.curves(kind).precision[0, :, :, 0].T  # (K, R)
        precision = np.where(precision > -1, precision, np.nan)
        each = precision.mean(1)
        labels = [f"{name} {value:.3f}" for name, value in zip(classes[1:], each, strict=True)]
        average = float(mean_over_classes(each))
        average = f"mean {average:.3f}" if average == average else "no objects"
        _draw_lines(axes, RECALLS, precision, mean_over_classes(precision), labels, average)
        axes.set_xlabel("recall: the part of the objects that is found")
        axes.set_ylabel("precision: the part of the found that is right")
        axes.set_title(f"{TITLES[kind]} at IoU 0.5; AP is the area below", fontsize=11)
        axes.legend(fontsize=8, loc="best", edgecolor="none", framealpha=0.6)
    save(figure, path)


def draw_confidence(scores: ByConfidence, confidence: float, classes: Sequence[str], path: Path) -> None:
    """Precision, recall and F1 at an IoU of 0.5, when only detections of a confidence and more count."""
    figure = Figure(figsize=(15, 4.4), layout="constrained")
    titles = (
        "Precision: the part of the found that is right",
        "Recall: the part of the objects that is found",
        "F1: the harmonic mean of both",
    )
    for axes, values, title in zip(figure.subplots(1, 3), scores, titles, strict=True):
        means = mean_over_classes(values)
        _draw_lines(axes, CONFIDENCES, values, means, classes[1:], "mean of classes")
        axes.set_xlabel("confidence from which on detections count")
        axes.set_title(title, fontsize=11)
        axes.axvline(confidence, color=GRAY, linewidth=1, linestyle=":")
        height = means[int(np.searchsorted(CONFIDENCES, confidence))]
        if height == height:
            axes.plot([confidence], [height], "o", color=BLUE)
            note = f"{height:.2f} at {confidence:.2f}" + (", the best" if values is scores.f1 else "")
            away, aligned = (8, "left") if confidence < 0.6 else (-8, "right")
            shade = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1}
            where = {"xytext": (away, 8), "textcoords": "offset points", "ha": aligned}
            axes.annotate(note, (confidence, height), **where, bbox=shade)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, path)


def _draw_lines(
    axes: Axes, x: np.ndarray, lines: np.ndarray, thick: np.ndarray, labels: Sequence[str], label: str
) -> None:
    known = [i for i in range(len(lines)) if not np.isnan(lines[i]).all()]
    if len(known) <= NAMED:
        for i in known:
            axes.plot(x, lines[i], linewidth=1, label=as_text(labels[i]).replace("$", r"\$"), color=f"C{i % 10}")
    else:
        axes.add_collection(LineCollection([np.stack([x, lines[i]], 1) for i in known], colors=GRAY, linewidths=0.5))
    axes.plot(x, thick, color=BLUE, linewidth=3, label=label)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.3, color=GRAY, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
