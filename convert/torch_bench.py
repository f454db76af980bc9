"""PyTorch's side of a benchmark: a step of inference or training of a model's twin."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from convert.files import require_torch
from convert.twins import build_twin
from jaxzoo.errors import Remedy, UsageError
from jaxzoo.registry import ModelCard

LAYOUTS = {"contiguous_format": "NCHW", "channels_last": "NHWC"}


def prepare(gpu: bool, threads: int) -> None:
    """Settings that hold for the process. Raises UsageError if torch is missing, or has no GPU."""
    require_torch("a comparison with torch")
    import torch

    if gpu and not torch.cuda.is_available():
        raise UsageError("JAX runs on a GPU and this torch cannot", Remedy("device", "cpu", "compares them on the CPU"))
    torch.set_num_threads(threads)


def twin_step(
    card: ModelCard,
    arguments: Mapping[str, Any],
    inputs: Any,
    labels: Any,
    *,
    layout: str,
    optimizer: Mapping[str, float] | None,
    bfloat16: bool,
    gpu: bool,
    compile: bool,
) -> Callable[[int], None]:
    """A function that takes so many steps of the twin and waits for the last.

    Args:
      card: names the twin.
      arguments: of its builder.
      inputs: arrays, channels last, such as normalised images (N, H, W, C); a tuple is several arguments.
      labels: (N,), or (N, H, W) of pixels, of which the cross-entropy of every output is the loss; or what the twin's
        `losses(inputs, None, labels)` takes, if it has them.
      layout: of the inputs in memory, one of `LAYOUTS`.
      optimizer: SGD's `lr` and `momentum` in training, else None.
      bfloat16: whether it computes in bfloat16; trained parameters stay in float32.
      gpu: where.
      compile: torch.compile instead of eager torch.
    """
    import torch

    device = torch.device("cuda" if gpu else "cpu")
    memory = getattr(torch, layout)
    twin = build_twin(card, **arguments).train(optimizer is not None).to(device, memory_format=memory)

    def as_torch(array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array).to(device)
        tensor = tensor.to(torch.bfloat16) if bfloat16 and not optimizer and tensor.is_floating_point() else tensor
        return tensor.movedim(-1, 1).contiguous(memory_format=memory) if tensor.ndim == 4 else tensor

    x = jax.tree.map(as_torch, inputs if isinstance(inputs, tuple) else (inputs,))
    y = jax.tree.map(lambda array: torch.from_numpy(array).to(device), labels)
    if optimizer is not None:
        sgd = torch.optim.SGD(twin.parameters(), **optimizer, fused=True)
    elif bfloat16:
        twin = twin.to(torch.bfloat16)

    def loss_of(x: tuple, y: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            if hasattr(twin, "losses"):
                return sum(twin.losses(*x, None, y).values())
            outputs = twin(*x)
        outputs = outputs.values() if isinstance(outputs, dict) else outputs
        heads = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
        return sum(torch.nn.functional.cross_entropy(head.float(), y.long()) for head in heads)

    infer = torch.compile(twin) if compile else twin
    train = torch.compile(loss_of) if compile else loss_of

    def run(steps: int) -> None:
        for _ in range(steps):
            if optimizer is not None:
                sgd.zero_grad(set_to_none=True)
                train(x, y).backward()
                sgd.step()
            else:
                with torch.inference_mode():
                    infer(*x)
        if gpu:
            torch.cuda.synchronize()

    return run


def peak_on_gpu(run: Callable[[int], None]) -> int:
    """Bytes that a step allocates for itself."""
    import torch

    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run(1)
    return torch.cuda.max_memory_allocated() - before
