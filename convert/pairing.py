"""Tensors that are the same in the same order, under whatever names."""

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from convert.rules import Leaf
from jaxzoo.errors import UsageError

COUNTER = "num_batches_tracked"
# What a tensor is, by how frameworks end its name.
_KINDS = {
    "weight": ("weight", "kernel", "gamma", "scale"),
    "bias": ("bias", "beta"),
    "mean": ("mean",),
    "variance": ("var", "variance"),
}

Tensors = Mapping[str, np.ndarray]


def in_order(leaves: Iterable[Leaf], path: Path, tensors: Tensors, more: int = 0) -> list[tuple[str, str]]:
    """Pairs the names of a model's tensors with those at the same places in a file.

    Kinds and numbers of axes have to agree; for the sizes see `check`. Counters of batches are paired by themselves,
    and left out where one side has more than the other. At its end, a file may have tensors that the model has not:
    none, or more than this many.

    Raises:
      UsageError: names the first pair that does not fit.
    """
    leaves = list(leaves)
    ours = [leaf for leaf in leaves if not leaf.rule.optional]
    theirs = [name for name in tensors if not name.endswith(COUNTER)]
    theirs = theirs[: len(ours)] if more and len(theirs) > len(ours) + more else theirs
    for leaf, name in itertools.zip_longest(ours, theirs):
        if leaf is None or name is None or not _alike(leaf, name, tensors[name]):
            raise _misfit(leaf, name, path, tensors)
    pairs = [(leaf.key, name) for leaf, name in zip(ours, theirs, strict=True)]
    counters = [leaf.key for leaf in leaves if leaf.rule.optional], [name for name in tensors if name.endswith(COUNTER)]
    return pairs + list(zip(*counters, strict=True)) if len(counters[0]) == len(counters[1]) else pairs


def check(leaves: Iterable[Leaf], path: Path, tensors: Tensors, pairs: Iterable[tuple[str, str]]) -> None:
    """Raises UsageError for the first pair whose shapes differ; `tensors` have our names."""
    theirs = dict(pairs)
    for leaf in leaves:
        if leaf.key in theirs and leaf.torch_shape != tensors[leaf.key].shape:
            raise _misfit(leaf, theirs[leaf.key], path, {theirs[leaf.key]: tensors[leaf.key]})


def _alike(leaf: Leaf, name: str, array: np.ndarray) -> bool:
    kinds = [_kind(leaf.key), _kind(name)]
    # A name that does not tell may stand for any matrix, but a vector could be anything.
    same = kinds[0] == kinds[1] or ("" in kinds and array.ndim > 1)
    return same and array.ndim == len(leaf.torch_shape)


def _kind(name: str) -> str:
    return next((kind for kind, ends in _KINDS.items() if name.endswith(ends)), "")


def _misfit(leaf: Leaf | None, name: str | None, path: Path, tensors: Tensors) -> UsageError:
    ours = f"{leaf.key} {leaf.torch_shape}" if leaf else "nothing more of the model"
    theirs = f"{name} {tensors[name].shape}" if name else "nothing more of the file"
    lost = "; safetensors files are sorted by name, so try a .pth" if path.suffix == ".safetensors" else ""
    return UsageError(f"{path} does not match in order: the first pair that does not fit is {ours} with {theirs}{lost}")
