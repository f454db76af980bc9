"""A model, module by module."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxzoo.inspect.flops import multiply_adds
from jaxzoo.inspect.intercept import program


@dataclasses.dataclass(frozen=True)
class ModuleSummary:
    """One submodule: parameters and multiply-adds are those of all that is inside it."""

    path: str
    kind: str  # name of its class
    outputs: tuple[tuple[int, ...], ...]  # the shape of each array that it returned; none if it did not run
    parameters: int
    multiply_adds: int


def summary(model: nnx.Module, inputs: Any) -> list[ModuleSummary]:
    """Every submodule in the order in which they start to run, the model itself first, under `""`.

    What is inside a module follows it. Those that do not run in the model's mode, such as auxiliary heads in eval mode,
    come last in theirs. Nothing is computed, so the model may be abstract.

    >>> summary(create_model("resnet18"), (1, 224, 224, 3))[1]
    ModuleSummary(path='conv1', kind='Conv', outputs=((1, 112, 112, 64),), parameters=9408, multiply_adds=118013952)

    Args:
      model: any NNX module; it is run in the mode it is in.
      inputs: as `multiply_adds` takes them.
    """
    kinds = {".".join(map(str, path)): type(module).__name__ for path, module in nnx.iter_modules(model)}
    outputs = _outputs(model, inputs)
    sizes = {
        ".".join(map(str, path)): math.prod(leaf.get_value().shape)
        for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param))
    }
    costs = multiply_adds(model, inputs)

    order = list(outputs)
    # A list that is no layer starts with its first child.
    starts = {p: next((i for i, other in enumerate(order) if _inside(other, p)), len(order)) for p in kinds}

    def place(path: str) -> list[tuple[int, str]]:
        names = path.split(".") if path else []
        outer = [".".join(names[:depth]) for depth in range(1, len(names) + 1)]
        return [(starts[p], p) for p in outer]

    return [
        ModuleSummary(
            path,
            kinds[path],
            outputs.get(path, ()),
            sum(size for leaf, size in sizes.items() if _inside(leaf, path)),
            costs.get(path, 0),
        )
        for path in sorted(kinds, key=place)
    ]


def _inside(path: str, outer: str) -> bool:
    return not outer or path == outer or path.startswith(outer + ".")


def _outputs(model: nnx.Module, inputs: Any) -> dict[str, tuple[tuple[int, ...], ...]]:
    """The shapes that each submodule returned, in the order in which they started."""
    found: dict[str, tuple[tuple[int, ...], ...]] = {}

    def record(path: str, call: Callable[[], Any]) -> Any:
        found.setdefault(path, ())
        result = call()
        found[path] = tuple(map(jnp.shape, jax.tree.leaves(result)))
        return result

    program(model, inputs, record)
    return found
