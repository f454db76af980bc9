"""`python -m jaxzoo inspect features`: the maps inside a network."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import tyro
from PIL import Image

from jaxzoo.commands.inspect.sight import Sight, check_outputs, draw_rows
from jaxzoo.errors import UsageError
from jaxzoo.feature_extraction import feature_extractor
from jaxzoo.inspect.drawing import map_picture
from jaxzoo.inspect.maps import as_map, described, grid_of, stages, strongest

SIDE, ACROSS = 96, 12  # pixels of a map's longer side, and maps in a row
STRIP_SIDE, STRIP_ROWS = 144, 4


def features(
    image: tyro.conf.Positional[Path],
    /,
    model: str,
    weights: str,
    out: Annotated[Path, tyro.conf.arg(aliases=("--output",))],
    layer: str | None = None,
    strip: bool = False,
    strongest_channels: Annotated[int, tyro.conf.arg(name="strongest")] = 60,
    arrays: Path | None = None,
) -> None:
    """Draw what a layer makes of an image, channel by channel, or a strip of it through the network.

    Each channel is drawn from its least value, dark, to its greatest, bright. The strongest are those that vary most.

    Args:
        image: Image file.
        model: Model, such as resnet50; `jaxzoo list` shows all.
        weights: Those that `jaxzoo predict` takes.
        out: New PNG file for the sheet.
        layer: Path of a module that gives a map, such as layer3; `jaxzoo info NAME` shows all. Needed without --strip.
        strip: Draw the four strongest channels at the end of each stage, from left to right.
        strongest_channels: So many channels of the layer, the strongest first; 0 for all, in their order.
        arrays: New .npz file for the whole maps, by the paths of the layers.
    """
    check_outputs(out, arrays)
    if strip == (layer is not None):
        raise UsageError("name one: --layer PATH, or --strip for the whole network")
    if strongest_channels < 0:
        raise UsageError(f"--strongest is {strongest_channels}; it must be at least 0")
    sight = Sight.of(model, weights)
    with ThreadPoolExecutor(1) as pool:
        seen = next(sight.views([image], pool), None)
    if seen is None:
        raise UsageError("there is no image to look at")
    _, _, view = seen
    paths = stages(sight.model, view.inputs) if strip else [layer]
    extractor = feature_extractor(sight.model, dict(zip(paths, map(str, range(len(paths))), strict=True)))
    found = jax.device_get(jax.jit(lambda model, inputs: model(*inputs))(extractor, view.inputs))
    maps = {}
    for number, path in enumerate(paths):
        result = found[str(number)]
        grid = grid_of(result, view.inputs[0].shape)
        if not grid:
            raise UsageError(f"{path} has no map: it returns {described(result)}")
        maps[path] = np.asarray(as_map(result, grid)[0], np.float32)
        print(f"{path}: {' × '.join(map(str, maps[path].shape))}")
    if strip:
        draw_strip(view.picture, maps, f"{image.name} through {model}", out)
    else:
        draw_channels(maps[layer], strongest_channels, f"{image.name}, {layer} of {model}", out)
    if arrays:
        np.savez_compressed(arrays, **maps)


def draw_channels(values: np.ndarray, count: int, title: str, out: Path) -> None:
    """A sheet of a map's channels (h, w, C): the strongest, or all if `count` is 0."""
    height, width, channels = values.shape
    chosen = strongest(values, count) if count else range(channels)
    which = f"the {len(chosen)} strongest of {channels}" if len(chosen) < channels else f"all {channels}"
    tiles = [(map_picture(values[..., channel]), str(channel)) for channel in chosen]
    blank = (Image.new("RGB", tiles[0][0].size, "white"), "")
    tiles += [blank] * (-len(tiles) % min(ACROSS, len(tiles)))
    rows = [tiles[start : start + ACROSS] for start in range(0, len(tiles), ACROSS)]
    draw_rows(rows, f"{title}: {which} channels, {height} × {width}", out, side=SIDE)


def draw_strip(picture: Image.Image, maps: dict[str, np.ndarray], title: str, out: Path) -> None:
    """The picture, and right of it a column of channels for each map (h, w, C)."""
    size = tuple(max(1, round(side * STRIP_SIDE / max(picture.size))) for side in picture.size)
    blank = Image.new("RGB", size, "white")
    columns = [[(picture.resize(size, Image.Resampling.LANCZOS), f"{picture.height} × {picture.width}")]]
    for path, values in maps.items():
        columns.append([])
        for channel in strongest(values, STRIP_ROWS):
            drawn = map_picture(values[..., channel]).resize(size, Image.Resampling.NEAREST)
            first = f"{path}, {' × '.join(map(str, values.shape))}: {channel}"
            columns[-1].append((drawn, str(channel) if columns[-1] else first))
    rows = [[column[row] if row < len(column) else (blank, "") for column in columns] for row in range(STRIP_ROWS)]
    draw_rows(rows, title, out, side=STRIP_SIDE)
