"""Weights for images or windows of another size, or for another number of channels."""

import math
from collections.abc import Mapping

import numpy as np

from convert import rules
from convert.differences import listed

Tensors = dict[str, np.ndarray]


def resampled(leaves: list[rules.Leaf], tensors: Mapping[str, np.ndarray], owners: str) -> tuple[Tensors, str]:
    """Tables of positions that have another length, as the layers that own them read them; and a sentence on that.

    A layer says by its class attribute `resampled` which of its tables these are: `{"table": function}`, of a function
    that takes an array and the shape that it is to have.
    """
    found = {}
    for leaf in leaves:
        function = getattr(type(leaf.owner), "resampled", {}).get(leaf.name)
        if function and leaf.key in tensors and tensors[leaf.key].shape != leaf.torch_shape:
            found[leaf.key] = function(np.asarray(tensors[leaf.key]), leaf.torch_shape)
    return found, f"resampled for {owners} of another size: {listed(found, 2)}" if found else ""


def for_channels(leaves: list[rules.Leaf], tensors: Mapping[str, np.ndarray]) -> tuple[Tensors, str]:
    """The first kernel for images of another number of channels, as timm's `adapt_input_conv` makes it.

    One channel gets the sum over the others, so that a grey image has the same effect as three equal channels; more get
    them in turn, scaled so that the sum over all stays about the same.
    """
    first = next((leaf for leaf in leaves if len(leaf.torch_shape) == 4), None)
    kernel = tensors.get(first.key) if first else None
    if kernel is None or kernel.ndim != 4 or kernel.shape[1] == first.torch_shape[1]:
        return {}, ""
    before, count = kernel.shape[1], first.torch_shape[1]
    wide = np.asarray(kernel).astype(np.float32)
    if count == 1:
        wide = wide.sum(1, keepdims=True)
    else:
        wide = np.tile(wide, (1, math.ceil(count / before), 1, 1))[:, :count] * np.float32(before / count)
    return {first.key: wide.astype(kernel.dtype)}, f"{first.key} made for {count} channels instead of {before}"
