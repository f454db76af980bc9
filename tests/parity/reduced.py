"""Shallow versions of networks, on both sides alike: for what costs more with every block and shows nothing new."""

import torch
from flax import nnx

import jaxzoo.nn as jnn
from convert.rules import leaves
from jaxzoo.nn import NamedSequential, Sequential
from tests.parity.attributes import attributes

NARROW = 32  # width of VGG's hidden layers, whose 120 M parameters are not its depth
NARROWER = 1 / 16  # width of a whole YOLO, and FCN on VGG-16, whose padding of 100 pixels makes any image a large one
WIDEST = 4096  # channels from which a RegNet goes without its last stage, where a single block has 100 M parameters
DENSE = (2, 2, 2, 2)  # layers in the blocks of a DenseNet, none of which equals another


def reduce_depth(model: nnx.Module, twin: torch.nn.Module) -> None:
    """Drops from both, in place, blocks that do what one before them in the same sequence does: of the same type, with
    parameters of the same shapes and with the same attributes in every layer. Rates do not count, which are compared
    where nothing is dropped. And narrows what is wide all the same."""
    theirs = dict(twin.named_modules())
    for path, module in list(nnx.iter_modules(model)):
        other = theirs.get(".".join(map(str, path)))
        if isinstance(module, Sequential | NamedSequential) and isinstance(other, torch.nn.Sequential):
            children = dict(_children(module))
            if list(children) == [name for name, _ in other.named_children()]:
                ours = _surplus([_signature(child) for child in children.values()])
                surplus = ours & _surplus([_torch_signature(child) for child in other])
                for i in sorted(surplus, reverse=True):
                    _drop(module, other, i, list(children)[i])
    for module in theirs.values():
        if hasattr(
            module, "inplace"
        ):  # of two in a row, the second would overwrite what the first one's gradient needs
            module.inplace = False
    _narrow_flax(model)
    with next(twin.parameters()).device:
        _narrow_torch(twin)


def _children(module: Sequential | NamedSequential) -> list[tuple[str, nnx.Module]]:
    if isinstance(module, Sequential):
        return [(str(i), child) for i, child in enumerate(module)]
    return [(name, getattr(module, name)) for name in module.order]


def _signature(module: nnx.Module) -> tuple:
    """What a block computes, if it has parameters."""
    shapes = [(leaf.key, leaf.shape) for leaf in leaves(module)]
    inside = [(path, type(m).__name__, sorted(attributes(m).items())) for path, m in nnx.iter_modules(module)]
    return bool(shapes), repr((type(module), sorted(shapes), sorted(inside)))


def _torch_signature(module: torch.nn.Module) -> tuple:
    shapes = [(key, tuple(tensor.shape)) for key, tensor in module.state_dict().items()]
    inside = [(path, type(m).__name__, sorted(attributes(m).items())) for path, m in module.named_modules()]
    return bool(shapes), repr((type(module), shapes, inside))


def _surplus(signatures: list[tuple]) -> set[int]:
    """Indices of those that have parameters and equal one before."""
    return {i for i, signature in enumerate(signatures) if signature[0] and signature in signatures[:i]}


def _drop(module: Sequential | NamedSequential, other: torch.nn.Sequential, i: int, name: str) -> None:
    if isinstance(module, Sequential):
        _shorten(module, i)
        del other[i]  # numbers the others anew
    else:
        module.order = tuple(n for n in module.order if n != name)
        delattr(module, name)
        delattr(other, name)


def _shorten(module: Sequential, i: int) -> None:
    del module[i]
    if hasattr(module, stale := str(len(module))):  # Flax leaves the last one in its old place too
        delattr(module, stale)


def _narrow_torch(model: torch.nn.Module) -> None:
    if type(model).__name__ == "VGG":
        widths = (model.classifier[0].in_features, NARROW, NARROW, model.classifier[6].out_features)
        for i, place in enumerate((0, 3, 6)):
            model.classifier[place] = torch.nn.Linear(widths[i], widths[i + 1])
    if type(model).__name__ == "Fcn":
        model.__init__(model.stride, width=NARROWER)
    if type(model).__name__ == "YOLOv1":
        model.__init__(model.plan, width=NARROWER)
        model.eval()
    if type(model).__name__ == "DenseNet":
        first = model.features.conv0
        growth = model.features.denseblock1.denselayer1.conv2.out_channels
        model.__init__(growth, DENSE, first.out_channels)
        model.eval()
    if type(model).__name__ == "MaxVit":  # whose windows ask for images of 224 pixels: its first stage
        del model.blocks[1:]
        width, classes = model.blocks[0].layers[-1].layers.MBconv.layers.conv_c.out_channels, 10
        model.classifier[2] = torch.nn.LayerNorm(width)
        model.classifier[3] = torch.nn.Linear(width, width)
        model.classifier[5] = torch.nn.Linear(width, classes, bias=False)
    if type(model).__name__ == "RegNet" and model.fc.in_features > WIDEST:
        width = model.trunk_output.block4[0].proj[0].in_channels
        del model.trunk_output.block4
        model.fc = torch.nn.Linear(width, model.fc.out_features)


def _narrow_flax(model: nnx.Module) -> None:
    if type(model).__name__ == "VGG":
        widths = (model.classifier[0].in_features, NARROW, NARROW, model.classifier[6].out_features)
        for i, place in enumerate((0, 3, 6)):
            model.classifier[place] = jnn.Linear(widths[i], widths[i + 1], rngs=nnx.Rngs(0))
    if type(model).__name__ in ("FCN32s", "FCN16s", "FCN8s"):
        model.__init__(width=NARROWER, rngs=nnx.Rngs(0))
    if type(model).__name__ == "YOLOv1":
        plan = [step and (int(step[0] * NARROWER), *step[1:]) for step in model.plan]
        model.__init__(plan, model.local_channels and int(model.local_channels * NARROWER), rngs=nnx.Rngs(0))
        model.eval()
    if type(model).__name__ == "DenseNet":
        first = model.features.conv0
        growth = model.features.denseblock1.denselayer1.conv2.out_features
        model.__init__(growth, DENSE, first.out_features, rngs=nnx.Rngs(0))
        model.eval()
    if type(model).__name__ == "MaxVit":
        while len(model.blocks) > 1:
            _shorten(model.blocks, len(model.blocks) - 1)
        width, classes = model.blocks[0].layers[-1].layers.MBconv.layers.conv_c.out_features, 10
        model.classifier[2] = jnn.LayerNorm(width, rngs=nnx.Rngs(0))
        model.classifier[3] = jnn.Linear(width, width, rngs=nnx.Rngs(0))
        model.classifier[5] = jnn.Linear(width, classes, False, rngs=nnx.Rngs(0))
    if type(model).__name__ == "RegNet" and model.fc.in_features > WIDEST:
        width = getattr(model.trunk_output.block4, "block4-0").proj[0].in_features
        model.trunk_output.order = model.trunk_output.order[:-1]
        del model.trunk_output.block4
        model.fc = jnn.Linear(width, model.fc.out_features, rngs=nnx.Rngs(0))
