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

from train import records

SIDE, GAP, FONT, LINE = 144, 12, 12, 16  # pixels
INK, FAINT = "#111827", "#6b7280"


class Tile(NamedTuple):
    """A picture and the lines below it."""

    picture: Image.Image
    caption: list[str]


def draw_sheet(tiles: Sequence[Tile], title: str, path: Path, across: int = 8) -> None:
    """Draws the tiles in rows. Large pictures are made smaller, small ones larger in whole steps.

    Args:
      tiles: pictures of one size, RGB; the first line of a caption is darker than the rest, and long ones are broken.
      across: how many tiles make a row.
    """
    pictures = [_fitted(tile.picture) for tile in tiles]
    captions = [[part for text in tile.caption for part in _broken(text, SIDE, FONT)] for tile in tiles]
    high = max((picture.height for picture in pictures), default=SIDE)
    across = max(1, min(across, len(tiles)))
    top, height = LINE + 2 * GAP, high + 4 + max(map(len, captions), default=0) * LINE + GAP
    size = (max(across, 3) * (SIDE + GAP) + GAP, top + math.ceil(len(tiles) / across) * height)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP), _broken(title, size[0] - 2 * GAP, FONT + 2)[0], INK, _font(FONT + 2))
    places = []
    for i, (tile, picture, caption) in enumerate(zip(tiles, pictures, captions, strict=True)):
        row, column = divmod(i, across)
        x, y = GAP + column * (SIDE + GAP), top + row * height
        sheet.paste(picture, (x, y))
        for j, text in enumerate(caption):
            draw.text((x, y + picture.height + 4 + j * LINE), text, FAINT if j else INK, _font(FONT))
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
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings: Latin, Greek, Cyrillic and more."""
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)


def _broken(text: str, width: int, size: int, most: int = 2) -> list[str]:
    """The text in lines of at most `width` pixels, broken between words; beyond `most` lines and in long words, …"""
    font, lines, words = _font(size), [], text.split()
    while words and len(lines) < most:
        taken = len(words) if len(lines) == most - 1 else 1
        while taken < len(words) and font.getlength(" ".join(words[: taken + 1])) <= width:
            taken += 1
        lines.append(_cut(" ".join(words[:taken]), width, font))
        words = words[taken:]
    return lines or [""]


def _cut(text: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"
