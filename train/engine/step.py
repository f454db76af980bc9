"""The training step: one pure function from (state, batch) to (state, report), compiled once.

The state is a plain dictionary of arrays rather than NNX states, because JAX flattens it anew at every step, and only
plain containers are flattened in C++: 1 ms instead of 18 for a model with 600 variables.

    {"params": {path: array}, "stats": {path: array}, "ema": {path: array}, "optimizer": ..., "step": int32,
     "skipped": int32, "sums": {name: array}}

Paths are dotted ("features.0.0.kernel"). Params are what learns; stats are all other variables but random streams:
running statistics, tables, and parameters that are frozen. Ema, empty without --ema, averages both over the steps.
"""

import contextlib
import dataclasses
import functools
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxzoo import nn
from jaxzoo.errors import UsageError
from train.distributed.processes import put, put_rows
from train.engine.remat import recomputing
from train.optim.optimizers import at_step, updated
from train.tasks import Batch, Sums, Task

State = dict[str, Any]
Arrays = dict[str, jax.Array]
Report = dict[str, jax.Array]

SHARDED_FROM = 2**14  # elements: smaller arrays are not worth dividing


@dataclasses.dataclass(frozen=True)
class Steps:
    """What `build` compiles. `train` has a function for each stage of the run, and uses up the state it is given."""

    train: Sequence[Callable[[State, Batch], tuple[State, Report]]]
    gradients: Callable[[State, Batch], Arrays]
    evaluate: Callable[[State, Sums, Batch], Sums]
    no_sums: Sums
    put_batch: Callable[[Batch], Batch]
    put_state: Callable[[State], State]


@dataclasses.dataclass(frozen=True)
class Average:
    """An exponential moving average of the weights after every update, and a copy of them in the first `start` steps.

    As torch.optim.swa_utils.AveragedModel with its buffers, whose first update is a copy. torchvision's reference
    scripts set its count back to 0 throughout the warm-up, so there `start` is the step after the first update that
    follows the warm-up.
    """

    decay: float
    start: int = 1


def build(
    model: nnx.Module,
    tasks: Sequence[Task],
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    example: Batch,
    *,
    per_epoch: int,
    seed: int,
    dtype: jnp.dtype = jnp.float32,
    devices: Sequence[jax.Device] | None = None,
    learns: Callable[[str], bool] = lambda path: True,
    dropout: Sequence[float | None] = (None,),
    average: Average | None = None,
    batch_norm: Literal["sync", "local"] = "sync",
    shard_params: bool = False,
    remat: bool = False,
    on_nan: Literal["stop", "skip"] = "stop",
) -> tuple[Steps, State]:
    """Training and evaluation of `model`, compiled when first called, and the state that its variables make.

    A step whose loss or gradients are not finite changes nothing: with `on_nan` "stop" neither do those after it, with
    "skip" they go on. `state["skipped"]` counts them. Nor does one with an index below 0: then a process has no images.

    Args:
      tasks: one for each stage of the run, which may differ in image size; the last also evaluates.
      schedule: the optimizer's learning rate by step, for the report.
      example: a batch of evaluation, for its shapes.
      per_epoch: the steps of an epoch, at whose start the training sums begin anew.
      seed: decides, with the step, augmentation, dropout and all other random streams of the model.
      dtype: what the model computes in; parameters are cast to it inside the step.
      devices: share each batch equally and hold a copy of the state each; of all processes together.
      learns: whether the variable of that dotted path may change; modules without such a one stay in eval mode.
      dropout: the rate of all dropout layers by stage; None leaves them alone.
      average: of the weights, if one is kept.
      batch_norm: "local" takes the statistics of each device's part of the batch, and averages the running ones.
      shard_params: divide large parameters and their optimizer state among the devices.
      remat: compute the blocks' activations again for the gradients.

    Raises:
      UsageError: the batch cannot be shared equally.
    """
    mesh = Mesh(np.array(devices or jax.devices()), ("batch",))
    size = len(example["mask"]) * jax.process_count()
    if size % mesh.size:
        raise UsageError(
            f"--batch-size {size} cannot be shared equally among {mesh.size} devices; take a multiple of {mesh.size}"
        )
    copied, shared = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("batch"))

    evaluating = nnx.graphdef(in_mode(model, lambda path: False))
    training = []
    for rate in dropout:
        set_dropout(model, rate)
        training.append(nnx.graphdef(in_mode(model, learns)))
    _, params, streams, stats = nnx.split(model, nnx.Param, nnx.RngState, ...)
    tags = sorted({part.key.tag for _, part in nnx.iter_graph(model) if isinstance(part, nnx.RngStream)})
    names = {_dotted(path): path for state in (params, stats) for path, _ in nnx.to_flat_state(state)}
    castable = frozenset(_dotted(path) for path, _ in nnx.to_flat_state(params))
    params, stats = flat(params), flat(stats)
    frozen = {name: value for name, value in params.items() if not learns(name)}
    fixed = frozenset(name for name in (*frozen, *stats) if not learns(name))
    params, stats = {name: params[name] for name in params if name not in frozen}, stats | frozen

    def assemble(graph: nnx.GraphDef, params: Arrays, stats: Arrays) -> nnx.Module:
        both = params | stats
        cast = {name: value.astype(dtype) if name in castable else value for name, value in both.items()}
        variables = nnx.from_flat_state([(names[name], value) for name, value in cast.items()])
        return nnx.merge(graph, variables, streams, copy=True)

    def loss_of(stage: int, params: Arrays, stats: Arrays, batch: Batch, keys: jax.Array) -> tuple[jax.Array, Any]:
        augmenting, dropping = keys
        model = assemble(training[stage], params, stats)
        nnx.reseed(model, policy="match_shape", **{tag: stream_key(dropping, tag) for tag in tags})
        with recomputing(model) if remat else contextlib.nullcontext():
            loss, sums = tasks[stage].training_loss(model, batch, augmenting)
        new = flat(nnx.state(model, nnx.Not(nnx.RngState)))
        return loss, (
            sums,
            {name: old if name in fixed else new[name].astype(old.dtype) for name, old in stats.items()},
        )

    def differentiated(stage: int, params: Arrays, stats: Arrays, batch: Batch, keys: jax.Array) -> Any:
        return jax.value_and_grad(functools.partial(loss_of, stage), has_aux=True)(params, stats, batch, keys)

    def by_device(stage: int, params: Arrays, stats: Arrays, batch: Batch, keys: jax.Array) -> Any:
        """The same for each device's own part of the batch, averaged."""

        def own(params: Arrays, stats: Arrays, batch: Batch, keys: jax.Array) -> Any:
            keys = jax.vmap(jax.random.fold_in, (0, None))(keys, jax.lax.axis_index("batch"))
            (loss, (sums, stats)), gradients = differentiated(stage, params, stats, batch, keys)
            loss, gradients = jax.lax.pmean((loss, gradients), "batch")
            counts = {name: value for name, value in stats.items() if not jnp.issubdtype(value.dtype, jnp.floating)}
            averaged = jax.lax.pmean({name: stats[name] for name in stats if name not in counts}, "batch")
            return (loss, (jax.lax.psum(sums, "batch"), averaged | jax.lax.pmax(counts, "batch"))), gradients

        whole, part = PartitionSpec(), PartitionSpec("batch")
        divided = jax.shard_map(own, mesh=mesh, in_specs=(whole, whole, part, whole), out_specs=whole, check_vma=False)
        return divided(params, stats, batch, keys)

    derive = by_device if batch_norm == "local" else differentiated

    def train(stage: int, state: State, batch: Batch) -> tuple[State, Report]:
        step, keys = state["step"], augmenting_and_dropping(seed, state["step"])
        (loss, (sums, stats)), gradients = derive(stage, state["params"], state["stats"], batch, keys)
        norm = optax.tree.norm(gradients)
        updates, optimizer_state = optimizer.update(gradients, at_step(state["optimizer"], step), state["params"])
        params = optax.apply_updates(state["params"], updates)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        present = (batch["indices"] >= 0).all()
        applied = present & (finite & (state["skipped"] == 0) if on_nan == "stop" else finite)
        first = step % per_epoch == 0
        new = {
            "params": params,
            "stats": stats,
            "optimizer": optimizer_state,
            "ema": averaged(state["ema"], params | stats, step, updated(optimizer_state)),
            "sums": {name: jnp.where(first, 0, state["sums"][name]) + value for name, value in sums.items()},
        }
        new = jax.tree.map(lambda new, old: jnp.where(applied, new, old), new, {name: state[name] for name in new})
        new["step"] = step + (present if on_nan == "skip" else applied)
        new["skipped"] = state["skipped"] + ~applied
        report = {"loss": loss, "gradient_norm": norm, "lr": schedule(step)}
        return new, report | {"stop": batch["stop"].any(), "missing": ~present}

    def averaged(ema: Arrays, values: Arrays, step: jax.Array, updated: jax.Array | bool) -> Arrays:
        if not average:
            return {}
        keep = jnp.where(updated, jnp.where(step < average.start, 0.0, average.decay), 1.0)
        return {
            name: (keep * old + (1 - keep) * values[name]).astype(old.dtype)
            if jnp.issubdtype(old.dtype, jnp.floating)
            else values[name]
            for name, old in ema.items()
        }

    def gradients(state: State, batch: Batch) -> Arrays:
        keys = augmenting_and_dropping(seed, state["step"])
        return derive(-1, state["params"], state["stats"], batch, keys)[1]

    def evaluate(weights: State, sums: Sums, batch: Batch) -> Sums:
        model = assemble(evaluating, weights["params"], weights["stats"])
        return tasks[-1].merged(sums, tasks[-1].evaluation_sums(model, batch))

    def zeros(sums_of: Callable[[], Sums]) -> Sums:
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(sums_of))

    def placed(leaf: jax.Array) -> NamedSharding:
        """Large arrays are divided along the longest axis that their number allows."""
        axes = [axis for axis, length in enumerate(leaf.shape) if length % mesh.size == 0]
        if not shard_params or leaf.size < SHARDED_FROM or not axes:
            return copied
        longest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, "batch"))

    key = jax.random.key(seed)
    state = {
        "params": params,
        "stats": stats,
        "ema": {name: value for name, value in (params | stats).items() if name not in fixed} if average else {},
        "optimizer": optimizer.init(params),
        "step": jnp.zeros((), jnp.int32),
        "skipped": jnp.zeros((), jnp.int32),
        "sums": zeros(lambda: tasks[-1].training_loss(assemble(training[-1], params, stats), example, key)[1]),
    }
    places = jax.tree.map(placed, state)
    in_training = {"in_shardings": (places, shared), "donate_argnums": 0, "out_shardings": (places, copied)}
    weights = {name: places[name] for name in ("params", "stats")}
    steps = Steps(
        train=[jax.jit(functools.partial(train, stage), **in_training) for stage in range(len(tasks))],
        gradients=jax.jit(gradients, in_shardings=(places, shared), out_shardings=places["params"]),
        evaluate=jax.jit(evaluate, in_shardings=(weights, copied, shared), out_shardings=copied),
        no_sums=put(zeros(lambda: tasks[-1].evaluation_sums(assemble(evaluating, params, stats), example)), copied),
        put_batch=lambda batch: put_rows(batch, shared),
        put_state=lambda state: put(state, places),
    )
    return steps, steps.put_state(state)


def weights_of(state: State, *, ema: bool = False) -> State:
    """What `Steps.evaluate` takes: a state's weights, or their average."""
    weights = {name: state[name] for name in ("params", "stats")}
    if not ema:
        return weights
    return {
        kind: values | {name: state["ema"][name] for name in values if name in state["ema"]}
        for kind, values in weights.items()
    }


def augmenting_and_dropping(seed: int, step: jax.Array | int) -> jax.Array:
    """The keys of a step: for augmentation on the device, and for the model's random streams, such as dropout's."""
    return jax.random.split(jax.random.fold_in(jax.random.key(seed), step))


def stream_key(key: jax.Array, tag: str) -> jax.Array:
    """What the random streams of that name begin a step with; each name has numbers of its own, whatever others are."""
    return key if tag == "dropout" else jax.random.fold_in(key, zlib.crc32(tag.encode()))


def in_mode(model: nnx.Module, learns: Callable[[str], bool]) -> nnx.Module:
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
