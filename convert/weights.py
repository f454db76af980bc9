"""Weights for a model of the zoo: where they come from, how many classes they have, and the model that they fill."""

import contextlib
import dataclasses
import math
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from convert import dialects, files, pairing, rules, store
from convert.shapes import Shapes, abstract, auxiliary_heads, default_shapes, epsilons, head_of, image_size_of
from jaxzoo import Preprocess, UsageError, card, create_model
from jaxzoo.imagenet import imagenet_classes


@dataclasses.dataclass
class Weights:
    """A state_dict by torch's names, and what is known of it."""

    path: Path
    tensors: dict[str, np.ndarray]
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)  # of create_model
    classes: list[str] | None = None
    preprocess: dict[str, Any] | None = None
    versions: dict[str, int] = dataclasses.field(default_factory=dict)  # of torch's layout
    dialect: str = ""  # whose names they bore: "", "timm", …
    pairs: list[tuple[str, str]] = dataclasses.field(default_factory=list)  # torch's name and theirs, matched by order

    def source(self) -> dict[str, str]:
        """Where these came from, for a manifest."""
        path, _ = part_of(self.path)
        file = path / store.MANIFEST if path.is_dir() else path
        return {"path": str(self.path), "sha256": store.file_digest(file)}


def load(
    name: str,
    weights: str | Path,
    *,
    num_classes: int | None = None,
    head: str = "strict",
    seed: int = 0,
    match: str = "names",
    **arguments,
) -> nnx.Module:
    """A model of the zoo with these weights, in eval mode and in float32, without initialising what the weights fill.

    >>> model = convert.load("resnet18", "resnet18.pth")

    Args:
      name: a name from `jaxzoo.list_models()`.
      weights: a `.pth`, `.pt` or `.safetensors` file (see `convert.read`), a converted directory, a checkpoint or the
        folder of a training run (its best checkpoint, else its last; `RUN#ema` is the average of its weights), or the
        name of published weights in torchvision or timm, such as `IMAGENET1K_V1` or `DEFAULT`.
      num_classes: as many as the weights have unless given.
      head: "strict", or "skip": a classifier of another size is initialised anew, with a warning that names it.
      seed: seeds such a fresh head, and dropout.
      match: "names", the reference's or timm's; or "order", for a file with the same tensors in the same order under
        other names (`python -m convert to-flax --match order` prints the pairs).
      **arguments: further arguments of `jaxzoo.create_model`.

    Raises:
      UsageError: unknown name; unreadable or unfitting weights, all differences listed.
    """
    found = find(name, weights, match=match)
    return filled(name, found, num_classes=num_classes, head=head, seed=seed, **arguments)[0]


def filled(
    name: str, weights: Weights, *, num_classes: int | None = None, head: str = "strict", seed: int = 0, **arguments
) -> tuple[nnx.Module, dict[str, Any]]:
    """The model that `load` gives, of weights that are read already, and the arguments that built it."""
    model, arguments, skipped = fit(name, weights, num_classes=num_classes, head=head, **arguments)
    rules.load_state_dict(model, weights.tensors, skip=skipped)
    fill_fresh(model, name, arguments, seed)
    return model, arguments


def find(name: str, weights: str | Path, *, match: str = "names") -> Weights:
    """Reads what `load` takes for `weights`; the tensors of a file are views of it, so copy them soon.

    Raises UsageError.
    """
    if match not in ("names", "order"):
        raise UsageError(f"match is {match!r}; it must be 'names' or 'order'")
    published = card(name).weights
    path = Path(weights)
    directory, part = part_of(path)
    if directory.is_dir():
        return _from_directory(name, directory, part)
    if match == "order":
        contents = files.contents(path)
        return matched(name, contents.path, contents.tensors)
    if path.exists() or path.suffix or os.sep in str(weights) or "#" in str(weights):
        key, classes = _published_as(name, path)
    else:
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
    arguments |= auxiliary_heads(name, shapes, arguments) | given
    heads, classes = head_of(name, shapes, arguments)
    read = {"num_classes": classes, "image_size": wrong - set(heads) and image_size_of(name, shapes, arguments)}
    arguments |= {key: value for key, value in read.items() if value and key not in given}
    model = abstract(name, **arguments)
    if not _misfits(model, shapes).intersection(heads):
        return model, arguments, []
    if head == "skip":
        found = ", ".join(f"{key} {shapes.get(key, 'missing')}" for key in heads)
        warnings.warn(f"left fresh, for {weights.path.name} has another head: {found}", stacklevel=4)
        return model, arguments, heads
    if classes:
        raise UsageError(
            f"{weights.path} has {classes} classes, not {num_classes}; head 'skip' (--head skip) leaves the head fresh"
        )
    return model, arguments, []


def load_part(module: nnx.Module, name: str, weights: str | Path) -> str:
    """Fills the part of a model that is another model from weights of that, and says which tensors are left alone.

    Tensors of the same numbers in another shape are reshaped: a linear layer that becomes a convolution.

    Args:
      module: the model, with arrays.
      name: its name, whose card has `parts`.
      weights: as `load` takes them, of one of these parts.

    Raises:
      UsageError: the model has no such parts, or these weights are none of theirs; all reasons are listed.
    """
    parts = card(name).parts
    if not parts:
        raise UsageError(f"no part of {name} is another model: give weights of {name} itself")
    wanted = {leaf.key: leaf for leaf in rules.leaves(module)}
    best, reasons = {}, []
    for part, prefixes in parts.items():
        try:
            found = find(part, weights)
        except UsageError as error:
            reasons.append(str(error))
            continue
        fitting = {
            key: np.asarray(array).reshape(wanted[key].torch_shape)
            for key, array in _renamed(found.tensors, prefixes).items()
            if key in wanted and array.size == math.prod(wanted[key].torch_shape)
        }
        best = max(best, fitting, key=len)
    if not any(array.ndim > 1 for array in best.values()):
        raise UsageError(
            "; ".join(dict.fromkeys(reasons)) or f"{weights} are no weights of {' or '.join(parts)}, parts of {name}"
        )
    fresh = [key for key in wanted if key not in best]
    rules.load_state_dict(module, best, skip=fresh)
    return f"{len(best)} tensors of {weights}; these start fresh: {', '.join(_owners(fresh))}"


def _renamed(tensors: Mapping[str, np.ndarray], prefixes: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Tensors whose keys begin with one of these, by what they begin with instead."""
    return {
        here + key.removeprefix(there): array
        for key, array in tensors.items()
        for there, here in prefixes.items()
        if key.startswith(there)
    }


def _owners(keys: Iterable[str]) -> list[str]:
    """The modules that tensors belong to, each once."""
    return list(dict.fromkeys(key.rpartition(".")[0] or key for key in keys))


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


def part_of(path: Path) -> tuple[Path, str]:
    """`RUN#ema` as the folder RUN and `ema`; any other path as itself and ""."""
    folder, _, part = str(path).rpartition("#")
    return (Path(folder), part) if folder and not path.exists() and Path(folder).is_dir() else (path, "")


def _from_file(name: str, path: Path) -> Weights:
    contents = files.contents(path)
    return translated(name, Weights(contents.path, unwrapped(name, contents.tensors)))


def translated(name: str, weights: Weights) -> Weights:
    """The same by the reference's names, where the table of another dialect makes more of them.

    Raises:
      UsageError: the networks of that dialect compute something else.
    """
    readings, reason = list(dialects.readings(weights.tensors)), dialects.refusal(weights.tensors)
    if not readings and not reason:
        return weights
    wanted = default_shapes(name).keys()
    known = len(wanted & weights.tensors.keys())
    best = max(readings, key=lambda reading: len(wanted & reading.tensors.keys()), default=None)
    if best is None or len(wanted & best.tensors.keys()) <= max(known, len(wanted) // 2):
        if reason and not known:
            raise UsageError(f"{weights.path} does not fit {name}: {reason}")
        return weights
    check_dialect(name, best)
    if best.table.caution:
        warnings.warn(f"{weights.path.name} has {best.dialect}'s names; {best.table.caution}", stacklevel=4)
    tensors = best.tensors | _derived(name, [key for key in wanted if best.table.derives(key)])
    return dataclasses.replace(weights, tensors=tensors, dialect=best.dialect)


def in_dialect(name: str, dialect: str, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A model's state_dict by the names of a dialect.

    Raises:
      UsageError: the dialect has no network that computes the same.
    """
    if card(name).twin.startswith(f"{dialect}:"):
        return dict(tensors)
    found = dialects.written(dialect, tensors)
    if found is None:
        raise UsageError(
            f"{name} cannot be written in {dialect}'s names: {dialect} has no network that computes the same"
        )
    check_dialect(name, found)
    return found.tensors


def check_dialect(name: str, reading: dialects.Reading) -> None:
    """Raises UsageError where a dialect's networks of the same names normalise with another epsilon."""
    used = epsilons(name)
    if reading.table.epsilon and used - {reading.table.epsilon}:
        ours = ", ".join(f"{epsilon:g}" for epsilon in sorted(used))
        raise UsageError(
            f"{reading.dialect} has no network that computes what {name} does: those of the same names normalise with "
            f"epsilon {reading.table.epsilon:g}, and {name} with {ours}"
        )


def _derived(name: str, keys: list[str]) -> dict[str, np.ndarray]:
    """Tensors that follow from the architecture, as a fresh model has them; nothing else is initialised."""
    if not keys:
        return {}

    def values():
        return {leaf.key: leaf.variable.get_value() for leaf in rules.leaves(create_model(name)) if leaf.key in keys}

    return {key: rules.as_torch(np.asarray(value)) for key, value in jax.jit(values)().items()}


def matched(name: str, path: Path, tensors: Mapping[str, np.ndarray]) -> Weights:
    """A file's tensors, each by the name of the model's tensor at the same place.

    Raises:
      UsageError: names the first two that are not of the same kind and shape.
    """
    if reason := dialects.refusal(tensors):
        raise UsageError(f"{path} does not fit {name}: {reason}")
    pairs = pairing.in_order(rules.leaves(abstract(name)), path, tensors)
    found = Weights(path, {ours: tensors[theirs] for ours, theirs in pairs}, pairs=pairs)
    pairing.check(rules.leaves(fit(name, found)[0]), path, tensors, pairs)
    return found


def unwrapped(name: str, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Takes off the attribute that the whole model hung on while it was trained, as in Lightning's `model.fc.bias`."""
    wrappers = {key.partition(".")[0] for key in tensors}
    if len(wrappers) != 1 or tensors.keys() & default_shapes(name).keys():
        return tensors
    return {key.partition(".")[2] or key: array for key, array in tensors.items()}


def _from_directory(name: str, path: Path, part: str = "") -> Weights:
    path = checkpoint_in(path)
    arrays, manifest = store.load(path, prefix="model/")
    if manifest["model"] != name:
        raise UsageError(f"{path} holds {manifest['model']}, not {name}")
    if part:
        arrays |= _average(path, part)  # what is frozen has none
    arguments = dict(manifest["arguments"])
    model = abstract(name, **arguments)
    known = {leaf.path for leaf in rules.leaves(model)}
    tensors = rules.torch_arrays(model, arrays) | {key: a for key, a in arrays.items() if key not in known}
    if "train" in manifest:  # JAX counts in int32, torch in int64
        tensors = {key: rules.as_torch(array) for key, array in tensors.items()}
    about = manifest.get("classes"), manifest.get("preprocess")
    return Weights(Path(f"{path}#{part}") if part else path, tensors, arguments, *about, rules.versions(model))


def _average(path: Path, part: str) -> dict[str, np.ndarray]:
    if part != "ema":
        raise UsageError(f"{path} has no part {part!r}; {path}#ema is the average of its weights")
    if not any(file.startswith(f"{store.ARRAYS}/ema/") for file in store.read_manifest(path)["files"]):
        raise UsageError(f"{path} holds no average of its weights: it was trained without --ema; leave out #ema")
    return store.load(path, prefix="ema/")[0]


def _download(name: str, weights: str) -> tuple[Path, str, list[str] | None]:
    """Published weights, through their publisher's cache: the file, the name that `DEFAULT` means, the classes."""
    package, _, builder = card(name).twin.partition(":")
    fetch = {"torchvision": _from_torchvision, "timm": _from_timm}.get(package)
    if fetch is None or (package == "timm" and not card(name).weights):
        raise UsageError(f"there is no file {weights}, and {name} has no published weights")
    try:
        return fetch(name, builder, weights)
    except (OSError, RuntimeError) as error:
        raise UsageError(
            f"cannot download {weights} of {name} ({error}): are you offline? "
            "Fetch it where there is a network, and give the file instead of the name"
        ) from error


def _published_as(name: str, path: Path) -> tuple[str | None, list[str] | None]:
    """The name and the classes of the weights that torchvision publishes as a file of this name, which has a digest."""
    package, _, builder = card(name).twin.partition(":")
    if package == "torchvision" and re.search(r"-[0-9a-f]{8}\.pth$", path.name):
        with contextlib.suppress(ImportError):
            from torchvision.models import get_model_weights

            for entry in get_model_weights(builder):
                if Path(entry.url).name == path.name:
                    return entry.name, entry.meta.get("categories")
    return None, None


def _refuse_unknown(name: str, weights: str, choices: Iterable[str]) -> None:
    if weights not in choices:
        known = ", ".join(choices)
        raise UsageError(f"{weights!r} is neither a file nor published weights of {name}, which are: {known}")


def _from_torchvision(name: str, builder: str, weights: str) -> tuple[Path, str, list[str] | None]:
    files.require_torch(f"{weights} is not a file, and fetching published weights", "torchvision")
    import torch
    from torchvision.models import get_model_weights

    choices = get_model_weights(builder).__members__
    _refuse_unknown(name, weights, choices)
    entry = choices[weights]
    path = Path(torch.hub.get_dir(), "checkpoints", Path(entry.url).name)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = re.search(r"-([0-9a-f]{8,})\.", path.name)
        torch.hub.download_url_to_file(entry.url, str(path), digest and digest[1])
    return path, entry.name, entry.meta.get("categories")


def _from_timm(name: str, builder: str, weights: str) -> tuple[Path, str, list[str] | None]:
    try:
        import huggingface_hub
    except ImportError:
        raise UsageError(f"fetching {weights} of {name} needs: pip install huggingface_hub") from None

    published = list(card(name).weights)
    _refuse_unknown(name, weights, [*published, "DEFAULT"])
    tag = published[0] if weights == "DEFAULT" else weights
    huggingface_hub.utils.logging.set_verbosity_error()  # or it reports each of its attempts
    path = huggingface_hub.hf_hub_download(f"timm/{builder}.{tag}", "model.safetensors")
    return Path(path), tag, list(imagenet_classes()) if tag.endswith("in1k") else None
