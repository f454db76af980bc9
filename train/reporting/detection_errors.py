"""errors.png: the images that a detector is most wrong about, truth beside prediction, each error by its name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from jaxzoo.detection.drawing import annotated
from jaxzoo.images import as_text
from train.metrics.average_precision import CocoMetrics, Compared
from train.metrics.detection_errors import KINDS, Error, Outcome
from train.reporting import records
from train.reporting.contact_sheet import FAINT, FONT, GAP, INK, LINE, Tile, font_of, write_tiles

if TYPE_CHECKING:
    from train.data import Source
    from train.data.objects import Objects, Skeleton

SHOWN = 12  # images
ACROSS = 2  # of them in a row
SIDE = 336  # pixels of a picture's longer side
NAMED = 12  # boxes of a picture that are drawn with their names, errors before others
RIGHT, CROWD = "#34c759", "#9ca3af"
COLORS = dict(zip(KINDS, ("#ff3b30", "#ff9500", "#ffe119", "#ff4fd8", "#32d7ff"), strict=True))


class Mark(NamedTuple):
    """How an object or a detection, by its row, is drawn."""

    row: int
    color: str
    text: str


def worst(found: Mapping[int, Outcome]) -> list[int]:
    """Indices of the images with errors, those of the most errors first."""
    return sorted((index for index in found if found[index].errors), key=lambda index: -len(found[index].errors))


def draw_errors(
    metrics: CocoMetrics,
    source: "Source",
    found: Mapping[int, Outcome],
    confidence: float,
    path: Path,
    skeleton: "Skeleton | None" = None,
) -> None:
    """Draws the images with the most errors, and what the colours mean. `found` is `outcomes(metrics, confidence)`."""
    width = 2 * ACROSS * (SIDE + GAP) + GAP
    indices, errors = worst(found), sum(len(outcome.errors) for outcome in found.values())
    lines = [
        f"{errors} errors in {len(indices)} of {len(found)} images, at confidence {confidence:.2f} and more"
        + (f"; below the {min(SHOWN, len(indices))} images with the most." if indices else "."),
        "Left the objects that there are, right what was found.",
    ]
    tiles = [_pair(metrics, source, index, found[index], skeleton) for index in indices[:SHOWN]]
    write_tiles(tiles, path)
    strips = [_legend(width, lines)]
    for start in range(0, len(tiles), ACROSS):
        row = tiles[start : start + ACROSS]
        height = max(tile.picture.height for tile in row)
        strip = Image.new("RGB", (width, height + 2 * LINE + 2 * GAP), "white")
        for i, tile in enumerate(row):
            x = GAP + 2 * i * (SIDE + GAP)
            strip.paste(tile.picture, (x, 0))
            for j, (text, color) in enumerate(zip(tile.caption, (INK, FAINT), strict=True)):
                ImageDraw.Draw(strip).text((x, height + 4 + j * LINE), as_text(text), color, font_of(FONT))
        strips.append(strip)
    sheet = Image.new("RGB", (width, sum(strip.height for strip in strips)), "white")
    for i, strip in enumerate(strips):
        sheet.paste(strip, (0, sum(above.height for above in strips[:i])))
    with records.replacing(path) as partial:
        sheet.save(partial, format="png", compress_level=4)  # in half the time, hardly larger


def words(errors: Sequence[Error]) -> str:
    """`2 missed, 1 false`"""
    counts = {kind: sum(error.kind == kind for error in errors) for kind in KINDS}
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)


def object_marks(objects: "Objects", errors: Sequence[Error], classes: Sequence[str]) -> list[Mark]:
    """Of all objects, those with errors first: `missed: cat`"""
    kinds = {error.truth: error.kind for error in errors if error.kind != "found twice"}
    names = [classes[label] for label in objects.labels]
    others = [i for i in range(len(objects)) if i not in kinds]
    return [
        *(Mark(i, COLORS[kinds[i]], f"{kinds[i]}: {names[i]}") for i in range(len(objects)) if i in kinds),
        *(Mark(i, RIGHT, names[i]) for i in others if not objects.crowd[i]),
        *(Mark(i, CROWD, f"crowd: {names[i]}") for i in others if objects.crowd[i]),
    ]


def detection_marks(image: Compared, outcome: Outcome, classes: Sequence[str]) -> list[Mark]:
    """Of all detections that are confident enough, errors first: `confused: cat 90 %, is dog`"""

    def mark(row: int, color: str, start: str = "", end: str = "") -> Mark:
        name, score = classes[image.found["labels"][row]], image.found["scores"][row]
        return Mark(row, color, f"{start}{name} {100 * score:.0f} %{end}")

    marks = []
    for kind, truth, row in outcome.errors:
        is_really = f", is {classes[image.objects.labels[truth]]}" if kind == "confused" else ""
        if row >= 0:
            marks.append(mark(row, COLORS[kind], f"{kind}: ", is_really))
    marks += [mark(row, RIGHT) for _, row in outcome.right]
    return marks + [mark(row, CROWD, "crowd: ") for row in outcome.ignored]


def _pair(
    metrics: CocoMetrics, source: "Source", index: int, outcome: Outcome, skeleton: "Skeleton | None"
) -> Image.Image:
    """Truth and prediction beside each other, and below them what is wrong."""
    (picture, objects), compared = source[index], metrics.images[index]
    marks = object_marks(objects, outcome.errors, metrics.classes)
    rows, parts = [mark.row for mark in marks], {}
    if "segm" in metrics.kinds and objects.masks is not None:
        parts["masks"] = [objects.masks[row] > 0 for row in rows]
    if "keypoints" in metrics.kinds and objects.keypoints is not None:
        parts |= {"keypoints": objects.keypoints[rows, :, :2], "sure": objects.keypoints[rows, :, 2] > 0}
    sides = [_panel(picture, objects.boxes[rows], marks, parts, skeleton)]

    marks, found = detection_marks(compared, outcome, metrics.classes), compared.found
    rows, parts = [mark.row for mark in marks], {}
    if "outlines" in found:  # of the best
        nothing = np.zeros((picture.height, picture.width), bool)
        outlines = dict(enumerate(found["outlines"]))
        parts["masks"] = [coco_mask.decode(outlines[row]) > 0 if row in outlines else nothing for row in rows]
    if "keypoints" in found:
        points = found["keypoints"][rows]
        parts |= {"keypoints": points[..., :2], "sure": np.ones(points.shape[:2], bool)}
    sides.append(_panel(picture, found["boxes"][rows], marks, parts, skeleton))

    pair = Image.new("RGB", (2 * SIDE + GAP, sides[0].height), "white")
    for i, side in enumerate(sides):
        pair.paste(side, (i * (SIDE + GAP), 0))
    return Tile(pair, [words(outcome.errors), Path(source.name(index)).name])


def _panel(
    picture: Image.Image,
    boxes: np.ndarray,
    marks: Sequence[Mark],
    parts: Mapping[str, Any],
    skeleton: "Skeleton | None",
) -> Image.Image:
    body = {"names": skeleton.names, "limbs": skeleton.limbs} if skeleton else {}
    texts = [mark.text if i < NAMED else "" for i, mark in enumerate(marks)]
    colors = [mark.color for mark in marks]
    return annotated(picture, boxes, texts, colors, scale=SIDE / max(picture.size), **parts, **body)


def _legend(width: int, lines: Sequence[str]) -> Image.Image:
    entries = {"right": (RIGHT, "the right class, and box and object overlap by half")}
    entries |= {kind: (COLORS[kind], meaning) for kind, meaning in KINDS.items()}
    strip = Image.new("RGB", (width, (len(lines) + len(entries)) * (LINE + 2) + 3 * GAP), "white")
    draw, y = ImageDraw.Draw(strip), GAP
    for line in lines:
        draw.text((GAP, y), line, INK, font_of(FONT + 2))
        y += LINE + 2
    y += GAP // 2
    for name, (color, meaning) in entries.items():
        draw.rectangle((GAP, y + 2, GAP + 20, y + LINE - 4), color, INK)
        draw.text((GAP + 30, y), f"{name}: {meaning}", INK, font_of(FONT))
        y += LINE + 2
    return strip
