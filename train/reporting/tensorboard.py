"""TensorBoard events of a run: numbers, pictures, and histograms that were counted where the arrays are."""

import io
import time
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxzoo.errors import UsageError

BINS = 64
Histogram = dict[str, jax.Array]


@jax.jit
def histograms(arrays: Mapping[str, jax.Array]) -> dict[str, Histogram]:
    """What `Events.histograms` writes of each array, a few hundred bytes. Traceable, so weights stay where they are.

    A histogram has `min`, `max`, `sum` and `squares` (float32) of the finite values, and `counts` (BINS + 1,): of them
    in equal bins from `min` to `max`, and at last of the values that are not finite.
    """
    return {name: _histogram(values) for name, values in arrays.items()}


class Events:
    """The event file of a run, in a folder that `tensorboard --logdir` reads. What a method writes is on the disk when
    it returns, so a run that is killed has all that it wrote before its last checkpoint.

    (tensorboardX's own SummaryWriter hands events to a thread, and its `flush` does not wait for that.)

    Args:
      folder: where to write; made if need be.
      after: the step that the run continues after; TensorBoard then forgets what it knew of later ones.

    Raises:
      UsageError: tensorboardX is not installed.
    """

    def __init__(self, folder: Path, after: int | None = None):
        try:
            from tensorboardX import summary
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto.event_pb2 import Event, SessionLog
            from tensorboardX.proto.summary_pb2 import Summary
        except ModuleNotFoundError as error:
            raise UsageError(f"--tensorboard needs {error.name}: pip install 'jaxzoo-vision[tensorboard]'") from None
        folder.mkdir(parents=True, exist_ok=True)
        # By default the name says the second alone, and a run that continues within it would take the old file's place.
        self.file = EventsWriter(str(folder / "events"), filename_suffix=f".{time.time_ns()}")
        self.summary, self.event, self.value, self.shown = summary, Event, Summary, {}
        if after is not None:
            start = SessionLog(status=SessionLog.START)
            self.file.write_event(Event(wall_time=time.time(), step=after + 1, session_log=start))

    def scalars(self, step: int, row: Mapping[str, float]) -> None:
        """Numbers of a step; `train_loss` and `val_loss` become `loss/train` and `loss/val`, charts side by side."""
        named = {
            _tag(name): value for name, value in row.items() if name not in ("step", "epoch") and value is not None
        }
        self._write(step, [self.summary.scalar(name, float(value)) for name, value in named.items()])

    def pictures(self, step: int, paths: Mapping[str, Path]) -> None:
        """PNG files, byte by byte, by the name they get; not those that are missing, or as they were the last time."""
        pictures = []
        for name, path in paths.items():
            data = path.read_bytes() if path.exists() else None
            if data is None or self.shown.get(name) == hash(data):
                continue
            self.shown[name] = hash(data)
            with Image.open(io.BytesIO(data)) as image:
                width, height = image.size
            picture = self.value.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
            pictures.append(self.value(value=[self.value.Value(tag=name, image=picture)]))
        self._write(step, pictures)

    def histograms(self, step: int, counted: Mapping[str, Histogram]) -> None:
        """What `histograms` made of arrays. Where not all of an array is finite, `NAME/finite` says how much is."""
        summaries = []
        for name, of in jax.device_get(dict(counted)).items():
            counts, finite = of["counts"][:BINS].tolist(), int(of["counts"][:BINS].sum())
            if of["counts"][BINS]:
                summaries.append(self.summary.scalar(f"{name}/finite", finite / int(of["counts"].sum())))
            if finite:
                low, high = _edges(*(np.float64(of[end]) for end in ("min", "max")))
                limits = np.linspace(low, high, BINS + 1)[1:].tolist()
                least, most, total, squares = (float(of[part]) for part in ("min", "max", "sum", "squares"))
                summaries.append(self.summary.histogram_raw(name, least, most, finite, total, squares, limits, counts))
        self._write(step, summaries)

    def close(self) -> None:
        """Closes the file."""
        self.file.close()

    def _write(self, step: int, summaries: list) -> None:
        for summary in summaries:
            self.file.write_event(self.event(wall_time=time.time(), step=step, summary=summary))
        self.file.flush()


def _histogram(values: jax.Array) -> Histogram:
    values = jnp.ravel(values).astype(jnp.float32)
    finite = jnp.isfinite(values)
    least, most = jnp.where(finite, values, jnp.inf).min(), jnp.where(finite, values, -jnp.inf).max()
    low, high = _edges(least, most)
    bins = jnp.where(finite, jnp.clip((values - low) / (high - low) * BINS, 0, BINS - 1), BINS).astype(jnp.int32)
    known = jnp.where(finite, values, 0)
    return {
        "min": least,
        "max": most,
        "sum": known.sum(),
        "squares": (known**2).sum(),
        "counts": jnp.zeros(BINS + 1, jnp.int32).at[bins].add(1),
    }


def _edges(least: jax.Array, most: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where the bins begin and end; around a single value they have a width, as NumPy's."""
    single = (least == most) * 0.5
    return least - single, most + single


def _tag(name: str) -> str:
    side, _, metric = name.partition("_")
    return f"{metric}/{side}" if metric and side in ("train", "val", "ema") else name
