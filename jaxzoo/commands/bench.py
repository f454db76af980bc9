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

from jaxzoo.commands.sides import Setting, Side, ours, torchs
from jaxzoo.errors import UsageError
from jaxzoo.figures import digits
from jaxzoo.inspect import multiply_adds
from jaxzoo.registry import argument_names, card, create_model

COLUMNS = ("images/s", "ms: p10 p50 p90", "compile s", "peak MiB", "GFLOP/s", "× torch")

Row = dict[str, Any]


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
    rows: list[Row] = []
    with _uncached(), jax.default_device(jax.devices("gpu" if gpu else "cpu")[0]):
        for c in cards:
            arguments = {"image_size": size} if size and "image_size" in argument_names(c.name) else {}
            side = size or c.input_size
            abstract = nnx.eval_shape(lambda c=c, arguments=arguments: create_model(c.name, **arguments))
            flops = 2 * multiply_adds(abstract, c.example_inputs(size=side).shape)[""]
            for n in batch:
                console.print(f"\n{c.name}, {n} × {side}², {digits(flops / 1e9)} GFLOPs per image")
                generator = np.random.default_rng(0)
                images = generator.standard_normal(c.example_inputs(n, side).shape, np.float32)
                labels = generator.integers(0, 10, (n, side, side) if c.task == "segmentation" else n, np.int32)
                table = Table(
                    *("step", "side"), *(Column(name, justify="right") for name in COLUMNS), box=box.SIMPLE_HEAD
                )
                for training in (False, True):
                    compiled = gpu if compile is None else compile
                    setting = Setting(c, arguments, images, labels, training, precision == "bfloat16", gpu, compiled)
                    try:
                        sides = _measure(setting, seconds / 2, against)
                    except UsageError as error:
                        if not training:
                            raise
                        console.print(f"training is left out: {error}")  # a single image may be too little for it
                        continue
                    new = [_row(s, setting, flops * (3 if training else 1)) for s in sides]
                    _show(table, new[0], min(new[1:], key=lambda row: row["p50 ms"], default=None))
                    rows += new
                    del sides
                    gc.collect()
                console.print(table)
    if csv:
        with open(csv, "w", newline="") as file:
            writer = files.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)


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
        from convert.files import require_torch

        require_torch("--against torch")
        import torch

        if gpu and not torch.cuda.is_available():
            raise UsageError("JAX runs on a GPU and this torch cannot; --device cpu compares them on the CPU")
        torch.set_num_threads(threads)
    return gpu


@contextlib.contextmanager
def _uncached() -> Iterator[None]:
    """JAX compiles anew even what it has kept, so that the time it takes is seen."""
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


def _measure(setting: Setting, seconds: float, against: str) -> list[Side]:
    """Builds the sides, warms them up, and lets them take turns for that many seconds, five turns at least."""
    sides = [ours(setting)]
    if against == "torch":
        sides += [torchs(setting, layout) for layout in ("contiguous_format", "channels_last")]
    for side in sides:
        side.warm_up(setting.gpu)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(sides[0].samples) < 5:
        for side in sides:
            side.sample()
    return sides


def _row(side: Side, setting: Setting, flops: int) -> Row:
    p10, p50, p90 = np.percentile(side.samples, (10, 50, 90))
    n, height = setting.images.shape[:2]
    return {
        "model": setting.card.name,
        "mode": "training" if setting.training else "inference",
        "batch": n,
        "size": height,
        "precision": "bfloat16" if setting.bfloat16 else "float32",
        "side": side.name,
        "images/s": n / p50,
        "p10 ms": 1000 * p10,
        "p50 ms": 1000 * p50,
        "p90 ms": 1000 * p90,
        "compile s": side.compile_seconds,
        "peak MiB": None if side.peak is None else side.peak / 2**20,
        "GFLOP/s": flops * n / p50 / 1e9,
        "GFLOPs per image": flops / 1e9,
    }


def _show(table: Table, own: Row, other: Row | None) -> None:
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
