"""`python -m jaxzoo inspect receptive-field`: the pixels that reach an output."""

from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from jaxzoo.cache import keep_compiled_programs
from jaxzoo.commands.pictures import check_new
from jaxzoo.errors import UsageError
from jaxzoo.inspect.receptive_field import ReceptiveField
from jaxzoo.inspect.receptive_field import receptive_field as measured
from jaxzoo.registry import card, create_model

PAPER, FRAME = (255, 255, 255), (220, 38, 38)
SMALLEST = 512  # pixels, to which smaller pictures are enlarged


def receptive_field(
    name: tyro.conf.Positional[str],
    /,
    size: int | None = None,
    layer: str = "",
    whole: bool = False,
    out: Path | None = None,
) -> None:
    """Show the receptive field of the output's central pixel: its extent, and the pixels in it without influence.

    That depends on the architecture alone, so no weights are needed.

    Args:
        name: Model, such as resnet50; `jaxzoo list` shows all.
        size: Side of the square input image, in pixels. Default: the model's own.
        layer: Path of a module, such as layer3.0.conv1; `jaxzoo info NAME` shows them. Default: the whole model.
        whole: Include paths through global averages (pooling, squeeze-and-excitation), which every pixel reaches.
        out: New PNG file for a map of these pixels, darker where their influence is stronger, in a red frame.
    """
    side = card(name).input_size if size is None else size
    if side < 1:
        raise UsageError(f"--size {size} is too small")
    if out:
        check_new(out)
        if out.suffix.lower() != ".png":
            raise UsageError(f"--out {out} must be a .png file")
    keep_compiled_programs()
    try:
        field = measured(create_model(name), side, layer=layer, whole=whole)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        if isinstance(error, UsageError) or size is None:
            raise
        raise UsageError(f"{name} cannot take images of {side} × {side} pixels: {error}") from error
    top, left, bottom, right = field.box
    cut = " (cut off at the border of the image)" if min(top, left) == 0 or max(bottom, right) == side else ""
    print(f"{name}{f', {layer}' if layer else ''}: one pixel of the output, in an image of {side} × {side}")
    print(f"reached: {bottom - top} × {right - left} pixels, rows {top}–{bottom - 1}, columns {left}–{right - 1}{cut}")
    total = (bottom - top) * (right - left)
    print(f"of these pixels {round(field.share * total):,} of {total:,} are reached ({100 * field.share:.1f} %)")
    if out:
        drawn(field).save(out)


def drawn(field: ReceptiveField) -> Image.Image:
    """The pixels that are reached, blue and the darker the stronger (by logarithm); white where none is."""
    reached = field.influence > 0
    strength = np.log(np.where(reached, field.influence, 1))
    strength = 1 - strength / min(strength.min(), -1e-9)  # 1 is the strongest, 0 the weakest that there is
    light, dark = np.array([191, 219, 254]), np.array([15, 23, 90])
    pixels = np.where(reached[..., None], light + (dark - light) * strength[..., None], PAPER).astype(np.uint8)
    zoom = max(1, SMALLEST // max(reached.shape))
    pixels = np.pad(pixels.repeat(zoom, 0).repeat(zoom, 1), ((1, 1), (1, 1), (0, 0)), constant_values=255)
    top, left, bottom, right = (edge * zoom + shift for edge, shift in zip(field.box, (0, 0, 1, 1), strict=True))
    pixels[[top, bottom], left : right + 1] = FRAME
    pixels[top : bottom + 1, [left, right]] = FRAME
    return Image.fromarray(pixels)
