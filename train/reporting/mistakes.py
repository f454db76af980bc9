"""The most confident errors of an evaluation, as `train.metrics.errors` finds them: mistakes.png and mistakes.csv."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from train.reporting import records
from train.reporting.contact_sheet import Tile, draw_sheet


def write(
    errors: Mapping[str, np.ndarray],
    classes: Sequence[str],
    picture: Callable[[int], np.ndarray],
    name: Callable[[int], str],
    folder: Path,
) -> None:
    """Writes mistakes.csv (name, true, predicted, probability) and mistakes.png; without errors, tables of nothing.

    Args:
      picture: an item of the source by its index as the model saw it, before normalising: (H, W, 3) uint8.
      name: what an item of the source is called: its path, or the name of its record.
    """
    indices = errors["index"][errors["probability"] > 0].tolist()
    rows, tiles = [], []
    for i, index in enumerate(indices):
        true, predicted = (classes[int(errors[side][i])] for side in ("true", "predicted"))
        probability = float(errors["probability"][i])
        rows.append({"name": name(index), "true": true, "predicted": predicted, "probability": probability})
        caption = [f"is {true}", f"said {predicted} {probability:.1%}", Path(name(index)).name]
        tiles.append(Tile(Image.fromarray(picture(index)), caption))
    records.write(folder / "mistakes.csv", rows, ["name", "true", "predicted", "probability"])
    draw_sheet(tiles, "Most confident mistakes" if tiles else "No mistakes", folder / "mistakes.png", across=6)
