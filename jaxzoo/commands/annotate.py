"""Pictures with their predictions below, drawn by Pillow."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

SIZE_LIMITS = 360, 720  # pixels, of the longer side as it is drawn
ROW, MARGIN = 28, 8
INK, BAR, PAPER = "#111827", "#bfdbfe", "#ffffff"


def annotated(picture: Image.Image, predictions: Sequence[tuple[str, float]]) -> Image.Image:
    """The RGB picture, and below it a bar for each (class, probability)."""
    side = max(picture.size)
    scale = min(max(side, SIZE_LIMITS[0]), SIZE_LIMITS[1]) / side
    size = tuple(max(1, round(length * scale)) for length in picture.size)
    picture = picture.resize(size, Image.Resampling.NEAREST if scale > 4 else Image.Resampling.LANCZOS)
    width, height = max(size[0], SIZE_LIMITS[0]), size[1] + MARGIN
    sheet = Image.new("RGB", (width, height + ROW * len(predictions) + MARGIN), PAPER)
    sheet.paste(picture, ((width - size[0]) // 2, 0))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for row, (name, probability) in enumerate(predictions):
        top, middle = height + ROW * row, height + ROW * row + ROW // 2
        percent = f"{100 * probability:.1f} %"
        full = width - 2 * MARGIN
        draw.rectangle((MARGIN, top + 2, MARGIN + probability * full, top + ROW - 2), BAR)
        draw.text((width - 2 * MARGIN, middle), percent, INK, font, "rm")
        room = full - draw.textlength(percent, font) - 3 * MARGIN
        draw.text((2 * MARGIN, middle), _shortened(name, room, font), INK, font, "lm")
    return sheet


def _shortened(text: str, room: float, font: ImageFont.ImageFont) -> str:
    text = " ".join(text.split())
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(text + "…") > room:
        text = text[:-1]
    return text.rstrip() + "…"
