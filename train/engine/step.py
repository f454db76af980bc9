"""The training step: one pure function from (state, batch, control) to (state, report), compiled once for each shape.

The state is a plain dictionary of arrays rather than NNX states, because JAX flattens it anew at every step, and only
plain containers are flattened in C++: 1 ms instead of 18 for a model with 600 variables.

    {"params": {path: array}, "stats": {path: array}, "ema": {path: array}, "optimizer": ..., "step": int32,
     "skipped": int32, "metrics": {name: state}}

Params and stats are those of `train.engine.network`. Ema, empty without --ema, averages both over the steps.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxzoo.errors import UsageError
from jaxzoo.inspect import cam, cam_layer
from jaxzoo.inspect.maps import calls_of, fine_layer, first_kernel
from train import metrics
from train.distributed.processes import put, put_rows
from train.engine.network import Network, take_apart
from train.metrics import States
from train.optim.optimizers import at_step, updated
from train.tasks import Arrays, Batch, Parts, Task

State = dict[str, Any]
Report = dict[str, jax.Array]

MAPS = "maps"  # of an explanation; a path of a layer has other names
SHARDED_FROM = 2**14  # elements: smaller arrays are not worth dividing


@dataclasses.dataclass(frozen=True)
class Steps:
    """What `build` compiles. `train` has a function for each stage of the run, and uses up the state it is given.

    `explain(layer, weights, batch)` has class activation maps of a layer, see `Program.explain`.

    `evaluate` gives the states of the evaluation's metrics after a batch, which begin as `init_metrics`, and the rows
    that the task's collector gets. `put_control(stop=…, missing=…)` is what this process tells all others by a step:
    that it was asked to stop, that it has no images for this step.
    """

    train: Sequence[Callable[[State, Batch, jax.Array], tuple[State, Report]]]
    gradients: Callable[[State, Batch], Arrays]
    evaluate: Callable[[State, States, Batch], tuple[States, Batch]]
    init_metrics: States
    explain: Callable[[str | None, State, Batch], dict[str, jax.Array]]
    put_batch: Callable[[Batch], Batch]
    put_control: Callable[..., jax.Array]
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


class Learnt(NamedTuple):
    """What a batch gives: its loss and gradients, the loss's parts, its own metrics, and the stats after it."""

    loss: jax.Array
    gradients: Arrays
    parts: Parts
    metrics: States
    stats: Arrays


@dataclasses.dataclass(frozen=True)
class Program:
    """The functions that are compiled; see `build` for the fields."""

    network: Network
    tasks: Sequence[Task]
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    mesh: Mesh
    per_epoch: int
    seed: int
    average: Average | None
    batch_norm: Literal["sync", "local"]
    on_nan: Literal["stop", "skip"]

    def train(self, stage: int, state: State, batch: Batch, control: jax.Array) -> tuple[State, Report]:
        """A step."""
        step, (stop, missing) = state["step"], control.any(0)
        learnt = self.learn(stage, state, batch)
        norm = optax.tree.norm(learnt.gradients)
        updates, optimizer_state = self.optimizer.update(
            learnt.gradients, at_step(state["optimizer"], step), state["params"]
        )
        params = optax.apply_updates(state["params"], updates)
        finite = jnp.isfinite(learnt.loss) & jnp.isfinite(norm)
        applied = ~missing & (finite & (state["skipped"] == 0) if self.on_nan == "stop" else finite)
        new = {
            "params": params,
            "stats": learnt.stats,
            "optimizer": optimizer_state,
            "ema": self.averaged(state["ema"], params | learnt.stats, step, updated(optimizer_state)),
            "metrics": self.counted(stage, state["metrics"], learnt.metrics, step),
        }
        new = jax.tree.map(lambda new, old: jnp.where(applied, new, old), new, {name: state[name] for name in new})
        new["step"] = step + (~missing if self.on_nan == "skip" else applied)
        new["skipped"] = state["skipped"] + ~applied
        report = {"loss": learnt.loss, "gradient_norm": norm, "lr": self.schedule(step)}
        report |= {f"loss_{name}": value for name, value in learnt.parts.items()}
        return new, report | {"stop": stop, "missing": missing}

    def gradients(self, state: State, batch: Batch) -> Arrays:
        """What a step of the last stage would hand the optimizer."""
        return self.learn(-1, state, batch).gradients

    def evaluate(self, weights: State, states: States, batch: Batch) -> tuple[States, Batch]:
        """The metrics after a batch, and its rows for the collector."""
        task = self.tasks[-1]
        outputs = task.evaluation_outputs(self.network.evaluated(weights["params"], weights["stats"]), batch)
        collected = {name: outputs[name] for name in task.collected} | {"indices": batch["indices"]}
        return metrics.update(task.evaluation_metrics, states, outputs), collected

    def explain(self, layer: str | None, weights: State, batch: Batch) -> dict[str, jax.Array]:
        """Class activation maps (N, h, w) of a batch, if the task explains it, and the kernel of the first layer that
        has one, by its path."""
        both = weights["params"] | weights["stats"]
        model = self.network.evaluated(weights["params"], weights["stats"])
        if (asked := self.tasks[-1].explained(batch)) is None:
            return {}
        inputs, score = asked
        first = first_kernel(model, calls_of(model, inputs))
        found = {first: both[f"{first}.kernel"].astype(jnp.float32)} if first else {}
        layer = layer or fine_layer(model, inputs, cam_layer(model, inputs))
        return found | {MAPS: cam(model, inputs, score, layer=layer, method="layer-cam").astype(jnp.float32)}

    def learn(self, stage: int, state: State, batch: Batch) -> Learnt:
        """What the state learns from a batch; of "local" statistics, from each device's part of it, averaged."""
        learn = functools.partial(self._by_device if self.batch_norm == "local" else self._together, stage)
        return learn(state["params"], state["stats"], batch, augmenting_and_dropping(self.seed, state["step"]))

    def _together(self, stage: int, params: Arrays, stats: Arrays, batch: Batch, keys: jax.Array) -> Learnt:
        task, (augmenting, dropping) = self.tasks[stage], keys
        apply = functools.partial(self.network.apply, stage, stats, dropping)
        loss, gradients, (parts, outputs, stats) = task.loss_and_gradients(apply, params, batch, augmenting)
        states = metrics.update(task.training_metrics, metrics.init(task.training_metrics), outputs)
        return Learnt(loss, gradients, parts, states, stats)

    def _by_device(self, stage: int, params: Arrays, stats: Arrays, batch: Batch, keys: jax.Array) -> Learnt:
        merge = functools.partial(metrics.merge, self.tasks[stage].training_metrics)

        def own(params: Arrays, stats: Arrays, batch: Batch, keys: jax.Array) -> Learnt:
            keys = jax.vmap(jax.random.fold_in, (0, None))(keys, jax.lax.axis_index("batch"))
            learnt = self._together(stage, params, stats, batch, keys)
            counts = {k: value for k, value in learnt.stats.items() if not jnp.issubdtype(value.dtype, jnp.floating)}
            floats = {k: value for k, value in learnt.stats.items() if k not in counts}
            loss, gradients, parts, floats = jax.lax.pmean((*learnt[:3], floats), "batch")
            states = jax.lax.all_gather(learnt.metrics, "batch")
            first, others = (jax.tree.map(lambda leaf, part=part: leaf[part], states) for part in (0, slice(1, None)))
            states, _ = jax.lax.scan(lambda found, other: (merge(found, other), None), first, others)
            return Learnt(loss, gradients, parts, states, floats | jax.lax.pmax(counts, "batch"))

        whole, part = PartitionSpec(), PartitionSpec("batch")
        specs = (whole, whole, part, whole)
        divided = jax.shard_map(own, mesh=self.mesh, in_specs=specs, out_specs=whole, check_vma=False)
        return divided(params, stats, batch, keys)

    def counted(self, stage: int, states: States, batch: States, step: jax.Array) -> States:
        """The metrics of an epoch so far after a batch that has these."""
        of, first = self.tasks[stage].training_metrics, step % self.per_epoch == 0
        states = jax.tree.map(lambda empty, state: jnp.where(first, empty, state), metrics.init(of), states)
        return metrics.merge(of, states, batch)

    def averaged(self, ema: Arrays, values: Arrays, step: jax.Array, updated: jax.Array | bool) -> Arrays:
        """The average after a step that left these weights."""
        if not self.average:
            return {}
        keep = jnp.where(updated, jnp.where(step < self.average.start, 0.0, self.average.decay), 1.0)
        return {
            name: (keep * old + (1 - keep) * values[name]).astype(old.dtype)
            if jnp.issubdtype(old.dtype, jnp.floating)
            else values[name]
            for name, old in ema.items()
        }

    def init(self, params: Arrays, stats: Arrays) -> State:
        """The state before the first step."""
        learning = {name: value for name, value in (params | stats).items() if name not in self.network.fixed}
        return {
            "params": params,
            "stats": stats,
            "ema": learning if self.average else {},
            "optimizer": self.optimizer.init(params),
            "step": jnp.zeros((), jnp.int32),
            "skipped": jnp.zeros((), jnp.int32),
            "metrics": metrics.init(self.tasks[-1].training_metrics),
        }


def build(
    model: nnx.Module,
    tasks: Sequence[Task],
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    batch_size: int,
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
    "skip" they go on. `state["skipped"]` counts them. Nor does one for which a process has no images.
    (optax.apply_if_finite looks at updates alone: batch statistics, the average and the metrics would keep a NaN.)

    Args:
      tasks: one for each stage of the run, which may differ in image size; the last also evaluates.
      schedule: the optimizer's learning rate by step, for the report.
      batch_size: examples in a batch of training, over all processes together.
      per_epoch: the steps of an epoch, at whose start the training metrics begin anew.
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
    if batch_size % mesh.size:
        raise UsageError(
            f"--batch-size {batch_size} cannot be shared equally among {mesh.size} devices; "
            f"take a multiple of {mesh.size}"
        )
    network, params, stats = take_apart(model, learns, dropout=dropout, dtype=dtype, remat=remat)
    program = Program(network, tasks, optimizer, schedule, mesh, per_epoch, seed, average, batch_norm, on_nan)
    steps, state = compiled(program, program.init(params, stats), shard_params=shard_params)
    return steps, steps.put_state(state)


def compiled(program: Program, state: State, *, shard_params: bool) -> tuple[Steps, State]:
    """The program's functions under `jax.jit` over its devices, for states like this one."""
    mesh = program.mesh
    copied, shared = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("batch"))
    places = jax.tree.map(lambda leaf: sharding_of(leaf, mesh) if shard_params else copied, state)
    weights = {name: places[name] for name in ("params", "stats")}
    training = {"in_shardings": (places, shared, shared), "donate_argnums": 0, "out_shardings": (places, copied)}
    ours = sum(device.process_index == jax.process_index() for device in mesh.devices.flat)
    steps = Steps(
        train=[jax.jit(functools.partial(program.train, stage), **training) for stage in range(len(program.tasks))],
        gradients=jax.jit(program.gradients, in_shardings=(places, shared), out_shardings=places["params"]),
        evaluate=jax.jit(program.evaluate, in_shardings=(weights, copied, shared), out_shardings=copied),
        explain=jax.jit(program.explain, static_argnums=0, out_shardings=copied),
        init_metrics=put(metrics.init(program.tasks[-1].evaluation_metrics), copied),
        put_batch=lambda batch: put_rows(batch, shared),
        put_control=lambda *, stop=False, missing=False: put_rows(np.tile([stop, missing], (ours, 1)), shared),
        put_state=lambda state: put(state, places),
    )
    return steps, state


def sharding_of(leaf: jax.Array, mesh: Mesh) -> NamedSharding:
    """Large arrays are divided along the longest axis that the number of devices allows."""
    axes = [axis for axis, length in enumerate(leaf.shape) if length % mesh.size == 0]
    if leaf.size < SHARDED_FROM or not axes:
        return NamedSharding(mesh, PartitionSpec())
    longest = max(axes, key=lambda axis: leaf.shape[axis])
    return NamedSharding(mesh, PartitionSpec(*[None] * longest, "batch"))


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
