"""Whose names tensors bear: translated from another project's, taken off a wrapper, or matched by their order."""

import contextlib
import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from convert import dialects, pairing, rules
from convert.differences import listed
from convert.heads import auxiliary, heads_of
from convert.shapes import Shapes, default, default_shapes, epsilons
from convert.weights import Weights
from jaxzoo import UsageError, card

Tensors = Mapping[str, np.ndarray]


class _Network(NamedTuple):
    """The tensors below a prefix of a file, by the reference's names as far as they are known."""

    prefix: str  # "", "model.", "module.encoder_q."
    tensors: Tensors
    reading: dialects.Reading | None  # where another project's names were translated
    alike: int  # so many have the name and the shape that the model's have by default
    named: int  # and so many the name


def located(name: str, weights: Weights) -> Weights:
    """The same without what lies beside the network, whatever attributes that hung on, by the reference's names.

    What fits nothing that is known stays as it is.

    Raises:
      UsageError: there are several networks; or those of this dialect compute something else.
    """
    reason = dialects.refusal(weights.tensors)
    networks = _networks(name, weights.tensors)
    best = max(networks, key=lambda network: (network.alike, network.named))  # of equal ones the outermost
    if best.reading is None and 2 * best.named <= len(default_shapes(name)):
        if reason and not networks[0].named:
            raise UsageError(f"{weights.path} does not fit {name}: {reason}")
        return weights
    rivals = [n for n in networks if best.prefix and _rival(n, best)]
    if rivals:
        choices = listed(f"{weights.path.name}#{n.prefix.removesuffix('.')}" for n in (best, *rivals))
        raise UsageError(f"{weights.path} holds several networks that fit {name}; name one of {choices}")
    if not best.prefix and best.reading is None:
        return weights
    outside = [key for key in weights.tensors if not key.startswith(best.prefix)]
    found = dataclasses.replace(weights, tensors=dict(best.tensors), outside=outside)
    if best.reading is None:
        return found
    table, dialect = best.reading.table, best.reading.dialect
    check_dialect(name, best.reading)
    if table.caution:
        warnings.warn(f"{weights.path.name} has {dialect}'s names; {table.caution}", stacklevel=4)
    return dataclasses.replace(found, dialect=dialect)


def _networks(name: str, tensors: Tensors) -> list[_Network]:
    """What may be the model's network, by where it lies; the outermost first, and there under its own names."""
    wanted, tables = default_shapes(name), dialects.tables_of(name)
    inside: dict[str, dict[str, np.ndarray]] = {"": {}}
    for key, array in tensors.items():
        for start in (0, *(i + 1 for i, letter in enumerate(key) if letter == ".")):
            inside.setdefault(key[:start], {})[key[start:]] = array
    networks = []
    for prefix, below in sorted(inside.items(), key=lambda item: item[0].count(".")):
        if prefix and 2 * len(below) <= len(wanted):
            continue
        own = _network(prefix, below, None, wanted)
        others = (_network(prefix, reading.tensors, reading, wanted) for reading in dialects.readings(below, tables))
        networks += [own, *(other for other in others if other.named > max(own.named, len(wanted) // 2))]
    return networks


def _network(prefix: str, tensors: Tensors, reading: dialects.Reading | None, wanted: Shapes) -> _Network:
    alike = sum(wanted.get(key) == array.shape for key, array in tensors.items())
    return _Network(prefix, tensors, reading, alike, len(wanted.keys() & tensors.keys()))


def _rival(network: _Network, best: _Network) -> bool:
    """Whether a network lies elsewhere, fits about as well as the best, and holds other numbers."""
    one, other = network.prefix, best.prefix
    if one.startswith(other) or other.startswith(one):
        return False
    if 10 * network.alike < 9 * best.alike or 10 * network.named < 9 * best.named:
        return False
    keys = network.tensors.keys() & best.tensors.keys()
    return not all(np.array_equal(network.tensors[key], best.tensors[key]) for key in keys)


def in_dialect(name: str, dialect: str, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A model's state_dict by the names of a dialect.

    Raises:
      UsageError: the dialect has no network that computes the same.
    """
    if card(name).twin.startswith(f"{dialect}:"):
        return dict(tensors)
    found = dialects.written(dialect, name, tensors)
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


def match_by_order(name: str, path: Path, tensors: Tensors) -> Weights:
    """A file's tensors, each by the name of the model's tensor at the same place.

    It may lack the auxiliary head, and the head, or have more layers there; `fit_weights` says what to do then.

    Raises:
      UsageError: names the first two that are not of the same kind.
    """
    if reason := dialects.refusal(tensors):
        raise UsageError(f"{path} does not fit {name}: {reason}")
    leaves = list(rules.leaves(default(name)))
    try:
        pairs = pairing.in_order(leaves, path, tensors)
    except UsageError:
        if (pairs := _without_heads(name, leaves, path, tensors)) is None:
            raise
    theirs = {their for _, their in pairs}
    beside = [key for key in tensors if key not in theirs and not key.endswith(pairing.COUNTER)]
    return Weights(path, {ours: tensors[their] for ours, their in pairs}, pairs=pairs, outside=beside)


def _without_heads(name: str, leaves: list[rules.Leaf], path: Path, tensors: Tensors) -> list[tuple[str, str]] | None:
    _, prefixes = auxiliary(name)
    aside = {leaf.key for leaf in leaves if leaf.key.startswith(prefixes)}
    heads = set(heads_of(name, {}, {}).main)
    parts = tuple(key.partition(".")[0] + "." for key in heads)
    whole = {leaf.key for leaf in leaves if leaf.key.startswith(parts)}
    names = [key for key in tensors if not key.endswith(pairing.COUNTER)]
    for left_out in (aside, heads, whole, aside | heads, aside | whole):
        rest = [leaf for leaf in leaves if leaf.key not in left_out]
        after = names[len([leaf for leaf in rest if not leaf.rule.optional]) :]
        if after and not any(tensors[key].ndim > 1 for key in after[len(left_out) :]):
            continue  # no layers more: the head is there, and something else is wrong
        with contextlib.suppress(UsageError):
            return pairing.in_order(rest, path, tensors, more=len(left_out) if heads <= left_out else 0)
    return None
