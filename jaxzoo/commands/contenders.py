"""The contenders of a benchmark: a step of inference or training, of a model and of its PyTorch twin."""

import contextlib
import ctypes
import dataclasses
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxzoo.errors import UsageError
from jaxzoo.registry import ModelCard, create_model

RATE, MOMENTUM = 1e-3, 0.9  # of SGD
ROUND = 0.05  # seconds of a measurement on a GPU, where a step alone is too short to wait for


@dataclasses.dataclass(frozen=True)
class Setting:
    """The step that all contenders compute."""

    card: ModelCard
    arguments: dict[str, Any]
    inputs: Any  # arrays as `ModelCard.example_inputs` describes them, such as normalised images (N, H, W, 3)
    labels: Any  # what the task of the model has for examples
    training: bool
    bfloat16: bool  # trained parameters stay in float32
    gpu: bool
    compile: bool  # torch's side


@dataclasses.dataclass
class Contender:
    """One implementation of the step, and its measurements."""

    name: str
    run: Callable[[int], None]  # takes that many steps and waits for the last
    compile_seconds: float | None = None
    peak: int | None = None  # bytes that a step allocates for itself
    samples: list[float] = dataclasses.field(default_factory=list)  # seconds per step
    steps: int = 1  # of a sample
    peak_of: Callable[[Callable[[int], None]], int | None] = lambda run: _peak_on_cpu(run)  # measures it
    program: Callable[[], str] | None = None  # of XLA, as text

    def warm_up(self, gpu: bool) -> None:
        """Takes steps that do not count, and finds out how many make a sample and how much memory one takes."""
        self.run(1)
        begin = time.perf_counter()
        self.run(1)
        if gpu:
            self.steps = max(1, round(ROUND / (time.perf_counter() - begin)))
        if self.peak is None:
            self.peak = self.peak_of(self.run)

    def sample(self) -> None:
        """Measures once."""
        begin = time.perf_counter()
        self.run(self.steps)
        self.samples.append((time.perf_counter() - begin) / self.steps)


def ours(setting: Setting, options: Mapping[str, Any] | None = None) -> Contender:
    """The step under `jax.jit`, compiled with XLA's `options` if there are any."""
    import optax

    if setting.training and setting.labels is None:
        raise UsageError(f"{setting.card.name} learns without labels")
    dtype = jnp.bfloat16 if setting.bfloat16 else jnp.float32
    model = create_model(setting.card.name, **setting.arguments)
    (model.train if setting.training else model.eval)()
    graph, params, streams, stats = nnx.split(model, nnx.Param, nnx.RngState, ...)
    optimizer = optax.sgd(RATE, MOMENTUM)

    def cast(tree: Any) -> Any:
        return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)

    def outputs_of(model: nnx.Module, inputs: Any) -> Any:
        return model(*cast(inputs)) if isinstance(inputs, tuple) else model(cast(inputs))

    def loss_of(params: nnx.State, stats: nnx.State, inputs: Any, labels: jax.Array) -> tuple:
        model = nnx.merge(graph, cast(params), streams, stats, copy=True)
        if hasattr(model, "losses"):
            losses = model.losses(cast(inputs), None, labels).values()
        else:
            entropy = optax.softmax_cross_entropy_with_integer_labels
            heads = jax.tree.leaves(outputs_of(model, inputs))
            losses = [entropy(y.astype(jnp.float32), labels).mean() for y in heads]
        return sum(losses), nnx.state(model, nnx.Not(nnx.Any(nnx.Param, nnx.RngState)))

    def train(state: tuple, inputs: Any, labels: jax.Array) -> tuple[tuple, jax.Array]:
        params, stats, memory = jax.tree.unflatten(structure, state)
        (loss, stats), gradients = jax.value_and_grad(loss_of, has_aux=True)(params, stats, inputs, labels)
        updates, memory = optimizer.update(gradients, memory, params)
        return tuple(jax.tree.leaves((optax.apply_updates(params, updates), stats, memory))), loss

    def infer(state: tuple, inputs: Any, labels: jax.Array) -> tuple[tuple, jax.Array]:
        params, stats, _ = jax.tree.unflatten(structure, state)
        return state, outputs_of(nnx.merge(graph, params, streams, stats, copy=True), inputs)

    state = (params, stats, optimizer.init(params)) if setting.training else (cast(params), stats, None)
    leaves, structure = jax.tree.flatten(state)  # JAX flattens the state anew at every step, and only tuples quickly
    state = tuple(jnp.array(leaf) for leaf in leaves)  # a copy, for the step takes it over
    inputs, labels = jax.tree.map(jnp.asarray, (setting.inputs, setting.labels))
    begin = time.perf_counter()
    step = jax.jit(train if setting.training else infer, donate_argnums=0).lower(state, inputs, labels).compile(options)
    seconds = time.perf_counter() - begin

    def run(steps: int) -> None:
        nonlocal state
        for _ in range(steps):
            state, result = step(state, inputs, labels)
        jax.block_until_ready((state, result))

    peak = step.memory_analysis().temp_size_in_bytes if setting.gpu else None
    return Contender("jaxzoo", run, seconds, peak, program=step.as_text)


def torchs(setting: Setting, layout: str) -> Contender:
    """The step of the twin in a memory layout, `contiguous_format` (NCHW) or `channels_last`."""
    from convert import torch_bench

    run = torch_bench.twin_step(
        setting.card,
        setting.arguments,
        setting.inputs,
        setting.labels,
        layout=layout,
        optimizer={"lr": RATE, "momentum": MOMENTUM} if setting.training else None,
        bfloat16=setting.bfloat16,
        gpu=setting.gpu,
        compile=setting.compile,
    )
    contender = Contender(f"torch {torch_bench.LAYOUTS[layout]}", run)
    if setting.gpu:
        contender.peak_of = torch_bench.peak_on_gpu
    if setting.compile:
        contender.name += ", compiled"
        begin = time.perf_counter()
        run(1)
        contender.compile_seconds = time.perf_counter() - begin
    return contender


def _peak_on_cpu(run: Callable[[int], None]) -> int | None:
    """Bytes that a step allocates for itself, as far as Linux tells."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # memory that malloc keeps would hide as much of the step's
        before = _resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        run(1)
        return max(_resident("VmHWM") - before, 0)
    return None


def _resident(key: str) -> int:
    return 1024 * int(re.search(rf"{key}:\s+(\d+)", Path("/proc/self/status").read_text()).group(1))
