"""Where a training step's time goes: `python -m tests.train.step_profile --model swin_t`.

Prints the share of the compiled step that each kind of operation takes, forward, backward and in the optimizer, as
JAX's profiler sees them on all threads together; and what the loop's own Python takes.
"""

import argparse
import collections
import contextlib
import gzip
import json
import re
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxzoo.malloc import keep_freed_memory
from train.config.options import Config
from train.engine.step import State
from train.loop import DeferredReports, Stop, training_batches
from train.setup.prepare import Setup, prepare

KINDS = {
    "convolution": r"conv_general_dilated|convolution",
    "product of matrices": r"dot_general|dot\b|einsum",
    "pooling": r"reduce_window|select_and_scatter|maximum",
    "sums and means": r"reduce_sum|reduce_max|reduce\b|cumsum|integer_pow|rsqrt|square",
    "copies and shifts": r"transpose|reshape|copy|pad|slice|concatenate|rev|gather|scatter|broadcast",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="swin_t")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    keep_freed_memory()
    config = Config(model=options.model, batch_size=options.batch_size, image_size=options.image_size)
    setup, state = prepare(config, Path("nowhere"))
    python = overhead(setup, state, 5 * options.steps)
    state, whole = step_time(setup, state, options.steps)
    print(f"{options.model}, {options.batch_size} x {options.image_size}²: {1000 * whole:.1f} ms a step; ", end="")
    print(f"{1000 * python:.2f} ms of Python around it")
    for name, part in shares(setup, state).items():
        print(f"{part:6.1%}  {name}")


def overhead(setup: Setup, state: State, count: int) -> float:
    """The seconds in which the loop takes a batch, hands a step to the device and looks at the numbers of the one
    before: of the main thread's processor time, with a step that has as many arrays and computes next to nothing."""
    scalars = jax.tree.map(lambda leaf: jnp.zeros((), leaf.dtype), state)

    def add_one(state: State, batch: dict, control: jax.Array) -> tuple[State, dict]:
        state = jax.tree.map(lambda leaf: leaf + jnp.ones((), leaf.dtype), state)
        return state, {"loss": 0.0, "gradient_norm": 0.0, "lr": 0.0, "stop": control[0, 0], "missing": control[0, 1]}

    step, results, times = jax.jit(add_one, donate_argnums=0), DeferredReports(setup.config, setup), []
    with contextlib.closing(training_batches(setup, 0, 10**6, Stop(), results)) as batches:
        for number in range(count + 2):
            begin = time.thread_time()
            batch, control = next(batches)
            scalars, report = step(scalars, batch, control)
            results.push(report, batch["indices"], number)
            times.append(time.thread_time() - begin)
            jax.block_until_ready(scalars)
    return float(np.median(times[2:]))


def step_time(setup: Setup, state: State, count: int) -> tuple[State, float]:
    """The state afterwards, and the median seconds of a step on one batch."""
    fed, times = (setup.steps.put_batch(setup.batches(0)), setup.steps.put_control()), []
    for _ in range(count + 2):
        begin = time.perf_counter()
        state, _ = setup.steps.train[0](state, *fed)
        jax.block_until_ready(state)
        times.append(time.perf_counter() - begin)
    return state, float(np.median(times[2:]))


def shares(setup: Setup, state: State, count: int = 3) -> dict[str, float]:
    """The part of the step's time on all threads by kind of operation, the largest first."""
    fed = setup.steps.put_batch(setup.batches(0)), setup.steps.put_control()
    compiled = setup.steps.train[0].lower(state, *fed).compile()
    origin = dict(re.findall(r"%?([\w.-]+) = .*?op_name=\"([^\"]+)\"", compiled.as_text()))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(count):
                state, _ = compiled(state, *fed)
            jax.block_until_ready(state)
        file = next(Path(folder).rglob("*.trace.json.gz"))
        events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    spent: collections.Counter[str] = collections.Counter()
    for event in events:
        if event.get("ph") == "X" and event["name"] in origin:
            spent[kind_of(origin[event["name"]])] += event["dur"]
    total = sum(spent.values())
    return {name: spent[name] / total for name, _ in spent.most_common()}


def kind_of(path: str) -> str:
    """`convolution, backward` of an operation's name in the program."""
    where = "backward" if "transpose(" in path else "forward" if "jvp(" in path else "optimizer and the rest"
    last = path.split("/")[-1]
    found = next((kind for kind, pattern in KINDS.items() if re.search(pattern, last)), "element by element")
    return where if where.startswith("optimizer") else f"{found}, {where}"


if __name__ == "__main__":
    main()
