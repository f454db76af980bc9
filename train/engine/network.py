"""A model as dictionaries of arrays, and put together again inside a traced function.

Paths are dotted ("features.0.0.kernel"). Params are what learns; stats are all other variables but random streams:
running statistics, tables, and parameters that are frozen.
"""

import contextlib
import dataclasses
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from jaxzoo import nn
from jaxzoo.nn.dropout import stream_tags
from train.engine.remat import recomputing
from train.tasks import Arrays

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Network:
    """All of a model but its arrays: its graph in each stage of training and in evaluation, its random streams, and of
    its variables the `paths` by name, which are `castable` parameters, and which are `fixed`."""

    training: Sequence[nnx.GraphDef]
    evaluating: nnx.GraphDef
    streams: nnx.State
    tags: Sequence[str]
    paths: Mapping[str, tuple]
    castable: frozenset[str]
    fixed: frozenset[str]
    dtype: jnp.dtype
    remat: bool

    def apply(
        self, stage: int, stats: Arrays, key: jax.Array, params: Arrays, function: Callable[[nnx.Module], T]
    ) -> tuple[T, Arrays]:
        """What `function` gives for the model in training, and its stats after that. Every call begins with the same
        random numbers: those of `key`."""
        model = self._assembled(self.training[stage], params, stats)
        nnx.reseed(model, policy="match_shape", **{tag: stream_key(key, tag) for tag in self.tags})
        with recomputing(model) if self.remat else contextlib.nullcontext():
            result = function(model)
        new = flat(nnx.state(model, nnx.Not(nnx.RngState)))
        return result, {name: old if name in self.fixed else new[name].astype(old.dtype) for name, old in stats.items()}

    def evaluated(self, params: Arrays, stats: Arrays) -> nnx.Module:
        """The model in eval mode."""
        return self._assembled(self.evaluating, params, stats)

    def _assembled(self, graph: nnx.GraphDef, params: Arrays, stats: Arrays) -> nnx.Module:
        both = params | stats
        cast = {name: value.astype(self.dtype) if name in self.castable else value for name, value in both.items()}
        variables = nnx.from_flat_state([(self.paths[name], value) for name, value in cast.items()])
        return nnx.merge(graph, variables, self.streams, copy=True)


def take_apart(
    model: nnx.Module,
    learns: Callable[[str], bool],
    *,
    dropout: Sequence[float | None] = (None,),
    dtype: jnp.dtype = jnp.float32,
    remat: bool = False,
) -> tuple[Network, Arrays, Arrays]:
    """The network, its params and its stats; the arguments are those of `train.engine.step.build`."""
    evaluating = nnx.graphdef(set_train_mode_where(model, lambda path: False))
    training = []
    for rate in dropout:
        set_dropout(model, rate)
        training.append(nnx.graphdef(set_train_mode_where(model, learns)))
    _, params, streams, stats = nnx.split(model, nnx.Param, nnx.RngState, ...)
    tags = stream_tags(model)
    paths = {_dotted(path): path for state in (params, stats) for path, _ in nnx.to_flat_state(state)}
    params, stats = flat(params), flat(stats)
    frozen = {name: value for name, value in params.items() if not learns(name)}
    fixed = frozenset(name for name in (*frozen, *stats) if not learns(name))
    network = Network(training, evaluating, streams, tags, paths, frozenset(params), fixed, dtype, remat)
    return network, {name: params[name] for name in params if name not in frozen}, stats | frozen


def stream_key(key: jax.Array, tag: str) -> jax.Array:
    """What the random streams of that name begin a step with; each name has numbers of its own, whatever others are."""
    return key if tag == "dropout" else jax.random.fold_in(key, zlib.crc32(tag.encode()))


def set_train_mode_where(model: nnx.Module, learns: Callable[[str], bool]) -> nnx.Module:
    """`model`, switched to training where something learns, and to evaluation elsewhere.

    What has no variables in a sequence, such as dropout, goes with what comes after it.
    """
    model.train()
    found = [path for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Not(nnx.RngState)))]
    owners = {path[:length]: False for path in found for length in range(len(path))}  # whether something learns there
    for path in found:
        if learns(_dotted(path)):
            owners |= {path[:length]: True for length in range(len(path))}
    modules = dict(nnx.iter_modules(model))
    for path, module in modules.items():
        while path and path not in owners and isinstance(path[-1], int) and (*path[:-1], path[-1] + 1) in modules:
            path = (*path[:-1], path[-1] + 1)
        if not owners.get(path, True):
            module.eval()
    return model


def set_dropout(model: nnx.Module, rate: float | None) -> None:
    """Gives all dropout layers this rate; stochastic depth keeps its own."""
    for _, module in nnx.iter_modules(model):
        if type(module) in (nn.Dropout, nn.Dropout2d) and rate is not None:
            module.p = rate


def flat(state: nnx.State) -> Arrays:
    """The arrays of an NNX state by dotted path."""
    return {_dotted(path): leaf.get_value() for path, leaf in nnx.to_flat_state(state)}


def _dotted(path: tuple) -> str:
    return ".".join(map(str, path))
