"""What modules are built with and no weight shows: strides, epsilons, rates, windows, kinds of activation."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import torch
import torchvision
from flax import nnx

import jaxzoo.nn as jnn
from jaxzoo.inspect import outputs

# What every module of a kind has to have in common with its twin: by torch's name, how ours is read.
_CONV = {
    "stride": lambda m: m.strides,
    "dilation": lambda m: m.kernel_dilation,
    "padding": lambda m: _padding(m),
}
_EPS = {"eps": lambda m: m.epsilon}
COMMON: dict[type[nnx.Module], dict[str, Callable[[nnx.Module], Any]]] = {
    jnn.Conv: _CONV | {"groups": lambda m: m.feature_group_count},
    jnn.ConvTranspose: _CONV,
    jnn.BatchNorm: _EPS | {"momentum": lambda m: m.share},
    jnn.LayerNorm: _EPS,
    jnn.GroupNorm: _EPS,
}
# Other attributes count where both sides have them, under the same name or under torch's other one.
OTHER_NAMES = {"use_residual": "use_res_connect"}
# What has a rule of its own (`rate`), or is a mode.
HERE = {"p", "drop_prob", "training"}
TORCH_DROPOUT = torch.nn.modules.dropout._DropoutNd | torchvision.ops.StochasticDepth


def plain(value: Any) -> bool:
    """Whether it is a number, a name, or a sequence of these."""
    return isinstance(value, int | float | str) or (isinstance(value, tuple | list) and all(map(plain, value)))


def common(module: nnx.Module) -> dict[str, Any]:
    """What has to be the same in the twin of a module of ours."""
    return {
        name: read(module) for kind, names in COMMON.items() if isinstance(module, kind) for name, read in names.items()
    }


def attributes(module: nnx.Module | torch.nn.Module) -> dict[str, Any]:
    """What a module of either side, without those inside it, is built with; ours by torch's names where it counts."""
    found = dict(vars(module))
    if found.get("stride", 0) is None:  # of pooling
        found["stride"] = module.kernel_size
    found = {name: value for name, value in found.items() if plain(value) and name not in HERE and name[0] != "_"}
    found |= common(module) if isinstance(module, nnx.Module) else {}
    if "dilation" in found and same(found.get("kernel_size", 0), 1):  # dilates nothing
        found["dilation"] = 1
    return found


def differences(model: nnx.Module, twin: torch.nn.Module) -> Iterator[str]:
    """Whatever modules of the same path do not have in common, in words."""
    theirs = dict(twin.named_modules())
    dropping = {path for path, other in theirs.items() if rate(other)}
    for path, module in nnx.iter_modules(model):
        path = ".".join(map(str, path))
        dropping.discard(path)
        other = theirs.get(path)
        if rate(module) != rate(other) and not math.isclose(rate(module), rate(other), rel_tol=1e-6):
            yield f"{path} drops {rate(module)}, should drop {rate(other)}"
        if other is None:
            continue
        if isinstance(module, jnn.Activation) and type(module).__name__ != type(other).__name__:
            yield f"{path} is {type(module).__name__}, should be {type(other).__name__}"
        required, found = common(module), attributes(other)
        if type(other).__name__ == "Conv2dSame":  # which pads as TensorFlow does, whatever its `padding` says
            found["padding"] = "SAME"
        for name, value in attributes(module).items():
            name = name if name in found else OTHER_NAMES.get(name, name)
            if (name in found or name in required) and not same(value, found.get(name)):
                yield f"{path}.{name} is {value}, should be {found.get(name)}"
    yield from (f"{path} should drop {rate(theirs[path])}" for path in sorted(dropping))


def _padding(conv: jnn.Conv | jnn.ConvTranspose) -> Any:
    """On both sides of every axis; TensorFlow's differs from torch's where there is a stride only."""
    if isinstance(conv, jnn.ConvTranspose):
        return conv.torch_padding
    if conv.padding == "SAME" and set(conv.strides) == {1}:
        return [d * (k - 1) // 2 for k, d in zip(conv.kernel_size, conv.kernel_dilation, strict=True)]
    return conv.padding


def rate(module: nnx.Module | torch.nn.Module | None) -> float:
    """With which probability a module of either side drops something."""
    if type(module).__name__ == "DropPath":
        return module.drop_prob
    return module.p if isinstance(module, jnn.Dropout | TORCH_DROPOUT) else 0.0


def same(ours: Any, theirs: Any) -> bool:
    """Equal values, where one number stands for all axes, and one for both sides of an axis."""
    if isinstance(ours, tuple | list) and isinstance(theirs, tuple | list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(ours, tuple | list):
        return bool(ours) and all(same(value, theirs) for value in ours)
    if isinstance(theirs, tuple | list):
        return bool(theirs) and all(same(ours, value) for value in theirs)
    return ours == theirs


def misshapen(model: nnx.Module, twin: torch.nn.Module, shape: tuple[int, int, int]) -> Iterator[str]:
    """Modules of the same path whose outputs for an image of this shape have other shapes; nothing is computed.

    Outputs of several tensors without names are left to the modules that make them, and those of a sequence that goes
    on in the twin to what comes after it.
    """
    theirs, paths = {}, {".".join(map(str, path)) for path, _ in nnx.iter_modules(model)}
    for path, module in twin.named_modules():
        if isinstance(module, torch.nn.Sequential) and len(module) and f"{path}.{[*module._modules][-1]}" not in paths:
            continue
        module.register_forward_hook(lambda module, inputs, y, path=path: theirs.update({path: y}))
    height, width, channels = shape
    twin.eval()(torch.empty(1, channels, height, width, device="meta"))
    graph, state = nnx.split(model)
    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    found = jax.eval_shape(lambda state, x: outputs(nnx.merge(graph, state, copy=True), x), state, x)
    for path, y in found.items():
        ours, reference = named(y), named(theirs.get(path))
        for name in ours.keys() & reference.keys():
            own, wanted = tuple(ours[name].shape), tuple(reference[name].shape)
            if own != wanted and (len(own) < 2 or own != (wanted[0], *wanted[2:], wanted[1])):
                yield f"{path} returns {name} {own}, should return {wanted}, channels last"


def named(y: Any) -> dict[str, Any]:
    """The tensors that a module returns, those that have names."""
    if isinstance(y, dict):
        return {name: value for name, value in y.items() if hasattr(value, "shape")}
    return {"an array": y} if hasattr(y, "shape") else {}
