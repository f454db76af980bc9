"""Training a part of a network: which variables learn, and the features that a frozen backbone makes, kept on disk."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.lib.format import open_memmap

from convert.shapes import abstract
from jaxzoo.errors import UsageError, nearest
from jaxzoo.inspect.calls import around_calls
from train.config import Config
from train.data import Source
from train.data.ahead import read_ahead
from train.data.batches import EvaluationBatches
from train.tasks import Batch
from train.tasks.classification import Classification


def learning(config: Config, model: nnx.Module, arguments: Mapping[str, Any]) -> Callable[[str], bool]:
    """Whether the variable of a dotted path learns, by --freeze, --train-only and --cache-features.

    Raises:
      UsageError: a path is none of the model's, or nothing would learn.
    """
    heads = head_paths(config.model, arguments)
    frozen, only = (_paths(option, heads) for option in (config.freeze, config.train_only))
    if config.cache_features or "backbone" in frozen:
        frozen, only = [path for path in frozen if path != "backbone"], only or heads
    variables = [".".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))]
    known = sorted({name[:end] for name in variables for end, letter in enumerate(name) if letter == "."})
    for path in (*frozen, *only):
        if path not in known and path not in variables:
            raise UsageError(f"{config.model} has no part {path!r}{nearest(path, known)}")

    def learns(name: str) -> bool:
        return (not only or _inside(name, only)) and not _inside(name, frozen)

    if not any(map(learns, variables)):
        raise UsageError(f"nothing of {config.model} is left to learn with these parts frozen")
    return learns


def head_paths(name: str, arguments: Mapping[str, Any]) -> list[str]:
    """The modules of a model that depend on the number of classes; those of auxiliary heads too."""
    shapes = [
        {path: leaf.shape for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param))}
        for model in (abstract(name, **{**arguments, "num_classes": count}) for count in (7, 8))
    ]
    return sorted({".".join(map(str, path[:-1])) for path in shapes[0] if shapes[0][path] != shapes[1][path]})


class Features:
    """What a frozen backbone makes of the images of a source, instead of them. Items are (features, label).

    The files appear with `write`; nothing is read before.
    """

    def __init__(self, images: Source, path: Path):
        self.images, self.path = images, path
        self.values: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        if self.values is None:
            self.values = np.load(self.path, mmap_mode="r")
        values = self.values[index]
        if np.isnan(values).all():
            raise UsageError(f"{self.name(index)} could not be read when its features were computed")
        return values, int(self.labels[index])

    def name(self, index: int) -> str:
        return self.images.name(index)

    @property
    def labels(self) -> np.ndarray:
        return self.images.labels

    def write(
        self,
        features_of: Callable[[Batch], jax.Array],
        task: Classification,
        *,
        batch_size: int,
        workers: int,
        strict: bool,
        tell: Callable[[int, int], None],
    ) -> None:
        """Computes and writes the features of every image, unless they are there; `tell(done, of)` on the way.

        An image that cannot be read has features of NaN.
        """
        if self.path.exists():
            return
        self.path.parent.mkdir(exist_ok=True)
        partial, file = self.path.with_name(f".{self.path.name}.partial"), None
        batches = EvaluationBatches(self.images, task.evaluation_example, batch_size, strict=strict)
        for number, batch in enumerate(read_ahead(batches, 0, len(batches), workers=workers)):
            values = np.asarray(features_of(batch["image"]), np.float32)
            if file is None:
                file = open_memmap(partial, "w+", np.float32, (len(self), *values.shape[1:]))
            rows = slice(number * batch_size, min((number + 1) * batch_size, len(self)))
            count = rows.stop - rows.start
            file[rows] = np.where(batch["mask"].reshape(-1, *[1] * (values.ndim - 1)), values, np.nan)[:count]
            tell(rows.stop, len(self))
        file.flush()
        del file
        partial.replace(self.path)


class OnFeatures(Classification):
    """Classification by the head alone, of features (N, …) float32 in place of images."""

    def __init__(self, head: str, shape: tuple[int, ...], images: Source, **arguments: Any):
        super().__init__(**arguments)
        self.head, self.shape, self.images = head, shape, images

    def training_example(self, item: tuple[np.ndarray, int], rng: np.random.Generator) -> Batch:
        return self.evaluation_example(item)

    def evaluation_example(self, item: tuple[np.ndarray, int]) -> Batch:
        features, label = item
        return {"features": features, "label": np.int32(label)}

    def blank(self) -> Batch:
        return {"features": np.zeros(self.shape, np.float32), "label": np.int32(0)}

    def augmented(self, batch: Batch, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        return self.inputs(batch), jax.nn.one_hot(batch["label"], len(self.classes), dtype=jnp.float32)

    def inputs(self, batch: Batch) -> jax.Array:
        return batch["features"]

    def outputs(self, model: nnx.Module, inputs: jax.Array) -> jax.Array:
        return module_at(model, self.head)(inputs)

    def first_pictures(self, training: Batch, evaluation: Batch, key: jax.Array, folder: Path) -> None:
        """Nothing: features are no pictures."""

    def pictures(self, sums: dict[str, np.ndarray], source: Sequence, folder: Path) -> None:
        super().pictures(sums, self.images, folder)


def backbone(
    model: nnx.Module, task: Classification, head: str
) -> tuple[Callable[[jax.Array], jax.Array], tuple[int, ...]]:
    """The compiled function from uint8 images (N, S, S, 3) to what goes into `head`, in eval mode, and its shape.

    Raises:
      UsageError: the model does more after its head than to return what that gives.
    """
    model.eval()
    graph, state = nnx.split(model)

    def run(state: nnx.State, images: jax.Array) -> jax.Array:
        copy, seen = nnx.merge(graph, state, copy=True), {}

        def around(path: str, call: Callable[[], Any]) -> Any:
            result = call()
            if path == head:
                seen["inputs"], seen["result"] = call.args[1], result
            return result

        with around_calls(copy, around):
            outputs = copy(task.normalised(images).astype(task.dtype))
        if outputs is not seen["result"]:
            raise UsageError("--cache-features needs a model that ends with its head, which this one does not")
        return seen["inputs"]

    side = task.preprocess.crop
    features, compiled = jax.eval_shape(run, state, jax.ShapeDtypeStruct((1, side, side, 3), jnp.uint8)), jax.jit(run)
    return lambda images: compiled(state, images), features.shape[1:]


def module_at(model: nnx.Module, path: str) -> nnx.Module:
    """The submodule of that dotted path."""
    return {".".join(map(str, found)): module for found, module in nnx.iter_modules(model)}[path]


def _paths(option: Sequence[str], heads: list[str]) -> list[str]:
    """`("features.0,head",)` as single paths."""
    names = [name.strip() for text in option for name in text.split(",") if name.strip()]
    return [path for name in names for path in (heads if name == "head" else [name])]


def _inside(name: str, paths: Sequence[str]) -> bool:
    return any(name == path or name.startswith(path + ".") for path in paths)
