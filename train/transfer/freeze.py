"""Training a part of a network: which variables learn."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx

from convert.heads import heads_of
from convert.shapes import shapes_at
from jaxzoo import card, nn
from jaxzoo.errors import UsageError, nearest
from train.config.options import Config


def learning(config: Config, model: nnx.Module, arguments: Mapping[str, Any]) -> Callable[[str], bool]:
    """Whether the variable of a dotted path learns: --freeze, --train-only, --freeze-batch-norm, --cache-features.

    Raises:
      UsageError: a path is none of the model's, or nothing would learn.
    """
    if not (config.freeze or config.train_only or config.cache_features or config.freeze_batch_norm):
        return lambda name: True
    heads = head_paths(config.model, arguments)
    frozen, only = (_paths(option, heads) for option in (config.freeze, config.train_only))
    if config.cache_features:
        only = heads[-1:]  # auxiliary ones, which come before it (aux1.fc2, AuxLogits.fc), look at other features
    elif "backbone" in frozen:
        frozen, only = [path for path in frozen if path != "backbone"], heads
    norms = set()
    if config.freeze_batch_norm:
        modules = nnx.iter_modules(model)
        norms = {".".join(map(str, path)) for path, module in modules if isinstance(module, nnx.BatchNorm)}
        if not norms:
            raise UsageError(f"{config.model} has no batch normalisation: leave out --freeze-batch-norm")
    variables = [".".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))]
    known = sorted({name[:end] for name in variables for end, letter in enumerate(name) if letter == "."})
    for path in (*frozen, *only):
        if path not in known and path not in variables:
            own = {name.partition(".")[0] for name in variables}
            parts = ", ".join(name for name in nn.attributes(model) if name in own)
            inside = [name for name in known if "." in name][:1]
            raise UsageError(
                f"{config.model} has no part {path!r}{nearest(path, known)}; it has {parts}"
                + "".join(f", and what is in them, such as {name}" for name in inside)
            )

    def learns(name: str) -> bool:
        return (not only or _inside(name, only)) and not _inside(name, frozen) and name.rpartition(".")[0] not in norms

    if not any(map(learns, variables)):
        raise UsageError(f"nothing of {config.model} is left to learn with these parts frozen")
    return learns


def head_paths(name: str, arguments: Mapping[str, Any]) -> list[str]:
    """The modules that make up a model's head; those of auxiliary heads come first.

    Where a part of the model is another one, all that is not; else what depends on the number of classes.
    """
    begin = tuple(here for keys in card(name).parts.values() for here in keys.values())
    if begin and all(begin):
        return sorted({key.partition(".")[0] for key in shapes_at(name, arguments) if not key.startswith(begin)})
    heads = heads_of(name, {}, arguments)
    return list(dict.fromkeys(key.rpartition(".")[0] for key in (*heads.auxiliary, *heads.main)))


def start_at_zero(model: nnx.Module, heads: Sequence[str]) -> None:
    """Makes all classes equally likely at first, in fresh linear heads of pretrained networks.

    Initialisations made for training from scratch may begin far from that (EfficientNet's grows as classes are fewer: a
    loss of 6.4 for 5 classes), and the first steps would move the backbone to make up for it. ViT's head begins so by
    itself. Heads that are no linear layers may have a ReLU after them, which would never leave zero.
    """
    for path, module in nnx.iter_modules(model):
        if ".".join(map(str, path)) in heads and isinstance(module, nn.Linear):
            for _, parameter in nnx.to_flat_state(nnx.state(module, nnx.Param)):
                parameter.set_value(jnp.zeros_like(parameter.get_value()))


def _paths(option: Sequence[str], heads: list[str]) -> list[str]:
    """`("features.0,head",)` as single paths."""
    names = [name.strip() for text in option for name in text.split(",") if name.strip()]
    return [path for name in names for path in (heads if name == "head" else [name])]


def _inside(name: str, paths: Sequence[str]) -> bool:
    return any(name == path or name.startswith(path + ".") for path in paths)
