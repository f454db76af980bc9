"""Contact sheets: many small pictures with captions in one PNG file, which remembers where they are and what they say.

So report.html takes a sheet apart again and lets the browser arrange the pictures as its window allows.
"""

import functools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from jaxzoo.images import as_text
from train.reporting import records

SIDE, GAP, FONT, LINE = 144, 12, 12, 16  # pixels
INK, FAINT = "#111827", "#6b7280"


class Tile(NamedTuple):
    """A picture and the lines below it."""

    picture: Image.Image
    caption: list[str]


def draw_sheet(tiles: Sequence[Tile], title: str, path: Path, across: int = 8) -> None:
    """Draws the tiles in rows. Large pictures are made smaller, small ones larger in whole steps.

    Args:
      tiles: pictures of one size, RGB; long lines are broken, and the last of several is fainter.
      across: how many tiles make a row.
    """
    pictures, title = [_fitted(tile.picture) for tile in tiles], as_text(title)
    captions = [
        [
            (part, i > 0 and text is tile.caption[-1])
            for i, text in enumerate(tile.caption)
            for part in _broken(as_text(text))
        ]
        for tile in tiles
    ]
    high = max((picture.height for picture in pictures), default=SIDE)
    across = max(1, min(across, len(tiles)))
    top, height = LINE + 2 * GAP, high + 4 + max(map(len, captions), default=0) * LINE + GAP
    wide = max(across * (SIDE + GAP) + GAP, math.ceil(_length(title, FONT + 2)) + 2 * GAP)
    size = (wide, top + math.ceil(len(tiles) / across) * height)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP), title, INK, font_of(FONT + 2))
    places = []
    for i, (tile, picture, caption) in enumerate(zip(tiles, pictures, captions, strict=True)):
        row, column = divmod(i, across)
        x, y = GAP + column * (SIDE + GAP), top + row * height
        sheet.paste(picture, (x, y))
        for j, (text, faint) in enumerate(caption):
            draw.text((x, y + picture.height + 4 + j * LINE), text, FAINT if faint else INK, font_of(FONT))
        places.append({"box": [x, y, x + picture.width, y + picture.height], "caption": tile.caption})
    information = PngImagePlugin.PngInfo()
    information.add_text("tiles", json.dumps(places))
    with records.replacing(path) as partial:
        sheet.save(partial, format="png", pnginfo=information)


def read_sheet(path: Path) -> list[Tile]:
    """The tiles of a sheet; none if it is not there, or is another picture."""
    if not path.exists():
        return []
    with Image.open(path) as sheet:
        sheet.load()
        places = json.loads(sheet.text.get("tiles", "[]"))
        return [Tile(sheet.crop(place["box"]), place["caption"]) for place in places]


def _fitted(picture: Image.Image) -> Image.Image:
    longest = max(picture.size)
    if longest > SIDE:
        return picture.resize([max(1, round(side * SIDE / longest)) for side in picture.size], Image.Resampling.LANCZOS)
    times = SIDE // longest
    return picture.resize([side * times for side in picture.size], Image.Resampling.NEAREST)


@functools.cache
def font_of(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings: Latin, Greek, Cyrillic and more."""
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)


def _broken(text: str, width: int = SIDE, most: int = 3) -> list[str]:
    """The text in lines of at most `width` pixels, broken between words where that can be; beyond `most` lines, …"""
    lines, rest = [], " ".join(text.split())
    while rest and len(lines) < most - 1 and _length(rest) > width:
        fits = next(n for n in range(len(rest), -1, -1) if _length(rest[:n]) <= width)
        space = rest.rfind(" ", 1, fits + 1)
        lines.append(rest[: space if space > 0 else fits])
        rest = rest[len(lines[-1]) :].lstrip()
    if _length(rest) > width:
        rest = next(f"{rest[:n]}…" for n in range(len(rest), -1, -1) if _length(f"{rest[:n]}…") <= width)
    return [*lines, rest]


def _length(text: str, size: int = FONT) -> float:
    return font_of(size).getlength(text)
