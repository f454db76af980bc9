"""What a frozen backbone makes of every image, computed once, kept on disk, and learnt from in place of the images."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import convert.loading
import convert.sources
from jaxzoo import nn
from jaxzoo.errors import UsageError
from jaxzoo.inspect.intercept import around_calls
from train.config.options import Config
from train.data import Data, Source
from train.data.batches import EvaluationBatches
from train.data.prefetch import read_ahead
from train.engine import checkpoint
from train.metrics import States
from train.reporting.progress import progress, say
from train.tasks import Batch
from train.tasks.classification import Classification
from train.transfer.freeze import head_paths


class Features:
    """What a frozen backbone makes of the images of a source, instead of them. Items are (features, label).

    They lie in a file that is named after `side` and a digest of the images' names, so that features of other images
    are never taken for theirs. It is in the folder that `lie_in` is told, and appears, whole, with `write`; nothing is
    read before.
    """

    path: Path

    def __init__(self, images: Source, side: str):
        self.images, self.side = images, side
        self.labels = images.labels
        self.values: np.ndarray | None = None

    def lie_in(self, folder: Path) -> None:
        names = "\n".join(self.name(index) for index in range(len(self)))
        digest = hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest()
        self.path = folder / f"{self.side}-{digest[:12]}.npy"

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        if self.values is None:
            self.values = np.load(self.path, mmap_mode="r")
        values = np.array(self.values[index])
        if np.isnan(values).all():
            raise UsageError(f"{self.name(index)} could not be read when its features were computed")
        return values, int(self.labels[index])

    def name(self, index: int) -> str:
        return self.images.name(index)

    def write(
        self,
        features_of: Callable[[jax.Array], jax.Array],
        task: Classification,
        *,
        batch_size: int,
        workers: int,
        strict: bool,
        tell: Callable[[int], None],
    ) -> None:
        """Computes and writes the features of every image, and calls `tell(done)` on the way.

        An image that cannot be read has features of NaN.

        Raises:
          UsageError: an image cannot be read and `strict`, or the disk does not take the file.
        """
        batches = EvaluationBatches(self.images, task.evaluation_example, batch_size, strict=strict)
        partial = self.path.with_name(f".{self.side}.partial")
        try:
            self.path.parent.mkdir(exist_ok=True)
            with partial.open("wb") as file:  # not mapped into memory, where a full disk would end the process
                for number, batch in enumerate(read_ahead(batches, 0, len(batches), workers=workers)):
                    values = np.asarray(features_of(batch["image"]), np.float32)
                    if number == 0:
                        shape = (len(self), *values.shape[1:])
                        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                        np.lib.format.write_array_header_1_0(file, header)
                    values = np.where(batch["mask"].reshape(-1, *[1] * (values.ndim - 1)), values, np.nan)
                    done = min((number + 1) * batch_size, len(self))
                    file.write(values[: done - number * batch_size].astype("<f4").tobytes())
                    tell(done)
                file.flush()
                os.fsync(file.fileno())
            for other in self.path.parent.glob(f"{self.side}-*.npy"):  # of images that were there before
                other.unlink()
            partial.replace(self.path)
        except OSError as error:
            raise UsageError(f"cannot write features into {self.path.parent}: {error.strerror}; make room") from error


class OnFeatures(Classification):
    """Classification by the last modules alone, of features (N, …) float32 in place of images.

    `tail` names the modules that come after the backbone.
    """

    def __init__(self, tail: Sequence[str], images: Source, **arguments: Any):
        super().__init__(**arguments)
        self.tail, self.images = tail, images

    def training_example(self, item: tuple[np.ndarray, int], rng: np.random.Generator) -> Batch:
        return self.evaluation_example(item)

    def evaluation_example(self, item: tuple[np.ndarray, int]) -> Batch:
        features, label = item
        return {"features": features, "label": np.int32(label)}

    def augmented(self, batch: Batch, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        return self.inputs(batch), jax.nn.one_hot(batch["label"], len(self.classes), dtype=jnp.float32)

    def inputs(self, batch: Batch) -> jax.Array:
        return batch["features"]

    def outputs(self, model: nnx.Module, inputs: jax.Array) -> jax.Array:
        modules = {".".join(map(str, path)): module for path, module in nnx.iter_modules(model)}
        for path in self.tail:
            inputs = modules[path](inputs)
        return inputs

    def explained(self, batch: Batch) -> None:
        """Nothing, as well."""

    def draw_first_batches(self, training: Batch, evaluation: Batch, key: jax.Array, folder: Path) -> None:
        """Nothing: features are no pictures."""

    def draw(self, states: States, source: Sequence, folder: Path, collector: None = None) -> None:
        super().draw(states, self.images, folder)


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A model without its head: `tail` are the modules after it, dropout and head."""

    run: Callable[[nnx.State, jax.Array], jax.Array]
    tail: list[str]

    def of(self, model: nnx.Module) -> Callable[[jax.Array], jax.Array]:
        """The compiled function from uint8 images (N, S, S, 3) to features, with the variables of `model`."""
        state, compiled = nnx.state(model), jax.jit(self.run)
        return lambda images: compiled(state, images)


def backbone(config: Config, model: nnx.Module, task: Classification, head: str) -> Backbone:
    """What comes before the head of a model, in eval mode. The model's own dropout before the head is not part of it.

    Raises:
      UsageError: the model does more after its head than to return what that gives.
    """
    model.eval()
    graph, state = nnx.split(model)
    tail = []

    def run(state: nnx.State, images: jax.Array) -> jax.Array:
        copy, dropouts, seen = nnx.merge(graph, state, copy=True), [], {}

        def around(path: str, call: Callable[[], Any]) -> Any:
            module, *inputs = call.args
            result = call()
            if isinstance(module, nn.Dropout):
                dropouts.append((path, result))
            elif path == head:
                seen["inputs"], seen["result"] = inputs[0], result
            return result

        with around_calls(copy, around):
            outputs = copy(task.normalised(images).astype(task.dtype))
        if outputs is not seen["result"]:
            raise UsageError(
                f"{config.model} does more after its head, and --cache-features ends with that; take --train-only head"
            )
        # In eval mode dropout hands on what it is given: what the head gets is then the very same array.
        tail[:] = [*(path for path, result in dropouts if result is seen["inputs"]), head]
        return seen["inputs"]

    side = task.preprocess.crop
    jax.eval_shape(run, state, jax.ShapeDtypeStruct((1, side, side, 3), jnp.uint8))
    return Backbone(run, tail)


def cached(
    config: Config,
    data: Data,
    task: Classification,
    model: nnx.Module,
    arguments: dict,
    continuing: bool,
) -> tuple[OnFeatures, Callable[[Path], None], tuple[Source, Source]]:
    """The task on what a frozen backbone makes of the images, how to compute that into a run's folder, and the sources
    that have it.

    Raises:
      UsageError: there are several processes, or the model does not end with its head.
    """
    if jax.process_count() > 1:
        raise UsageError("--cache-features works in one process; leave it out, or train in one")
    before = backbone(config, model, task, head_paths(config.model, arguments)[-1])
    sides = {"train": data.train, "held_out": data.held_out}
    sources = tuple(Features(images, side) for side, images in sides.items())
    how = {"batch_size": config.batch_size, "workers": config.workers, "strict": config.strict_data}

    def ready(folder: Path) -> None:
        for source in sources:
            source.lie_in(folder / "features")
        missing = [source for source in sources if not source.path.exists()]
        if not missing:
            return
        own = model
        if continuing:  # then `model` is fresh, and its weights are in the checkpoints, where the backbone is in each
            place = checkpoint.newest(folder, say)[0]
            weights = convert.sources.read_weights(config.model, place)
            own, _ = convert.loading.load_model(config.model, weights, **arguments)
        features_of, total, done = before.of(own), sum(map(len, missing)), 0
        with progress(0, total, "image", "computing features") as bar:
            for source in missing:
                source.write(features_of, task, **how, tell=lambda n, done=done: bar.update(done + n, total, ""))
                done += len(source)

    head_alone = OnFeatures(
        before.tail,
        data.held_out,
        classes=data.classes,
        preprocess=task.preprocess,
        label_smoothing=config.label_smoothing,
        dtype=task.dtype,
    )
    return head_alone, ready, sources
