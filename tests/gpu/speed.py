"""Stage `speed`: images/s of a training step under jax.jit and under torch.compile.

Both compute in bfloat16 with parameters in float32 (torch by autocast), take the same batch from the device's memory,
and update by SGD with momentum. The first steps do not count; a sample is as many steps as take 50 ms.
"""

import gc
import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np

import jaxzoo
from jaxzoo.commands.contenders import Contender, Setting, ours, torchs
from tests.gpu.child import Conditions

MODELS = ["resnet50", "swin_t", "vit_b_16", "efficientnet_b0", "convnext_tiny", "regnet_y_1_6gf", "mobilenet_v3_large"]
LAYOUTS = ("contiguous_format", "channels_last")  # NCHW, NHWC


def names(dry_run: bool) -> list[str]:
    return ["tiny"] if dry_run else MODELS


def setting(name: str, conditions: Conditions) -> Setting:
    """The training step of a model at its own image size."""
    if conditions.dry_run:
        from tests.gpu import tiny  # noqa: F401  registers itself
    card = jaxzoo.card(name)
    generator = np.random.default_rng(0)
    images = generator.standard_normal((conditions.batch, card.input_size, card.input_size, 3), np.float32)
    labels = generator.integers(0, 10, conditions.batch, np.int32)
    return Setting(card, {}, images, labels, training=True, bfloat16=True, gpu=conditions.gpu, compile=conditions.gpu)


def our_side(name: str, conditions: Conditions, options: Mapping[str, object] | None = None) -> Contender:
    """Ours, compiled with some of XLA's options."""
    hurry = {"xla_backend_optimization_level": 0} if conditions.dry_run else {}
    return ours(setting(name, conditions), hurry | (options or {}))


def torchs_side(name: str, conditions: Conditions, layout: str) -> Contender:
    """Torch's side with the fastest of cuDNN's algorithms, and TF32 where autocast leaves float32."""
    import torch

    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    return torchs(setting(name, conditions), layout)


def run(name: str, conditions: Conditions) -> Iterator[dict]:
    yield measured(lambda: our_side(name, conditions), conditions)
    for layout in LAYOUTS:
        yield measured(lambda layout=layout: torchs_side(name, conditions, layout), conditions)


def measured(build: Callable[[], Contender], conditions: Conditions, seconds: float = 3.0) -> dict:
    """The median speed of a side, with its spread."""
    gc.collect()  # the side before
    side = build()
    side.warm_up(conditions.gpu)
    end = time.perf_counter() + (0.05 if conditions.dry_run else seconds)
    while time.perf_counter() < end or len(side.samples) < 5:
        side.sample()
    p10, p50, p90 = np.percentile(side.samples, (10, 50, 90))
    return {
        "side": side.name,
        "batch": conditions.batch,
        "images/s": conditions.batch / p50,
        "p10 ms": 1000 * p10,
        "p50 ms": 1000 * p50,
        "p90 ms": 1000 * p90,
        "samples": len(side.samples),
        "compile s": side.compile_seconds,
        "peak MiB": None if side.peak is None else side.peak / 2**20,
    }
