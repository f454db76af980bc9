"""The training step: one pure function from (state, batch) to (state, report), compiled once.

The state is a plain dictionary of arrays rather than NNX states, because JAX flattens it anew at every step, and only
plain containers are flattened in C++: 1 ms instead of 18 for a model with 600 variables.

    {"params": {path: array}, "stats": {path: array}, "optimizer": ..., "step": int32, "sums": {name: array}}

Paths are dotted ("features.0.0.kernel"); stats are all variables that are neither parameters nor random streams.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxzoo.errors import UsageError
from train.tasks import Batch, Sums, Task

State = dict[str, Any]
Arrays = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Steps:
    """What `build` compiles. `train` uses up the state it is given."""

    train: Callable[[State, Batch], tuple[State, dict[str, jax.Array]]]
    evaluate: Callable[[State, Sums, Batch], Sums]
    no_sums: Sums
    put_batch: Callable[[Batch], Batch]
    put_state: Callable[[State], State]


def build(
    model: nnx.Module,
    task: Task,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    example: Batch,
    *,
    per_epoch: int,
    seed: int,
    dtype: jnp.dtype = jnp.float32,
    devices: list[jax.Device] | None = None,
) -> tuple[Steps, State]:
    """Training and evaluation of `model`, compiled when first called, and the state that its variables make.

    Args:
      schedule: the optimizer's learning rate by step, for the report.
      example: a batch of evaluation, for its shapes.
      per_epoch: the steps of an epoch, at whose start the training sums begin anew.
      seed: decides, with the step, augmentation and dropout.
      dtype: what the model computes in; parameters are cast to it inside the step.
      devices: share each batch equally and hold a copy of the state each.

    Raises:
      UsageError: the batch cannot be shared equally.
    """
    mesh = Mesh(np.array(devices or jax.local_devices()), ("batch",))
    size = len(example["mask"])
    if size % mesh.size:
        raise UsageError(
            f"--batch-size {size} cannot be shared equally among {mesh.size} devices; take a multiple of {mesh.size}"
        )
    copied, shared = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("batch"))

    model.eval()
    evaluating = nnx.graphdef(model)
    model.train()
    training, params, streams, stats = nnx.split(model, nnx.Param, nnx.RngState, ...)
    names = {_dotted(path): path for state in (params, stats) for path, _ in nnx.to_flat_state(state)}
    params, stats = flat(params), flat(stats)

    def assemble(graph: nnx.GraphDef, params: Arrays, stats: Arrays) -> nnx.Module:
        params = {name: value.astype(dtype) for name, value in params.items()}
        variables = nnx.from_flat_state([(names[name], value) for name, value in (params | stats).items()])
        return nnx.merge(graph, variables, streams, copy=True)

    def train(state: State, batch: Batch) -> tuple[State, dict[str, jax.Array]]:
        augmenting, dropping = jax.random.split(jax.random.fold_in(jax.random.key(seed), state["step"]))

        def loss_of(params: Arrays):
            model = assemble(training, params, state["stats"])
            nnx.reseed(model, dropout=dropping)
            loss, sums = task.training_loss(model, batch, augmenting)
            new = flat(nnx.state(model, nnx.Not(nnx.Any(nnx.Param, nnx.RngState))))
            return loss, (sums, {name: new[name].astype(old.dtype) for name, old in state["stats"].items()})

        (loss, (sums, stats)), gradients = jax.value_and_grad(loss_of, has_aux=True)(state["params"])
        updates, optimizer_state = optimizer.update(gradients, state["optimizer"], state["params"])
        first = state["step"] % per_epoch == 0
        new_state = {
            "params": optax.apply_updates(state["params"], updates),
            "stats": stats,
            "optimizer": optimizer_state,
            "step": state["step"] + 1,
            "sums": {name: jnp.where(first, 0, state["sums"][name]) + value for name, value in sums.items()},
        }
        report = {"loss": loss, "gradient_norm": optax.tree.norm(gradients), "lr": schedule(state["step"])}
        return new_state, report

    def evaluate(state: State, sums: Sums, batch: Batch) -> Sums:
        model = assemble(evaluating, state["params"], state["stats"])
        return jax.tree.map(jnp.add, sums, task.evaluation_sums(model, batch))

    def zeros(sums_of: Callable[[], Sums]) -> Sums:
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(sums_of))

    key = jax.random.key(seed)
    state = {
        "params": params,
        "stats": stats,
        "optimizer": optimizer.init(params),
        "step": jnp.zeros((), jnp.int32),
        "sums": zeros(lambda: task.training_loss(assemble(training, params, stats), example, key)[1]),
    }
    steps = Steps(
        train=jax.jit(train, donate_argnums=0, in_shardings=(copied, shared), out_shardings=(copied, copied)),
        evaluate=jax.jit(evaluate, in_shardings=(copied, copied, shared), out_shardings=copied),
        no_sums=jax.device_put(
            zeros(lambda: task.evaluation_sums(assemble(evaluating, params, stats), example)), copied
        ),
        put_batch=lambda batch: jax.device_put(batch, shared),
        put_state=lambda state: jax.device_put(state, copied, may_alias=False),
    )
    return steps, steps.put_state(state)


def flat(state: nnx.State) -> Arrays:
    """The arrays of an NNX state by dotted path."""
    return {_dotted(path): leaf.get_value() for path, leaf in nnx.to_flat_state(state)}


def _dotted(path: tuple) -> str:
    return ".".join(map(str, path))
