"""Shallow versions of networks that are too large for the numeric levels, on both sides alike."""

import torch
from flax import nnx

import jaxzoo.nn as jnn
from convert.rules import leaves
from jaxzoo.nn import NamedSequential, Sequential

NARROW = 32  # width of VGG's hidden layers, whose 120 M parameters are not its depth
NARROWER = 1 / 16  # width of a whole FCN on VGG-16, whose padding of 100 pixels makes any image a large one
WIDEST = 4096  # channels from which a RegNet goes without its last stage, where a single block has 100 M parameters


def reduce_depth(model: torch.nn.Module | nnx.Module) -> None:
    """Drops blocks that repeat the one before (same type, same parameters), in place; and what is wide all the same."""
    (_reduce_torch if isinstance(model, torch.nn.Module) else _reduce_flax)(model)


def _surplus(signatures: list) -> list[int]:
    """Indices of children that have parameters and equal the one before."""
    return [i for i in range(1, len(signatures)) if signatures[i][1] and signatures[i] == signatures[i - 1]]


def _reduce_torch(model: torch.nn.Module) -> None:
    for module in list(model.modules()):
        if isinstance(module, torch.nn.Sequential):
            children = list(module.named_children())
            signatures = [(type(m), [(k, v.shape) for k, v in m.state_dict().items()]) for _, m in children]
            for i in reversed(_surplus(signatures)):
                if children[i][0].isdigit():
                    del module[i]
                else:
                    delattr(module, children[i][0])
    if type(model).__name__ == "VGG":
        widths = (model.classifier[0].in_features, NARROW, NARROW, model.classifier[6].out_features)
        for i, place in enumerate((0, 3, 6)):
            model.classifier[place] = torch.nn.Linear(widths[i], widths[i + 1])
    if type(model).__name__ == "Fcn":
        model.__init__(model.stride, width=NARROWER)
    if type(model).__name__ == "RegNet" and model.fc.in_features > WIDEST:
        width = model.trunk_output.block4[0].proj[0].in_channels
        del model.trunk_output.block4
        model.fc = torch.nn.Linear(width, model.fc.out_features)


def _reduce_flax(model: nnx.Module) -> None:
    for _, module in list(nnx.iter_modules(model)):
        if isinstance(module, Sequential):
            for i in reversed(_surplus([_signature(m) for m in module])):
                del module[i]
        elif isinstance(module, NamedSequential):
            surplus = {module.order[i] for i in _surplus([_signature(getattr(module, n)) for n in module.order])}
            module.order = tuple(n for n in module.order if n not in surplus)
            for name in surplus:
                delattr(module, name)
    if type(model).__name__ == "VGG":
        widths = (model.classifier[0].in_features, NARROW, NARROW, model.classifier[6].out_features)
        for i, place in enumerate((0, 3, 6)):
            model.classifier[place] = jnn.Linear(widths[i], widths[i + 1], rngs=nnx.Rngs(0))
    if type(model).__name__ in ("FCN32s", "FCN16s", "FCN8s"):
        model.__init__(width=NARROWER, rngs=nnx.Rngs(0))
    if type(model).__name__ == "RegNet" and model.fc.in_features > WIDEST:
        width = getattr(model.trunk_output.block4, "block4-0").proj[0].in_features
        model.trunk_output.order = model.trunk_output.order[:-1]
        del model.trunk_output.block4
        model.fc = jnn.Linear(width, model.fc.out_features, rngs=nnx.Rngs(0))


def _signature(module: nnx.Module) -> tuple:
    return type(module), sorted((leaf.key, leaf.shape) for leaf in leaves(module))
