"""Sizes along the spatial axes."""

from collections.abc import Sequence
from numbers import Integral

Size = int | Sequence[int]


def per_axis(value: Size, n: int, name: str = "size", least: int = 1) -> tuple[int, ...]:
    """One number for every spatial axis, or one for each. Raises `ValueError` with the argument's `name`."""
    values = (value,) * n if isinstance(value, Integral) else tuple(value)
    if len(values) != n or not all(isinstance(v, Integral) and v >= least for v in values):
        raise ValueError(f"{name} is {value!r}; it must be one whole number ≥ {least}, or {n} of them")
    return tuple(map(int, values))
