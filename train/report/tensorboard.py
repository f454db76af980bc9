"""TensorBoard events of a run: numbers, pictures, and histograms that were counted where the arrays are."""

import math
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxzoo.errors import UsageError

BINS = 64
Histogram = dict[str, jax.Array]


def histograms(arrays: Mapping[str, jax.Array]) -> dict[str, Histogram]:
    """What `Events.histograms` writes of each array, in a few hundred bytes. Traceable, so weights stay where they are.

    A histogram has `min`, `max`, `sum` and `squares` (float32) of the finite values, `finite` and `size` (how many of
    all are), and `counts` (BINS,) of equal bins from `min` to `max`.
    """
    return {name: _histogram(values) for name, values in arrays.items()}


class Events:
    """The event file of a run, in a folder that `tensorboard --logdir` reads.

    Args:
      folder: where to write; made if need be.
      after: the step that the run continues after; TensorBoard then forgets what it knew of later ones.

    Raises:
      UsageError: tensorboardX is not installed.
    """

    def __init__(self, folder: Path, after: int | None = None):
        try:
            from tensorboardX import SummaryWriter
        except ModuleNotFoundError as error:
            raise UsageError(f"--tensorboard needs {error.name}: pip install 'jaxzoo-vision[tensorboard]'") from None
        self.writer = SummaryWriter(str(folder), purge_step=None if after is None else after + 1, flush_secs=10)

    def scalars(self, step: int, row: Mapping[str, float]) -> None:
        """Numbers of a step; `train_loss` and `val_loss` become `loss/train` and `loss/val`, charts side by side."""
        for name, value in row.items():
            if name not in ("step", "epoch") and value is not None:
                self.writer.add_scalar(_tag(name), float(value), step)

    def pictures(self, step: int, paths: Mapping[str, Path]) -> None:
        """PNG files by the name they get; those that are not there are left out."""
        for name, path in paths.items():
            if path.exists():
                with Image.open(path) as image:
                    self.writer.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def histograms(self, step: int, counted: Mapping[str, Histogram]) -> None:
        """What `histograms` made of arrays. Where not all of an array is finite, `NAME/finite` says how much is."""
        for name, of in counted.items():
            of = {part: np.asarray(value, np.float64) for part, value in of.items()}
            if of["finite"] < of["size"]:
                self.writer.add_scalar(f"{name}/finite", float(of["finite"] / of["size"]), step)
            if of["finite"]:
                low, high = _edges(of["min"], of["max"])
                limits = np.linspace(float(low), float(high), BINS + 1)[1:]
                totals = (float(of[part]) for part in ("min", "max", "finite", "sum", "squares"))
                self.writer.add_histogram_raw(name, *totals, limits.tolist(), of["counts"].tolist(), step)

    def flush(self) -> None:
        """Returns when all is on the disk: to be called before a checkpoint, so that nothing before it gets lost."""
        self.writer.flush()

    def close(self) -> None:
        """Writes what is left."""
        self.writer.close()


def _histogram(values: jax.Array) -> Histogram:
    values = jnp.ravel(values).astype(jnp.float32)
    finite = jnp.isfinite(values)
    least, most = jnp.where(finite, values, jnp.inf).min(), jnp.where(finite, values, -jnp.inf).max()
    low, high = _edges(least, most)
    known = jnp.where(finite, values, low)
    bins = jnp.clip((known - low) / (high - low) * BINS, 0, BINS - 1).astype(jnp.int32)
    known = jnp.where(finite, known, 0)
    return {
        "min": least,
        "max": most,
        "sum": known.sum(),
        "squares": (known**2).sum(),
        "finite": finite.sum(),
        "size": jnp.asarray(math.prod(values.shape)),
        "counts": jnp.zeros(BINS, jnp.int32).at[bins].add(finite.astype(jnp.int32)),
    }


def _edges(least: jax.Array, most: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where the bins begin and end; around a single value they have a width, as NumPy's."""
    single = (least == most) * 0.5
    return least - single, most + single


def _tag(name: str) -> str:
    side, _, metric = name.partition("_")
    return f"{metric}/{side}" if metric and side in ("train", "val", "ema") else name
