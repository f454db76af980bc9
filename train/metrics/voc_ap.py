"""PASCAL VOC's average precision: of 2007 at eleven recalls, since 2010 the area under the curve.

Everingham et al. 2010, The PASCAL Visual Object Classes Challenge, §4.2, and its development kits. All detections
count. A detection finds the object of its class that it overlaps most, if by more than a half, and no other; if one of
a higher score has found it before, it is false. Difficult objects, `crowd` here, do not count, nor does what finds
them.

VOC numbers pixels from 1 and has the first and the last of a box, whose width is `xmax - xmin + 1`. The boxes of this
package are edges, from `xmin - 1` to `xmax`, so that it is the difference here. (VOC's own program takes exactly a half
as well; the paper and most others that people use do not.)
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pycocotools import mask as coco_mask

if TYPE_CHECKING:
    from train.data.objects import Objects

OVERLAP = 0.5
RECALLS = np.arange(11) / 10


def average_precisions(
    truths: Sequence["Objects"], found: Sequence[dict[str, np.ndarray]], classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """By the rules of 2007, and by those of 2010 and later: of every class but the background (K,), NaN where there is
    no object that counts. `found` has `boxes` (D, 4), `labels` and `scores` (D,) of each image."""
    columns = [_judged(*image) for image in zip(truths, found, strict=True)]
    image = np.repeat(np.arange(len(columns)), [len(rows) for rows, *_ in columns])
    labels, scores, best, close, ignored = (
        map(np.concatenate, zip(*columns, strict=True)) if columns else [np.zeros(0)] * 5
    )
    counting = [truth.labels[~truth.crowd] for truth in truths]
    totals = np.bincount(np.concatenate([*counting, [0]]).astype(np.int64), minlength=classes)
    eleven, area = np.full((2, classes - 1), np.nan)
    for label in range(1, classes):
        if not totals[label]:
            continue
        chosen = np.flatnonzero((labels == label) & ~(close & ignored))
        chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
        right = np.zeros(len(chosen), bool)
        candidates = np.flatnonzero(close[chosen])
        pairs = np.stack([image[chosen], best[chosen]])[:, candidates]
        right[candidates[np.unique(pairs, axis=1, return_index=True)[1]]] = True
        hits = right.cumsum()
        recall, precision = hits / totals[label], hits / np.arange(1, len(hits) + 1)
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        reached = np.searchsorted(recall, RECALLS, "left")
        eleven[label - 1] = np.append(precision, 0)[reached].sum() / 11
        area[label - 1] = (np.diff(recall, prepend=0) * precision).sum()
    return eleven, area


def _judged(truth: "Objects", found: dict[str, np.ndarray]) -> tuple[np.ndarray, ...]:
    """Of each detection of an image: its label and score, the object it can be, whether it is near enough, and whether
    that object does not count."""
    labels, scores = np.asarray(found["labels"]), np.asarray(found["scores"], np.float64)
    if not len(labels) or not len(truth):
        nothing = np.zeros(len(labels), bool)
        return labels, scores, nothing.astype(int), nothing, nothing
    sides = [
        np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
        for boxes in (np.asarray(found["boxes"], np.float64), truth.boxes.astype(np.float64))
    ]
    overlaps = np.where(labels[:, None] == truth.labels, coco_mask.iou(*sides, [0] * len(truth)), 0)
    best = overlaps.argmax(1)
    return labels, scores, best, overlaps.max(1) > OVERLAP, truth.crowd[best]
