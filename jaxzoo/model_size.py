"""How large the zoo's models are and how much they compute, known without building them."""

import dataclasses
import functools
import json
from importlib import resources


@dataclasses.dataclass(frozen=True)
class ModelSize:
    """Of one model with its default arguments: its parameters, and its multiply-adds for one input of native size.

    `auxiliary` are the parameters of heads that only training runs, which a model may have by default or on request.
    """

    parameters: int
    multiply_adds: int
    auxiliary: int = 0


@functools.cache
def stored() -> dict[str, ModelSize]:
    """What model_sizes.json says, which `python -m tests.models_table` writes; it has every model of the zoo."""
    rows = json.loads(resources.files("jaxzoo").joinpath("model_sizes.json").read_text())
    return {name: ModelSize(**row) for name, row in rows.items()}


def digits(number: float) -> str:
    """Three significant ones: 167, 17.6, 0.000416."""
    return f"{number:#.3g}".rstrip(".")
