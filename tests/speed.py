"""Training speed against torch in the same run: `python -m tests.speed --models swin_t --size 32 --batch 64`.

Both sides take whole steps (forward, loss, backward, AdamW) on the same uint8 images, normalised on the device; rounds
of ours and of torch's alternate. On a GPU torch runs compiled, in bfloat16 under autocast; on the CPU eagerly in
float32, as its users run it; in both memory layouts. Prints a table for docs/benchmarks.md.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import tyro

import jaxzoo
from convert.twins import build_twin
from jaxzoo.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from train import step
from train.tasks.classification import Classification

Round = Callable[[int], None]  # takes that many steps and waits for the last


@dataclasses.dataclass(frozen=True)
class Options:
    """Compare whole training steps of ours and of torch's."""

    models: tuple[str, ...] = ("swin_t",)
    size: int = 32
    """Side of the images in pixels."""
    batch: int = 64
    classes: int = 10
    rounds: int = 5
    """Measured rounds of each side, after one that is not."""
    steps: int = 3
    """Steps in a round."""


def arguments(name: str, options: Options) -> dict:
    sized = {"image_size": options.size} if name.startswith("vit") else {}
    return {"num_classes": options.classes} | sized


def ours(name: str, options: Options, images: np.ndarray, labels: np.ndarray, dtype) -> tuple[Round, Callable]:
    task = Classification([str(c) for c in range(options.classes)], Preprocess(options.size), dtype=dtype)
    batch = {"image": images, "label": labels, "mask": np.ones(len(labels), bool)}
    steps, state = step.build(
        jaxzoo.create_model(name, **arguments(name, options)),
        task,
        optax.adamw(5e-4, weight_decay=0.05),
        lambda _: 5e-4,
        batch,
        per_epoch=1000,
        seed=0,
        dtype=dtype,
        devices=jax.local_devices()[:1],
    )
    placed = steps.put_batch(batch)

    def run(count: int) -> None:
        nonlocal state
        for _ in range(count):
            state, report = steps.train(state, placed)
        jax.block_until_ready((state, report))

    def dispatch() -> float:
        """Milliseconds that Python needs to hand over a step."""
        nonlocal state
        run(1)
        begin = time.perf_counter()
        state, report = steps.train(state, placed)
        elapsed = time.perf_counter() - begin
        jax.block_until_ready((state, report))
        return 1000 * elapsed

    return run, dispatch


def torchs(name: str, options: Options, images: np.ndarray, labels: np.ndarray, layout: torch.memory_format) -> Round:
    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    twin = build_twin(jaxzoo.card(name), **arguments(name, options)).train().to(device, memory_format=layout)
    optimizer = torch.optim.AdamW(twin.parameters(), lr=5e-4, weight_decay=0.05, fused=True)
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    x, y = torch.from_numpy(images).to(device), torch.from_numpy(labels).long().to(device)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        pixels = x.permute(0, 3, 1, 2).to(torch.float32) / 255
        with torch.autocast(device.type, torch.bfloat16, enabled=gpu):
            logits = twin(((pixels - mean) / std).contiguous(memory_format=layout))
        return torch.nn.functional.cross_entropy(logits.float(), y)

    compiled = torch.compile(loss_of) if gpu else loss_of

    def run(count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad(set_to_none=True)
            compiled(x, y).backward()
            optimizer.step()
        if gpu:
            torch.cuda.synchronize()

    return run


def seconds(run: Round, steps: int) -> float:
    begin = time.perf_counter()
    run(steps)
    return (time.perf_counter() - begin) / steps


def compare(name: str, options: Options) -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (options.batch, options.size, options.size, 3), np.uint8)
    labels = generator.integers(0, options.classes, options.batch, np.int32)
    gpu = torch.cuda.is_available()
    dtype = jnp.bfloat16 if gpu else jnp.float32
    own, dispatch = ours(name, options, images, labels, dtype)
    sides = {"jaxzoo": own} | {
        layout_name: torchs(name, options, images, labels, layout)
        for layout_name, layout in (("torch", torch.contiguous_format), ("torch nhwc", torch.channels_last))
    }
    first = {side: seconds(run, 1) for side, run in sides.items()}
    times = {side: [] for side in sides}
    for _ in range(options.rounds + 1):
        for side, run in sides.items():
            times[side].append(seconds(run, options.steps))
    medians = {side: statistics.median(t[1:]) for side, t in times.items()}
    rates = {side: options.batch / m for side, m in medians.items()}
    peer = max(rates["torch"], rates["torch nhwc"])
    overhead = min(dispatch() for _ in range(5))
    print(
        f"| {name} | {options.batch} × {options.size}² | {jnp.dtype(dtype).name} | {rates['jaxzoo']:.0f} | "
        f"{rates['torch']:.0f} | {rates['torch nhwc']:.0f} | {rates['jaxzoo'] / peer:.2f} | {first['jaxzoo']:.0f} s | "
        f"{overhead:.1f} ms |",
        flush=True,
    )


def main() -> None:
    options = tyro.cli(Options)
    device = jax.local_devices()[0].device_kind
    packages = ", ".join(f"{p} {version(p)}" for p in ("jax", "flax", "torch", "torchvision"))
    print(f"{time.strftime('%Y-%m-%d')}, {device}, {torch.get_num_threads()} torch threads, {packages}\n")
    print("| model | batch | dtype | jaxzoo images/s | torch | torch nhwc | ratio | first step | Python per step |")
    print("|---" * 9 + "|")
    for name in options.models:
        compare(name, options)


if __name__ == "__main__":
    main()
