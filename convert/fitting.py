"""Which model weights fill, and the weights as it takes them."""

import dataclasses
import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx

from convert import adapting, pairing, rules
from convert.differences import differences, listed
from convert.heads import Heads, auxiliary, heads_of, replaced
from convert.leftovers import in_words, leftovers
from convert.shapes import Shapes, abstract, image_size_of, shapes_at
from convert.weights import Weights
from jaxzoo import UsageError, create_model
from jaxzoo.errors import Remedy
from jaxzoo.nn import Buffer

HEADS = ("strict", "skip")
ADAPTATIONS = {  # by the argument that asks for them
    "image_size": partial(adapting.resampled, owners="images"),
    "window_size": partial(adapting.resampled, owners="windows"),
    "in_channels": adapting.for_channels,
}


@dataclasses.dataclass
class Fit:
    """A model that weights fill, and the weights as it takes them."""

    model: nnx.Module  # abstract: shapes without arrays
    arguments: dict[str, Any]  # that build it
    tensors: dict[str, np.ndarray]  # by torch's names, as many as the model has, but for those that are
    fresh: list[str]  # torch's names of a head that is left as it is initialised
    notes: list[str]  # a sentence for each thing that was done to the weights
    left_fresh: str = ""  # and that on the head

    def warn(self, stacklevel: int) -> None:
        for note in filter(None, (*self.notes, self.left_fresh)):
            warnings.warn(note, stacklevel=stacklevel + 1)


def fit_weights(
    name: str, weights: Weights, *, num_classes: int | None = None, head: str = "strict", **arguments
) -> Fit:
    """The model that these weights fill, abstract, and these weights as it takes them.

    Raises:
      UsageError: they do not fit; the most telling differences are named and the others counted.
    """
    if head not in HEADS:
        raise UsageError(f"head is {head!r}; it must be 'strict' or 'skip'")
    given = {"in_channels" if key == "in_chans" else key: value for key, value in arguments.items()}
    given |= {} if num_classes is None else {"num_classes": num_classes}
    file, tensors = weights.path.name, weights.tensors
    arguments, heads = infer_arguments(name, _shapes(tensors), weights.arguments, given)
    notes = []
    if heads and heads.disagree and head == "strict" and heads.argument not in given:
        arguments[heads.argument] = False
        notes.append(
            f"left out the auxiliary head of {file}: it has {heads.auxiliary_classes} classes, "
            f"the main one {heads.classes}"
        )
    if num_classes == 0:
        tensors = _features_alone(name, arguments, tensors)
    model = abstract(name, **arguments)
    leaves = list(rules.leaves(model))
    tensors, adapted = _adapted(name, file, leaves, tensors, arguments, given)
    wanted = {leaf.key: leaf.torch_shape for leaf in leaves}
    optional = {leaf.key for leaf in leaves if leaf.rule.optional}
    shapes = _shapes(tensors)
    lost = replaced(heads, {key: wanted[key] for key in wanted if key not in optional}, shapes) if heads else ()
    skipped = lost if head == "skip" else ()
    fresh = [key for key in wanted if skipped and key.startswith(skipped)]
    rest = {key: shape for key, shape in wanted.items() if key not in fresh}
    beside, idle = leftovers(tensors, wanted)
    extra = [key for key in tensors if key not in {*wanted, *beside, *idle} and not key.startswith(skipped or "\0")]
    missing = [key for key in rest if key not in tensors and key not in optional]
    misshapen = [key for key, shape in rest.items() if key in tensors and shapes[key] != shape]
    if wrong := [*extra, *missing, *misshapen]:
        if weights.pairs:
            pairing.check([leaf for leaf in leaves if leaf.key in rest], weights.path, tensors, weights.pairs)
        only_the_head = bool(lost) and all(key.startswith(lost) for key in wrong)
        ways = [Remedy("head", "skip", "leaves the head fresh")] if only_the_head else []
        if ways and heads.classes and num_classes not in (None, heads.classes):
            raise UsageError(f"{weights.path} has {heads.classes} classes, not {num_classes}", *ways)
        text = differences(rest, shapes, missing, [*extra, *beside])
        raise UsageError(f"{weights.path} does not fit {name}:{text}", *ways)
    notes += adapted
    if out := in_words([*weights.outside, *beside], idle):
        notes.append(f"left out of {file}, for {name} has no place for them: {out}")
    kept = {key: array for key, array in tensors.items() if key in rest}
    return Fit(model, arguments, kept, fresh, notes, _left_fresh(file, fresh, skipped, shapes))


def _adapted(
    name: str,
    file: str,
    leaves: list[rules.Leaf],
    tensors: dict[str, np.ndarray],
    arguments: Mapping[str, Any],
    given: Mapping[str, Any],
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The tensors for images or windows of the size asked for, with the tables of the architecture; and notes."""
    notes = []
    for argument, adapt in ADAPTATIONS.items():
        changed, note = adapt(leaves, tensors) if argument in given else ({}, "")
        tensors = tensors | changed
        notes += [f"{file}: {note}"] * bool(note)
    tables = [x.key for x in leaves if isinstance(x.variable, Buffer) and _shape(tensors, x.key) != x.torch_shape]
    return tensors | architecture_tables(name, arguments, tables), notes


def _left_fresh(file: str, fresh: list[str], skipped: tuple[str, ...], shapes: Shapes) -> str:
    """A sentence on the head that is left as it is initialised; "" where there is none."""
    if not fresh:
        return ""
    theirs = listed(f"{key} {shape}" for key, shape in shapes.items() if key.startswith(skipped))
    found = f"another head: {theirs}" if theirs else f"no head: {listed(fresh)} missing"
    return f"left fresh, for {file} has {found}"


def infer_arguments(
    name: str, shapes: Shapes, known: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[dict[str, Any], Heads | None]:
    """The arguments that build the model of these shapes, as far as shapes tell; `given` ones stay as they are.

    Also the model's heads, unless a model of the known arguments fits as it is.
    """
    arguments = {**known, **given}
    wanted = shapes_at(name, arguments)
    wrong = {key for key, shape in wanted.items() if shapes.get(key) != shape}
    if not wrong and shapes.keys() <= wanted.keys():
        return arguments, None
    argument, aside = auxiliary(name)
    there, built = (any(key.startswith(aside) for key in keys) for keys in (shapes, wanted))
    if argument and argument not in given and there != built:
        arguments[argument] = there
    stem = next((key for key, shape in wanted.items() if len(shape) == 4), None)
    channels = shapes.get(stem, ())
    if "in_channels" not in given and len(channels) == 4 and _but_channels(channels) == _but_channels(wanted[stem]):
        arguments |= {"in_channels": channels[1]} if channels != wanted[stem] else {}
    heads = heads_of(name, shapes, arguments)
    read = {"num_classes": heads.classes, "image_size": None}
    if "image_size" not in given and wrong - {*heads.main, *heads.auxiliary}:
        read["image_size"] = image_size_of(name, shapes, arguments)
    arguments |= {key: value for key, value in read.items() if value and key not in given}
    return arguments, heads


def _but_channels(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0], *shape[2:])


def _features_alone(name: str, arguments: Mapping[str, Any], tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors without those of the layers that a model for no classes lacks."""
    whole = shapes_at(name, {key: value for key, value in arguments.items() if key != "num_classes"})
    gone = tuple({key.rpartition(".")[0] + "." for key in whole.keys() - shapes_at(name, arguments).keys()})
    return {key: array for key, array in tensors.items() if not key.startswith(gone)}


def architecture_tables(name: str, arguments: Mapping[str, Any], keys: list[str]) -> dict[str, np.ndarray]:
    """Tensors that follow from the architecture, as a fresh model has them; nothing else is initialised."""
    if not keys:
        return {}

    def values():
        model = create_model(name, **arguments)
        return {leaf.key: leaf.variable.get_value() for leaf in rules.leaves(model) if leaf.key in keys}

    return {key: rules.as_torch(np.asarray(value)) for key, value in jax.jit(values)().items()}


def _shapes(tensors: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {key: array.shape for key, array in tensors.items()}


def _shape(tensors: Mapping[str, np.ndarray], key: str) -> tuple[int, ...] | None:
    return tensors[key].shape if key in tensors else None
