"""Pictures with what was found in them: boxes, names, scores, masks and skeletons, drawn by Pillow."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from jaxzoo.coco import PERSON_KEYPOINTS, SKELETON

SMALLEST = 480  # pixels, of the longer side as it is drawn
OPACITY = 0.45  # of masks
INSIDE = 0.5  # the probability from which a pixel is an object's
SURE = 2  # the height of a heatmap from which a keypoint is drawn, as Detectron has it
COLORS = (
    *("#ff3b30", "#34c759", "#4f8cff", "#ff9500", "#c77dff", "#32d7ff", "#ff4fd8", "#c5f230", "#ffb3c7", "#2ee6b8"),
    *("#ffe119", "#ffd8b1", "#dcbeff", "#ff7a59"),
)
LEFT, RIGHT, MIDDLE = "#ff9f1c", "#2ec4ff", "#ffffff"  # sides of a body

Box = tuple[float, float, float, float]


def drawn(picture: Image.Image, found: Mapping[str, np.ndarray], names: Sequence[str]) -> Image.Image:
    """A copy of an RGB picture, enlarged if it is small, with what `jaxzoo.detect` found in it.

    Args:
      found: `boxes` (n, 4), `labels` (n,), `scores` (n,), and, if there are any, `masks` (n, 1, H, W), `keypoints`
        (n, K, 3) and `keypoints_scores` (n, K).
      names: of all labels.
    """
    texts = [
        f"{names[label]} {100 * score:.0f} %" for label, score in zip(found["labels"], found["scores"], strict=True)
    ]
    parts = {"masks": found["masks"][:, 0] > INSIDE} if "masks" in found else {}
    if "keypoints" in found:
        parts |= {"keypoints": found["keypoints"][..., :2], "sure": found["keypoints_scores"] > SURE}
    colors = [COLORS[label % len(COLORS)] for label in found["labels"]]
    return annotated(picture, found["boxes"], texts, colors, scale=max(1, SMALLEST / max(picture.size)), **parts)


def annotated(
    picture: Image.Image,
    boxes: np.ndarray,
    texts: Sequence[str],
    colors: Sequence[str],
    *,
    scale: float = 1,
    masks: Sequence[np.ndarray] = (),
    keypoints: np.ndarray | None = None,
    sure: np.ndarray | None = None,
    names: Sequence[str] = PERSON_KEYPOINTS,
    limbs: Sequence[tuple[int, int]] = SKELETON,
) -> Image.Image:
    """A copy of an RGB picture, `scale` times as large, with boxes (n, 4), each in a colour and with a text, where that
    is not empty. The first are on top.

    Args:
      masks: (H, W) bool of the first boxes or of all.
      keypoints: (n, K, 2), of which those (n, K) that are `sure` are drawn.
      names: of the keypoints, of which "left" and "right" ones have colours of their own.
      limbs: pairs of keypoints; none unless there are as many keypoints as names.
    """
    size = tuple(max(1, round(side * scale)) for side in picture.size)
    unit = max(1, max(size) / 640)  # pixels of a picture of usual size
    order = range(len(texts))[::-1]  # the best on top
    if scale < 1:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
        masks = [np.array(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)) for mask in masks]
    pixels = np.array(picture)
    for mask, color in [*zip(masks, colors, strict=False)][::-1]:
        tint(pixels, mask, color, max(1, round(2 * unit / max(1, scale))))
    sheet = Image.fromarray(pixels)
    sheet = sheet.resize(size, Image.Resampling.LANCZOS) if size != sheet.size else sheet
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(round(13 * unit))
    boxes = np.asarray(boxes) * scale
    for i in order:
        width = 2 * round(unit)
        draw.rectangle(_within(boxes[i], size, 1), outline="black", width=width + 2)
        draw.rectangle(_within(boxes[i], size), outline=colors[i], width=width)
        if keypoints is not None:
            _skeleton(draw, keypoints[i] * scale, sure[i], unit, names, limbs)
    taken: list[Box] = []
    for box, text in zip(boxes, texts, strict=True):
        taken.append(_place(text, font, _within(box, size), size, taken) if text else (0, 0, 0, 0))
    for i in order:
        if texts[i]:
            left, top, _, bottom = taken[i]
            draw.rectangle(taken[i], colors[i])
            draw.text((left + font.size // 4, (top + bottom) / 2), texts[i], _ink(colors[i]), font, "lm")
    return sheet


def tint(pixels: np.ndarray, mask: np.ndarray, color: str, border: int) -> None:
    """Lays a colour over the pixels (H, W, 3) of a mask (H, W), in place, and draws a border inside it."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    mask, pixels, color = mask[window], pixels[window], np.array(ImageColor.getrgb(color))
    pixels[mask] = (pixels[mask] * (1 - OPACITY) + color * OPACITY).astype(np.uint8)
    core = np.pad(mask, border)
    for _ in range(border):
        core[1:-1, 1:-1] &= core[:-2, 1:-1] & core[2:, 1:-1] & core[1:-1, :-2] & core[1:-1, 2:]
    pixels[mask & ~core[border:-border, border:-border]] = color


def _within(box: np.ndarray, size: tuple[int, int], margin: int = 0) -> Box:
    """The box, with its edges inside the picture, in whole pixels; and a margin around it."""
    limits = np.array([*size, *size]) - 1
    x1, y1, x2, y2 = np.clip(np.nan_to_num(np.round(box)), 0, limits).tolist()
    return x1 - margin, y1 - margin, max(x1, x2) + margin, max(y1, y2) + margin


def _place(text: str, font: ImageFont.FreeTypeFont, box: Box, size: tuple[int, int], taken: Sequence[Box]) -> Box:
    """Where a box's name is written: above, below or in a corner, where least is taken."""
    pad = font.size // 4
    width, height = font.getlength(text) + 2 * pad, font.size + 2 * pad
    x1, y1, x2, y2 = box
    corners = [(x1, y1 - height), (x1, y2), (x1, y1), (x2 - width, y1), (x1, y2 - height), (x2 - width, y2 - height)]
    corners = [(x, y) for x, y in corners if 0 <= y <= size[1] - height] or [(x1, 0)]
    corners = [(max(0, min(x, size[0] - width)), y) for x, y in corners]
    places = [(x, y, x + width, y + height) for x, y in corners]
    return min(places, key=lambda place: sum(_overlap(place, other) for other in taken))


def _ink(ground: str) -> str:
    red, green, blue = ImageColor.getrgb(ground)
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "white"


def _overlap(one: Box, other: Box) -> float:
    width, height = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
    return max(width, 0) * max(height, 0)


def _skeleton(
    draw: ImageDraw.ImageDraw,
    points: np.ndarray,
    sure: np.ndarray,
    unit: float,
    names: Sequence[str],
    limbs: Sequence[tuple[int, int]],
) -> None:
    """Keypoints and the limbs between them; those that are not sure are left out."""
    known = len(points) == len(names)
    places = [tuple(point) for point in points.tolist()]
    sides = [_side(name) for name in names] if known else [MIDDLE] * len(points)
    joined = [pair for pair in limbs if sure[list(pair)].all()] if known else []
    for width, casing in ((5, True), (3, False)):
        for a, b in joined:
            color = "black" if casing else sides[a] if sides[a] == sides[b] else MIDDLE
            draw.line((*places[a], *places[b]), color, round(width * unit))
    radius = 3 * unit
    for i in np.flatnonzero(sure):
        draw.circle(places[i], radius, sides[i], "black", max(1, round(unit)))


def _side(keypoint: str) -> str:
    return LEFT if keypoint.startswith("left") else RIGHT if keypoint.startswith("right") else MIDDLE
