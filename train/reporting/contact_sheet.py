"""Contact sheets: many small pictures with captions in one PNG file, and beside it as JSON for report.html, where the
browser arranges them as its window allows."""

import base64
import functools
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from jaxzoo.images import as_text
from train.reporting import records

SIDE, GAP, FONT, LINE = 144, 12, 12, 16  # pixels
INK, FAINT = "#111827", "#6b7280"


class Tile(NamedTuple):
    """A picture, the lines below it, how long its longer side is on a sheet, and the width and height of what it shows,
    in pixels, if these are not its own."""

    picture: Image.Image
    caption: list[str]
    side: int = SIDE
    size: tuple[int, int] | None = None


def draw_sheet(tiles: Sequence[Tile], title: str, path: Path, across: int = 8, *, keep: bool = True) -> None:
    """Draws the tiles in rows. Large pictures are made smaller, small ones larger in whole steps.

    Args:
      tiles: pictures of one size, RGB; long lines are broken, and the last of several is fainter.
      across: how many tiles make a row, if they are of the usual size; as wide is a row of larger ones.
      keep: also writes them, one by one, for `read_tiles(path)`.
    """
    side = max((tile.side for tile in tiles), default=SIDE)
    tiles, title = [tile._replace(picture=_fitted(tile.picture, side)) for tile in tiles], as_text(title)
    captions = [_lines(tile.caption, side) for tile in tiles]
    across = max(1, min(across * SIDE // side, len(tiles)))
    top = LINE + 2 * GAP
    height = max((tile.picture.height for tile in tiles), default=side) + max(map(len, captions), default=0) * LINE
    height += 4 + GAP
    width = max(across * (side + GAP) + GAP, math.ceil(_length(title, FONT + 2)) + 2 * GAP)
    sheet = Image.new("RGB", (width, top + math.ceil(len(tiles) / across) * height), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP), title, INK, font_of(FONT + 2))
    for i, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        x, y = GAP + i % across * (side + GAP), top + i // across * height
        sheet.paste(tile.picture, (x, y))
        for j, (text, color) in enumerate(caption):
            draw.text((x, y + tile.picture.height + 4 + j * LINE), text, color, font_of(FONT))
    if keep:
        write_tiles(tiles, path)
    with records.replacing(path) as partial:
        sheet.save(partial, format="png")


def write_tiles(tiles: Sequence[Tile], path: Path) -> None:
    """Writes them, one by one, beside the sheet of this name."""
    with records.replacing(path.with_suffix(".json")) as partial:
        partial.write_text(json.dumps([{"jpeg": _jpeg(tile.picture), "caption": tile.caption} for tile in tiles]))


def read_tiles(path: Path) -> list[dict]:
    """The tiles of a sheet as `jpeg`, in base64, and `caption`, a list of lines; none if they were not kept."""
    file = path.with_suffix(".json")
    return json.loads(file.read_text()) if file.exists() else []


def _jpeg(picture: Image.Image) -> str:
    data = io.BytesIO()
    picture.convert("RGB").save(data, "jpeg", quality=88)
    return base64.b64encode(data.getvalue()).decode()


def _lines(caption: Sequence[str], width: int) -> list[tuple[str, str]]:
    """The lines of a caption as they fit below a picture, with their colours."""
    colors = [INK if i == 0 or i < len(caption) - 1 else FAINT for i in range(len(caption))]
    return [
        (part, color) for text, color in zip(caption, colors, strict=True) for part in _broken(as_text(text), width)
    ]


def _fitted(picture: Image.Image, side: int) -> Image.Image:
    longest = max(picture.size)
    if longest > side:
        size = [max(1, round(length * side / longest)) for length in picture.size]
        return picture.resize(size, Image.Resampling.LANCZOS)
    return picture.resize([length * (side // longest) for length in picture.size], Image.Resampling.NEAREST)


@functools.cache
def font_of(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings: Latin, Greek, Cyrillic and more."""
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)


def _broken(text: str, width: int, most: int = 3) -> list[str]:
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
