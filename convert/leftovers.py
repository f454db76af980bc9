"""Tensors that tools and trainers leave among weights, and that no model uses."""

from collections.abc import Collection, Iterable, Mapping

import numpy as np

from convert.differences import counted, listed

# By the last part of their names: what thop counts, averages of weights, and tables that the architecture tells.
_LEAVES = frozenset({
    "total_ops", "total_params", "n_averaged", "num_updates", "relative_position_index", "relative_coords_table",
    "attn_mask",
})  # fmt: skip
# By any part: modules that quantisation hangs on a layer.
_MODULES = frozenset({"activation_post_process", "weight_fake_quant", "bias_fake_quant"})


def leftovers(tensors: Mapping[str, np.ndarray], wanted: Collection[str]) -> tuple[list[str], list[str]]:
    """Of a file's tensors that a model has no place for, those that it can do without.

    A layer more would compute something else, so what lies in one of the model's modules is left over only if it is
    known as such, or if it cannot have been trained: whole numbers, and single numbers.

    Returns:
      The names of those beside the model's modules, and of those that were not trained.
    """
    own = {name.partition(".")[0] for name in wanted}
    extra = [name for name in tensors if name not in wanted]
    idle = [name for name in extra if _is_idle(name, tensors[name])]
    beside = [name for name in extra if name.partition(".")[0] not in own and name not in idle]
    return beside, idle


def _is_idle(name: str, array: np.ndarray) -> bool:
    *modules, leaf = name.split(".")
    return leaf in _LEAVES or array.size <= 1 or array.dtype.kind in "biu" or not _MODULES.isdisjoint(modules)


def in_words(beside: Iterable[str], idle: Iterable[str]) -> str:
    """Both lists in one line."""
    parts = counted(beside, lambda name: name.partition(".")[0]), counted(idle, lambda name: name.rpartition(".")[2])
    return listed([*parts[0], *parts[1]])
