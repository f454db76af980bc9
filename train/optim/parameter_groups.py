"""What a model's parameters are to an optimizer: their kind, which decides weight decay, and how deep they lie."""

from collections.abc import Iterator
from typing import Literal

from flax import nnx

from jaxzoo.nn import NamedSequential, Sequential, attributes

Kind = Literal["kernel", "norm", "bias", "table"]
Path = tuple[str | int, ...]

_NORMS = (nnx.BatchNorm, nnx.LayerNorm, nnx.GroupNorm, nnx.RMSNorm, nnx.InstanceNorm)
_SEQUENCES = (nnx.List, nnx.Sequential, Sequential, NamedSequential)


def parameter_kinds(model: nnx.Module) -> dict[str, Kind]:
    """The kind of every parameter by its dotted path, such as `{"layer1.0.bn1.scale": "norm"}`.

    "norm" is what a normalisation layer owns, its bias too. Elsewhere names decide, on which Flax's layers agree:
    "kernel", "bias", and "table" for all else: embeddings, tables of positions, class tokens, layer scales,
    temperatures. `model` may be abstract.

    torchvision's `set_weight_decay` draws the same lines, except that its `--transformer-embedding-decay` means three
    tables by name (class_token, position_embedding, relative_position_bias_table) and this means all of them, and
    that its `--bias-weight-decay` passes over in_proj_bias.
    """
    owners = dict(nnx.iter_modules(model))
    kinds = {}
    for path in _parameters(model):
        name = str(path[-1])
        kind = "norm" if isinstance(owners.get(path[:-1]), _NORMS) else name if name in ("kernel", "bias") else "table"
        kinds[_dotted(path)] = kind
    return kinds


def depths(model: nnx.Module) -> dict[str, int]:
    """How deep every parameter lies, by dotted path: 0 in the stem, one more with every block, most in the head.

    Blocks are the modules that a model assigned one by one, and those in its sequences, in order. A norm or a table
    among them goes with what is before it (ResNet's bn1 with conv1, ViT's class token with the patches, its last norm
    with the last block), or else with what is first. These are timm's groups; some of timm's are finer or coarser.

    `model` may be abstract.
    """
    kinds, found, depth = parameter_kinds(model), {}, -1
    for _, names, block in parts(model):
        depth += block or any(kinds[name] in ("kernel", "bias") for name in names)
        found |= dict.fromkeys(names, depth)
    return {name: max(found[name], 0) for name in kinds}


def blocks(model: nnx.Module) -> list[Path]:
    """The paths of a model's blocks of layers, in order: none in AlexNet, say, or VGG."""
    return [path for path, _, block in parts(model) if block]


def parts(model: nnx.Module) -> Iterator[tuple[Path, list[str], bool]]:
    """The parts of a model in order: path, dotted paths of their parameters, and whether it is a block of layers.

    Blocks are not opened, but for what holds most of the parameters (ViT's encoder, a backbone). Sequences are, where
    they are a part of the model itself or hold blocks.
    """
    parameters = _parameters(model)

    def inside(path: Path) -> list[Path]:
        return [p for p in parameters if p[: len(path)] == path]

    def is_block(path: Path) -> bool:
        return any(len(p) > len(path) + 1 for p in inside(path))

    def inner(owner: nnx.Module, path: Path) -> Iterator[tuple[Path, list[str], bool]]:
        for child_path, child in _children(owner, path):
            own, block = inside(child_path), is_block(child_path)
            if isinstance(child, _SEQUENCES) and type(child) in _SEQUENCES:
                opened = not isinstance(owner, _SEQUENCES) or any(is_block(p) for p, _ in _children(child, child_path))
            else:
                opened = block and not isinstance(owner, _SEQUENCES) and len(own) > len(parameters) / 2
            if opened:
                yield from inner(child, child_path)
            elif own:
                yield child_path, list(map(_dotted, own)), block

    return inner(model, ())


def _children(module: nnx.Module, path: Path) -> Iterator[tuple[Path, nnx.Module | nnx.Param]]:
    """Modules and parameters that a module owns, in order."""
    if isinstance(module, nnx.Sequential):  # keeps its children in a list of its own
        parts = [(("layers", i), child) for i, child in enumerate(module.layers)]
    elif isinstance(module, nnx.List):
        parts = [((i,), child) for i, child in enumerate(module)]
    else:
        names = module.order if isinstance(module, NamedSequential) else list(attributes(module))
        parts = [((name,), getattr(module, name)) for name in names]
    return (((*path, *name), child) for name, child in parts if isinstance(child, (nnx.Module, nnx.Param)))


def _parameters(model: nnx.Module) -> list[Path]:
    return [path for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))]


def _dotted(path: Path) -> str:
    return ".".join(map(str, path))
