"""The most confident errors of an evaluation: found on the device batch by batch, then mistakes.png and mistakes.csv.

Errors are arrays (k,), the most confident first: `index` of the item in the data's source, `true` and `predicted`
class (int32) and `probability` of the predicted one (float32). All of these are 0 in free places.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from train.reporting import records
from train.reporting.contact_sheet import Tile, draw_sheet

COUNT = 24
Errors = dict[str, jax.Array]


def no_errors(count: int = COUNT) -> Errors:
    """Nothing but free places."""
    free = jnp.zeros(count, jnp.int32)
    return {"index": free, "true": free, "predicted": free, "probability": jnp.zeros(count, jnp.float32)}


def errors_of(logits: jax.Array, labels: jax.Array, mask: jax.Array, indices: jax.Array, count: int = COUNT) -> Errors:
    """The most confident errors of a batch: logits (N, C), labels, mask and indices (N,). Traceable."""
    predicted = logits.argmax(-1)
    probability = jax.nn.softmax(logits.astype(jnp.float32)).max(-1)
    wrong = mask & (predicted != labels) & jnp.isfinite(probability)
    batch = {"index": indices, "true": labels, "predicted": predicted}
    batch = {name: jnp.where(wrong, values, 0).astype(jnp.int32) for name, values in batch.items()}
    return merged(no_errors(count), batch | {"probability": jnp.where(wrong, probability, 0)})


def merged(errors: Errors, others: Errors) -> Errors:
    """The most confident of both, as many as `errors` has places; of equals, those that came first. Traceable."""
    both = {name: jnp.concatenate([values, others[name]]) for name, values in errors.items()}
    _, chosen = jax.lax.top_k(both["probability"], len(errors["index"]))
    return {name: values[chosen] for name, values in both.items()}


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
