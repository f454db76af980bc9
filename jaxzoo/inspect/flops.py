"""How much a model computes, counted in its program."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax.extend.core import Jaxpr, JaxprEqn, jaxprs_in_params

from jaxzoo.inspect.intercept import program
from jaxzoo.nn.cpu.multilinear import definition
from jaxzoo.nn.resize import INTERPOLATION

_SCOPE = "path:"  # marks the scopes that are paths of modules


def multiply_adds(model: nnx.Module, inputs: Any) -> dict[str, int]:
    """Multiply-adds of the convolutions and matrix products in one forward pass, by the dotted path of the submodule.

    A path holds all that is inside it, the whole model is under `""`, and modules that multiply nothing are not there.
    Interpolation (`nn.resize`), which is a matrix product here, is left out as in what torchvision publishes.
    Nothing is computed, so the model may be abstract. FLOPs are twice these; literature calls these FLOPs as well.

    >>> multiply_adds(create_model("resnet50"), (1, 224, 224, 3))[""]
    4089184256

    Args:
      model: any NNX module; it is run in the mode it is in.
      inputs: the shape of its one input, (N, H, W, C) for images; or shapes and dtypes of several, such as
        `card(name).example_inputs()`.
    """
    counts: Counter[str] = Counter()
    _count(program(model, inputs, _name).jaxpr, "", 1, counts)
    return dict(counts)


def _name(path: str, call: Callable[[], Any]) -> Any:
    with jax.named_scope(_SCOPE + path):
        return call()


def _count(code: Jaxpr, path: str, times: int, counts: Counter[str]) -> None:
    for equation in code.eqns:
        scopes = [s.name for s in equation.source_info.name_stack.stack if hasattr(s, "name")]
        if INTERPOLATION in scopes:
            continue
        inner = next((s.removeprefix(_SCOPE) for s in reversed(scopes) if s.startswith(_SCOPE)), path)
        if cost := _COSTS.get(equation.primitive.name):
            names = inner.split(".") if inner else []
            for depth in range(len(names) + 1):
                counts[".".join(names[:depth])] += times * cost(equation)
        repeated = times * equation.params["length"] if equation.primitive.name == "scan" else times
        for part in _parts(equation):
            _count(part, inner, repeated, counts)


def _parts(equation: JaxprEqn) -> list[Jaxpr]:
    """The programs inside an equation: of those for several platforms the default one, which is the mathematics."""
    if meaning := definition(equation):
        return [meaning.jaxpr]
    platforms = equation.params.get("branches_platforms")
    if platforms and None in platforms:
        return [equation.params["branches"][platforms.index(None)].jaxpr]
    return list(jaxprs_in_params(equation.params))


def _convolution(equation: JaxprEqn) -> int:
    """Every output of a convolution multiplies a whole kernel; of a transposed one, every input does."""
    axes, (x, kernel) = equation.params["dimension_numbers"], (v.aval.shape for v in equation.invars)
    _, per_group, *taps = (kernel[axis] for axis in axes.rhs_spec)
    if math.prod(equation.params["lhs_dilation"]) == 1:
        return math.prod(equation.outvars[0].aval.shape) * per_group * math.prod(taps)
    return math.prod(x) * kernel[axes.rhs_spec[0]] // equation.params["feature_group_count"] * math.prod(taps)


def _product(equation: JaxprEqn) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    return math.prod(equation.outvars[0].aval.shape) * math.prod(equation.invars[0].aval.shape[a] for a in contracted)


_COSTS = {"conv_general_dilated": _convolution, "dot_general": _product}
