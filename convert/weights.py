"""Weights for a model of the zoo: where they come from, how many classes they have, and the model that they fill."""

import dataclasses
import math
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from convert import files, rules, store
from jaxzoo import Preprocess, UsageError, card, create_model
from jaxzoo.registry import argument_names

Shapes = Mapping[str, tuple[int, ...]]


@dataclasses.dataclass
class Weights:
    """A state_dict by torch's names, and what is known of it."""

    path: Path
    tensors: dict[str, np.ndarray]
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)  # of create_model
    classes: list[str] | None = None
    preprocess: dict[str, Any] | None = None
    versions: dict[str, int] = dataclasses.field(default_factory=dict)  # of torch's layout

    def source(self) -> dict[str, str]:
        """Where these came from, for a manifest."""
        file = self.path / store.MANIFEST if self.path.is_dir() else self.path
        return {"path": str(self.path), "sha256": store.file_digest(file)}


def load(
    name: str,
    weights: str | Path,
    *,
    num_classes: int | None = None,
    head: str = "strict",
    seed: int = 0,
    **arguments,
) -> nnx.Module:
    """A model of the zoo with these weights, in eval mode and in float32, without initialising what the weights fill.

    >>> model = convert.load("resnet18", "resnet18.pth")

    Args:
      name: a name from `jaxzoo.list_models()`.
      weights: a `.pth`, `.pt` or `.safetensors` file (see `convert.read`), a converted directory, a checkpoint or the
        folder of a training run (its best checkpoint, else its last), or the name of published weights in torchvision,
        such as `IMAGENET1K_V1` or `DEFAULT`.
      num_classes: as many as the weights have unless given.
      head: "strict", or "skip": a classifier of another size is initialised anew, with a warning that names it.
      seed: seeds such a fresh head, and dropout.
      **arguments: further arguments of `jaxzoo.create_model`.

    Raises:
      UsageError: unknown name; unreadable or unfitting weights, all differences listed.
    """
    found = find(name, weights)
    model, arguments, skipped = fit(name, found, num_classes=num_classes, head=head, **arguments)
    rules.load_state_dict(model, found.tensors, skip=skipped)
    fill_fresh(model, name, arguments, seed)
    return model


def find(name: str, weights: str | Path) -> Weights:
    """Reads what `load` takes for `weights`; the tensors of a file are views of it, so copy them soon.

    Raises UsageError.
    """
    published = card(name).weights
    path = Path(weights)
    if path.is_dir():
        return _from_directory(name, path)
    if path.exists() or path.suffix or os.sep in str(weights) or "#" in str(weights):
        return _from_file(name, path)
    path, key, classes = _download(name, str(weights))
    found = _from_file(name, path)
    found.classes = classes
    if key in published:
        found.preprocess = dataclasses.asdict(published[key].preprocess)
        found.arguments = dict(published[key].arguments)
    return found


def fit(
    name: str, weights: Weights, *, num_classes: int | None = None, head: str = "strict", **arguments
) -> tuple[nnx.Module, dict[str, Any], list[str]]:
    """The abstract model that these weights fill, the arguments that build it, and the keys of a head left out.

    Raises:
      UsageError: the weights have another number of classes, and `head` is "strict".
    """
    if head not in ("strict", "skip"):
        raise UsageError(f"head is {head!r}; it must be 'strict' or 'skip'")
    given = arguments if num_classes is None else {**arguments, "num_classes": num_classes}
    arguments = {**weights.arguments, **given}
    shapes = {key: array.shape for key, array in weights.tensors.items()}
    model = abstract(name, **arguments)
    wrong = _misfits(model, shapes)
    if not wrong:
        return model, arguments, []
    if "aux_logits" not in given and lacks_auxiliary(name, shapes, arguments):
        arguments["aux_logits"] = False
    heads, classes = head_of(name, shapes, arguments)
    read = {"num_classes": classes, "image_size": wrong - set(heads) and image_size_of(name, shapes, arguments)}
    arguments |= {key: value for key, value in read.items() if value and key not in given}
    model = abstract(name, **arguments)
    if not _misfits(model, shapes).intersection(heads):
        return model, arguments, []
    if head == "skip":
        found = ", ".join(f"{key} {shapes.get(key, 'missing')}" for key in heads)
        warnings.warn(f"left fresh, for {weights.path.name} has another head: {found}", stacklevel=3)
        return model, arguments, heads
    if classes:
        raise UsageError(
            f"{weights.path} has {classes} classes, not {num_classes}; head 'skip' (--head skip) leaves the head fresh"
        )
    return model, arguments, []


def preprocess_of(name: str, weights: Weights, arguments: Mapping[str, Any]) -> Preprocess:
    """How images are prepared for these weights, in a model that was built with these arguments.

    A file does not say it: then as for the published weights of that image size, the default ones first.
    """
    base = Preprocess(**weights.preprocess) if weights.preprocess else card(name).preprocess
    size = arguments.get("image_size", base.crop)
    published = [] if weights.preprocess else [w.preprocess for w in card(name).weights.values()]
    return next((p for p in published if p.crop == size), base.at(size))


def _misfits(model: nnx.Module, shapes: Shapes) -> set[str]:
    return {x.key for x in rules.leaves(model) if shapes.get(x.key) != x.torch_shape and not x.rule.optional}


def head_of(name: str, shapes: Shapes, arguments: Mapping[str, Any]) -> tuple[list[str], int | None]:
    """The keys whose shape depends on the number of classes, and that number in a checkpoint of these shapes.

    Nothing is known of any model: two abstract ones are compared, and sizes grow linearly with the classes.
    """
    few, more = 7, 11
    small, large = _at(name, arguments, "num_classes", few, more)
    heads = [key for key in small if small[key] != large[key]]
    for at_few, at_more, size in _sizes(heads, small, large, shapes):
        per_class = (at_more - at_few) / (more - few)
        classes = few + (size - at_few) / per_class
        if classes >= 1 and classes.is_integer():
            return heads, int(classes)
    return heads, None


def image_size_of(name: str, shapes: Shapes, arguments: Mapping[str, Any]) -> int | None:
    """The side in pixels of the images that a checkpoint of these shapes is for, if the model has to know it.

    A table of positions grows with the area; two abstract models tell how.
    """
    side = card(name).input_size
    small, large = _at(name, arguments, "image_size", side, 2 * side)
    for at_side, at_double, size in _sizes(small, small, large, shapes):
        per_pixel = (at_double - at_side) / (3 * side**2)
        area = side**2 + (size - at_side) / per_pixel
        if area > 0 and round(math.sqrt(area)) ** 2 == round(area):
            return round(math.sqrt(area))
    return None


def lacks_auxiliary(name: str, shapes: Shapes, arguments: Mapping[str, Any]) -> bool:
    """Whether a checkpoint of these shapes is without the auxiliary heads that the model may have."""
    without, having = _at(name, arguments, "aux_logits", False, True)
    return having.keys() > without.keys() and not shapes.keys() & (having.keys() - without.keys())


def _at(name: str, arguments: Mapping[str, Any], argument: str, *values: int) -> list[Shapes]:
    """The shapes of a model at these values of an argument; none where it takes no such argument."""
    if argument not in argument_names(name):
        return [{} for _ in values]
    return [shapes_of(abstract(name, **{**arguments, argument: value})) for value in values]


def _sizes(keys: Iterable[str], small: Shapes, large: Shapes, shapes: Shapes) -> Iterator[tuple[int, int, int]]:
    """The axes that differ between two models: their sizes in the one, in the other, and in a checkpoint."""
    for key in keys:
        for a, b, size in zip(small[key], large[key], shapes.get(key, ()), strict=False):
            if a != b:
                yield a, b, size


def shapes_of(module: nnx.Module) -> Shapes:
    """The shape of every tensor in a module's state_dict, by torch's names."""
    return {leaf.key: leaf.torch_shape for leaf in rules.leaves(module)}


def abstract(name: str, **arguments) -> nnx.Module:
    """A model of shapes and dtypes, without arrays."""
    return nnx.eval_shape(lambda: create_model(name, **arguments))


def fill_fresh(model: nnx.Module, name: str, arguments: Mapping[str, Any], seed: int) -> dict[str, jax.Array]:
    """Fills what no weights filled: random streams, and a skipped head with the numbers of `create_model`.

    Returns the arrays among them that a checkpoint holds, by dotted path.
    """
    nnx.reseed(model, dropout=seed)
    state = nnx.to_flat_state(nnx.state(model))
    todo = [path for path, variable in state if isinstance(variable.get_value(), jax.ShapeDtypeStruct)]
    if not todo:
        return {}
    fresh = dict(nnx.to_flat_state(nnx.state(create_model(name, seed=seed, **arguments))))
    nnx.update(model, nnx.from_flat_state([(path, fresh[path]) for path in todo]))
    return {".".join(map(str, path)): fresh[path].get_value() for path in todo}


def checkpoint_in(path: Path) -> Path:
    """The checkpoint directory that `path` means: itself, or a run's best checkpoint, or else its last."""
    if (path / store.MANIFEST).is_file():
        return path
    if (path / "best" / store.MANIFEST).is_file():
        return path / "best"
    found = [m.parent for folder in (path / "checkpoints", path) for m in folder.glob(f"*/{store.MANIFEST}")]
    steps = [folder for folder in found if folder.name.isdigit()]
    if not steps:
        raise UsageError(f"{path} is neither a converted model nor a training run: it holds no checkpoint")
    return max(steps, key=lambda step: int(step.name))


def _from_file(name: str, path: Path) -> Weights:
    contents = files.contents(path)
    return Weights(contents.path, undotted(name, unwrapped(name, contents.tensors)))


def unwrapped(name: str, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Takes off the attribute that the whole model hung on while it was trained, as in Lightning's `model.fc.bias`."""
    wrappers = {key.partition(".")[0] for key in tensors}
    if len(wrappers) != 1 or tensors.keys() & shapes_of(abstract(name)).keys():
        return tensors
    return {key.partition(".")[2] or key: array for key, array in tensors.items()}


def undotted(name: str, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Takes the dot out of names like `norm.1`, which torch allowed before 0.4: the name is `norm1` today."""
    today = {key: re.sub(r"\.(\d+\.\w+)$", r"\1", key) for key in tensors}
    if [*today] == [*today.values()]:
        return tensors
    known = shapes_of(abstract(name)).keys()
    return {key if key in known or today[key] not in known else today[key]: array for key, array in tensors.items()}


def _from_directory(name: str, path: Path) -> Weights:
    path = checkpoint_in(path)
    arrays, manifest = store.load(path, prefix="model/")
    if manifest["model"] != name:
        raise UsageError(f"{path} holds {manifest['model']}, not {name}")
    arguments = dict(manifest["arguments"])
    model = abstract(name, **arguments)
    known = {leaf.path for leaf in rules.leaves(model)}
    tensors = rules.torch_arrays(model, arrays) | {key: a for key, a in arrays.items() if key not in known}
    if "train" in manifest:  # JAX counts in int32, torch in int64
        tensors = {k: a.astype(np.int64) if a.dtype == np.int32 else a for k, a in tensors.items()}
    about = manifest.get("classes"), manifest.get("preprocess")
    return Weights(path, tensors, arguments, *about, rules.versions(model))


def _download(name: str, weights: str) -> tuple[Path, str, list[str] | None]:
    """Published weights, through torchvision and its cache: the file, the name that `DEFAULT` means, the classes."""
    package, _, builder = card(name).twin.partition(":")
    if package != "torchvision":
        raise UsageError(f"there is no file {weights}, and {name} has no published weights in torchvision")
    files.require_torch(f"{weights} is not a file, and fetching published weights", "torchvision")
    import torch
    from torchvision.models import get_model_weights

    choices = get_model_weights(builder).__members__
    if weights not in choices:
        known = ", ".join(choices)
        raise UsageError(f"{weights!r} is neither a file nor published weights of {name}, which are: {known}")
    entry = choices[weights]
    path = Path(torch.hub.get_dir(), "checkpoints", Path(entry.url).name)
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            digest = re.search(r"-([0-9a-f]{8,})\.", path.name)
            torch.hub.download_url_to_file(entry.url, str(path), digest and digest[1])
    except (OSError, RuntimeError) as error:
        raise UsageError(
            f"cannot download {weights} of {name} ({error}): are you offline? "
            "Fetch it where there is a network, and give the file instead of the name"
        ) from error
    return path, entry.name, entry.meta.get("categories")
