"""A model of the zoo with its weights, and images as it sees them, for all parts of `jaxzoo inspect`."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
from flax import nnx
from PIL import Image

from jaxzoo.commands import tasks
from jaxzoo.commands.pictures import check_new, read_in_batches
from jaxzoo.errors import UsageError
from jaxzoo.inspect.maps import arguments_of
from jaxzoo.preprocess import Preparation
from jaxzoo.registry import argument_defaults, card


@dataclasses.dataclass(frozen=True)
class Sight:
    """A model in eval mode, the preparation of its images, and the names of its classes."""

    name: str
    model: nnx.Module
    preprocess: Preparation
    classes: Sequence[str] | None  # those of the weights, if they say
    arguments: dict[str, Any]  # that built it

    @classmethod
    def of(cls, name: str, weights: str, *, images: bool = True) -> "Sight":
        """Raises UsageError, also for models whose task shows no `images`."""
        from convert.weights import preprocess_of

        if images and not hasattr(tasks.of_model(name), "view"):
            raise UsageError(f"{name} is for {card(name).task}, whose images `jaxzoo inspect` does not show")
        model, found, arguments = tasks.read_model(name, weights)
        return cls(name, model, preprocess_of(name, found, arguments, model), found.classes, arguments)

    @functools.cached_property
    def handler(self) -> tasks.Handler:
        return tasks.of_model(self.name)

    @functools.cached_property
    def class_names(self) -> Sequence[str]:
        defaults = argument_defaults(self.name)
        if "num_classes" in defaults:
            count = self.arguments.get("num_classes", defaults["num_classes"])
        else:  # a network of somebody's own
            outputs = jax.eval_shape(run, self.model, arguments_of(card(self.name).example_inputs()))
            count = jax.tree.leaves(outputs)[0].shape[-1]
        return self.handler.class_names(self.classes, count)

    def views(self, paths: Sequence[Path], pool: ThreadPoolExecutor) -> Iterator[tuple[Path, Image.Image, tasks.View]]:
        """Each image that can be read, and as the network sees it; others are named on stderr."""
        for pictures in read_in_batches(paths, 1, pool):
            for path, picture in pictures.items():
                yield path, picture, self.handler.view(self.model, self.preprocess, picture)


def check_outputs(out: Path | None, arrays: Path | None = None) -> None:
    """Raises UsageError unless those that are given are new, one a picture's name, the other that of NumPy's arrays."""
    for path, ending in ((out, ".png"), (arrays, ".npz")):
        if path:
            check_new(path)
            if path.suffix.lower() != ending:
                raise UsageError(f"{path} must be a {ending} file")


def draw_rows(rows: Sequence[Sequence[tuple[Image.Image, str]]], title: str, out: Path, *, side: int) -> None:
    """A PNG file with rows of as many pictures each, with their captions, of at most `side` pixels."""
    from train.reporting.contact_sheet import SIDE as UNIT
    from train.reporting.contact_sheet import Tile, draw_sheet

    tiles = [Tile(picture, [caption], side) for row in rows for picture, caption in row]
    draw_sheet(tiles, title, out, across=-(-len(rows[0]) * side // UNIT), keep=False)


@jax.jit
def run(model: nnx.Module, inputs: tuple[Any, ...]) -> Any:
    """A model's outputs, in eval mode."""
    return model(*inputs)
