"""Filling models of the zoo with weights."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from convert import rules
from convert.differences import listed
from convert.fitting import fit_weights
from convert.sources import read_weights
from convert.weights import Weights
from jaxzoo import UsageError, card, create_model
from jaxzoo.nn.dropout import stream_tags


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
    """A model of the zoo with these weights, in eval mode and in float32; nothing that they fill is initialised.

    >>> model = convert.load("resnet18", "resnet18.pth")

    Args:
      name: a name from `jaxzoo.list_models()`.
      weights: a `.pth`, `.pt` or `.safetensors` file (see `convert.read`), Darknet's `.weights`, a converted
        directory, a checkpoint or the folder of a training run (its best checkpoint, else its last; `RUN#ema` is the
        average of its weights), or the name of published weights in torchvision or timm, such as `IMAGENET1K_V1` or
        `DEFAULT`.
      num_classes: as many as the weights have unless given.
      head: "strict", or "skip": a classifier of another size is initialised anew, with a warning that names it.
      seed: seeds such a fresh head, and dropout.
      match: "names", the reference's or timm's; or "order", for a file with the same tensors in the same order under
        other names (`python -m convert to-flax --match order` prints the pairs).
      **arguments: further arguments of `jaxzoo.create_model`.

    Raises:
      UsageError: unknown name; unreadable or unfitting weights, all differences listed.
    """
    known = arguments if num_classes is None else {"num_classes": num_classes, **arguments}
    found = read_weights(name, weights, match=match, arguments=known)
    return load_model(name, found, num_classes=num_classes, head=head, seed=seed, **arguments)[0]


def load_model(
    name: str, weights: Weights, *, num_classes: int | None = None, head: str = "strict", seed: int = 0, **arguments
) -> tuple[nnx.Module, dict[str, Any]]:
    """The model that `load` gives, of weights that are read already, and the arguments that built it."""
    fit = fit_weights(name, weights, num_classes=num_classes, head=head, **arguments)
    fit.warn(stacklevel=3)
    rules.load_state_dict(fit.model, fit.tensors, skip=fit.fresh)
    fill_fresh(fit.model, name, fit.arguments, seed)
    return fit.model, fit.arguments


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
            found = read_weights(part, weights)
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
    return f"{len(best)} tensors of {weights}; these start fresh: {listed(_owners(fresh), 8)}"


def _renamed(tensors: Mapping[str, np.ndarray], prefixes: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Tensors whose keys begin with one of these prefixes, with the other prefix in its place."""
    return {
        here + key.removeprefix(there): array
        for key, array in tensors.items()
        for there, here in prefixes.items()
        if key.startswith(there)
    }


def _owners(keys: Iterable[str]) -> list[str]:
    """The modules that tensors belong to, each once."""
    return list(dict.fromkeys(key.rpartition(".")[0] or key for key in keys))


def fill_fresh(model: nnx.Module, name: str, arguments: Mapping[str, Any], seed: int) -> dict[str, jax.Array]:
    """Fills the rest: random streams, and a skipped head with the numbers of `create_model`.

    Returns the arrays among them that a checkpoint holds, by dotted path.
    """
    nnx.reseed(model, **dict.fromkeys(stream_tags(model), seed))
    state = nnx.to_flat_state(nnx.state(model))
    todo = [path for path, variable in state if isinstance(variable.get_value(), jax.ShapeDtypeStruct)]
    if not todo:
        return {}
    fresh = dict(nnx.to_flat_state(nnx.state(create_model(name, seed=seed, **arguments))))
    nnx.update(model, nnx.from_flat_state([(path, fresh[path]) for path in todo]))
    return {".".join(map(str, path)): fresh[path].get_value() for path in todo}
