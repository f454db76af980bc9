"""`python -m jaxzoo bench`: speed and memory of models and of their PyTorch twins, measured in turns in one run."""

import contextlib
import csv as files
import gc
import os
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx
from rich import box
from rich.console import Console
from rich.table import Column, Table

from jaxzoo.commands import tasks
from jaxzoo.commands.contenders import Contender, Setting, ours, torchs
from jaxzoo.errors import UsageError
from jaxzoo.inspect import multiply_adds
from jaxzoo.model_size import digits
from jaxzoo.registry import ModelCard, argument_names, card, create_model

COLUMNS = ("images/s", "ms: p10 p50 p90", "compile s", "peak MiB", "GFLOP/s", "× torch")

Measurement = dict[str, Any]  # by column


def bench(
    model: str,
    against: Literal["torch", "nothing"] = "torch",
    batch: tuple[int, ...] = (8,),
    size: int | None = None,
    precision: Literal["float32", "bfloat16"] = "float32",
    device: Literal["cpu", "gpu"] | None = None,
    threads: int = 2,
    compile: bool | None = None,
    seconds: float = 30.0,
    csv: Path | None = None,
) -> None:
    """Measure speed and memory of inference and training, in turns with PyTorch on the same images.

    Training is forward, backward and SGD with momentum, with statistics of the batch. The table has the faster of
    torch's memory layouts, the CSV both. FLOPs are those that the architecture asks for: two per multiply-add, and
    three times as many in training. Memory is what a step takes beyond weights, optimizer and images.

    Args:
        model: Model or models, such as resnet50,swin_t; `jaxzoo list` shows all.
        against: Whether to measure the same model in PyTorch too.
        batch: Batch size, or several, such as 1 8 64, which are measured one after the other.
        size: Height and width of the images, in pixels. Default: the model's own.
        precision: Dtype of the computation: float32 without TF32, or bfloat16 with parameters in float32.
        device: Device for both sides. Default: JAX's default.
        threads: CPU threads of each side.
        compile: Whether to use torch.compile instead of eager PyTorch. Default: True on a GPU, else False.
        seconds: Seconds of measurement for each model and batch size, compilation and warm-up not included.
        csv: CSV file to write all figures to.
    """
    cards = [card(name) for name in model.split(",")]
    if min(*batch, threads, seconds, 1 if size is None else size) <= 0:
        raise UsageError("--batch, --size, --threads and --seconds must be above 0")
    if csv and not csv.parent.is_dir():
        raise UsageError(f"--csv {csv}: there is no folder {csv.parent}")
    gpu = _prepare(device, threads, against)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    console.print(_conditions(gpu, threads, precision, against), soft_wrap=True)
    rows: list[Measurement] = []
    options = (against, seconds / 2, precision == "bfloat16", gpu, gpu if compile is None else compile)
    with _uncached(), jax.default_device(jax.devices("gpu" if gpu else "cpu")[0]):
        for c in cards:
            for n in batch:
                rows += _bench_one(console, c, n, size, *options)
    if csv:
        with open(csv, "w", newline="") as file:
            writer = files.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)


def _bench_one(
    console: Console,
    card: ModelCard,
    batch: int,
    size: int | None,
    against: str,
    seconds: float,
    bfloat16: bool,
    gpu: bool,
    compile: bool,
) -> list[Measurement]:
    """Measures and shows inference and training of a model with a batch."""
    arguments = {"image_size": size} if size and "image_size" in argument_names(card.name) else {}
    abstract = nnx.eval_shape(lambda: create_model(card.name, **arguments))
    flops = 2 * multiply_adds(abstract, card.example_inputs(size=size))[""]
    side = size or card.input_size
    console.print(f"\n{card.name}, {batch} × {side}², {digits(flops / 1e9)} GFLOPs per image")
    generator = np.random.default_rng(0)
    example = card.example_inputs(batch, size)
    inputs = jax.tree.map(lambda leaf: generator.standard_normal(leaf.shape, leaf.dtype), example)
    labels = tasks.of_model(card.name).example_labels(example, 10, generator)
    numbers = (Column(name, justify="right") for name in COLUMNS)
    table, rows = Table("step", "side", *numbers, box=box.SIMPLE_HEAD), []
    for training in (False, True):
        setting = Setting(card, arguments, inputs, labels, training, bfloat16, gpu, compile)
        try:
            contenders = _measure(setting, seconds, against)
        except UsageError as error:
            if not training:
                raise
            console.print(f"training is left out: {error}")  # a single image may be too little for it
            continue
        new = [_measurement(c, setting, side, flops * (3 if training else 1)) for c in contenders]
        _show(table, new[0], min(new[1:], key=lambda row: row["p50 ms"], default=None))
        rows += new
        del contenders
        gc.collect()
    console.print(table)
    return rows


def _prepare(device: str | None, threads: int, against: str) -> bool:
    """Settings that hold for the process, of which some count only before JAX's first use; whether on a GPU."""
    os.environ["PJRT_NPROC"] = str(threads)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch needs memory too
    try:
        gpu = jax.devices(device)[0].platform != "cpu"
    except RuntimeError:
        raise UsageError(f"--device {device}: JAX finds none on this machine") from None
    if gpu:
        jax.config.update("jax_default_matmul_precision", "highest")  # float32, not TF32; bfloat16 stays itself
    if against == "torch":
        from convert import torch_bench

        torch_bench.prepare(gpu, threads)
    return gpu


@contextlib.contextmanager
def _uncached() -> Iterator[None]:
    """JAX compiles anew, also programs in its cache, so that the time can be measured."""
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)


def _conditions(gpu: bool, threads: int, precision: str, against: str) -> str:
    packages = ["jax", "flax", *(("torch", "torchvision") if against == "torch" else ())]
    kind = jax.devices()[0].device_kind if gpu else f"CPU, {threads} threads"
    return ", ".join((kind, precision, *(f"{p} {version(p)}" for p in packages), time.strftime("%Y-%m-%d")))


def _measure(setting: Setting, seconds: float, against: str) -> list[Contender]:
    """Builds the contenders, warms them up, and lets them take turns for that many seconds, five turns at least."""
    contenders = [ours(setting)]
    if against == "torch":
        contenders += [torchs(setting, layout) for layout in ("contiguous_format", "channels_last")]
    for contender in contenders:
        contender.warm_up(setting.gpu)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(contenders[0].samples) < 5:
        for contender in contenders:
            contender.sample()
    return contenders


def _measurement(contender: Contender, setting: Setting, size: int, flops: int) -> Measurement:
    p10, p50, p90 = np.percentile(contender.samples, (10, 50, 90))
    n = len(jax.tree.leaves(setting.inputs)[0])
    return {
        "model": setting.card.name,
        "mode": "training" if setting.training else "inference",
        "batch": n,
        "size": size,
        "precision": "bfloat16" if setting.bfloat16 else "float32",
        "side": contender.name,
        "images/s": n / p50,
        "p10 ms": 1000 * p10,
        "p50 ms": 1000 * p50,
        "p90 ms": 1000 * p90,
        "compile s": contender.compile_seconds,
        "peak MiB": None if contender.peak is None else contender.peak / 2**20,
        "GFLOP/s": flops * n / p50 / 1e9,
        "GFLOPs per image": flops / 1e9,
    }


def _show(table: Table, own: Measurement, other: Measurement | None) -> None:
    """Adds the lines of both sides, and how many times as fast as the other ours is."""
    for row in filter(None, (own, other)):
        table.add_row(
            row["mode"] if row is own else "",
            row["side"],
            _short(row["images/s"]),
            " ".join(_short(row[f"{p} ms"]) for p in ("p10", "p50", "p90")),
            *("" if row[name] is None else _short(row[name]) for name in ("compile s", "peak MiB", "GFLOP/s")),
            f"{other['p50 ms'] / own['p50 ms']:.2f}" if other and row is own else "",
        )


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else digits(number)
