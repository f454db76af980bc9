"""Stage `precision`: a short training in bfloat16 beside one in float32, by the trainer's step on the same batches."""

from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from tests.gpu.child import Conditions

WINDOW = 10  # steps over whose losses is averaged


def names(dry_run: bool) -> list[str]:
    return ["lenet5"] if dry_run else ["resnet18", "swin_t"]


def run(name: str, conditions: Conditions) -> Iterator[dict]:
    from train.config.options import Config
    from train.setup.prepare import prepare

    epochs, batch = (1, 64) if conditions.dry_run else (9, 64)
    losses = {}
    for precision in ("float32", "bfloat16"):
        config = Config(model=name, precision=precision, epochs=epochs, batch_size=batch, devices=1)
        setup, state = prepare(config, Path("nowhere"))
        reports = []
        for number in range(epochs * setup.batches.per_epoch):
            rows = setup.batches(number)
            state, report = setup.steps.train[0](state, setup.steps.put_batch(rows), setup.steps.put_control())
            reports.append(report["loss"])
        losses[precision] = np.convolve(jax.device_get(reports), np.ones(WINDOW) / WINDOW, "valid")
    wide, narrow = losses.values()
    apart = float(np.abs(narrow - wide).max() / wide[0])
    yield {
        "steps": epochs * setup.batches.per_epoch,
        "first loss": float(wide[0]),
        "last loss in float32": float(wide[-1]),
        "last loss in bfloat16": float(narrow[-1]),
        "largest distance": apart,  # of the averages, as a part of the first loss
        "within": apart <= 0.1,
    }
