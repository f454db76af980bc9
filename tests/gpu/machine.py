"""Stage `machine`: which card, with which versions."""

import time
from collections.abc import Iterator
from importlib.metadata import version

import jax
import torch

from tests.gpu.child import Conditions

PACKAGES = ("jax", "flax", "optax", "torch", "torchvision")


def run(name: str, conditions: Conditions) -> Iterator[dict]:
    if not conditions.dry_run and not (conditions.gpu and torch.cuda.is_available()):
        raise RuntimeError("JAX and torch both have to find a GPU; --dry-run does without")
    card = jax.devices()[0].device_kind
    yield {"card": card, **{p: version(p) for p in PACKAGES}, "date": time.strftime("%Y-%m-%d")}
