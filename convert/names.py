"""Whose names tensors bear: translated from another project's, taken off a wrapper, or matched by their order."""

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from convert import dialects, pairing, rules
from convert.shapes import abstract, default_shapes, epsilons
from convert.weights import Weights
from jaxzoo import UsageError, card, create_model


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


def match_by_order(name: str, path: Path, tensors: Mapping[str, np.ndarray]) -> Weights:
    """A file's tensors, each by the name of the model's tensor at the same place.

    Raises:
      UsageError: names the first two that are not of the same kind and shape.
    """
    if reason := dialects.refusal(tensors):
        raise UsageError(f"{path} does not fit {name}: {reason}")
    pairs = pairing.in_order(rules.leaves(abstract(name)), path, tensors)
    return Weights(path, {ours: tensors[theirs] for ours, theirs in pairs}, pairs=pairs)


def unwrapped(name: str, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Takes off the attribute that the whole model hung on while it was trained, as in Lightning's `model.fc.bias`."""
    wrappers = {key.partition(".")[0] for key in tensors}
    if len(wrappers) != 1 or tensors.keys() & default_shapes(name).keys():
        return tensors
    return {key.partition(".")[2] or key: array for key, array in tensors.items()}
