"""`python -m tests.train.tiny OPTIONS` is `python -m train OPTIONS` with a model named tiny, which compiles fast.

DIE_AT=7 in the environment kills the process with SIGKILL when it has seen the result of its seventh step, SIGNAL_AT=7
sends it SIGNAL (15 unless given).
"""

import os
import signal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # as train.__main__ has it, before JAX is imported

import jax
from flax import nnx

from jaxzoo import nn, register_model
from train import __main__ as command_line
from train import journal


class Tiny(nnx.Module):
    """Every kind of variable that a step must carry: parameters, running statistics, a counter, a random stream."""

    def __init__(self, num_classes: int = 1000, dropout: float = 0.1, *, rngs: nnx.Rngs):
        self.conv = nn.Conv(3, 8, 4, 4, bias=False, rngs=rngs)
        self.bn = nn.BatchNorm(8, rngs=rngs)
        self.dropout = nn.Dropout(dropout, rngs=rngs)
        self.fc = nn.Linear(8 * 64, num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = jax.nn.relu(self.bn(self.conv(x)))  # (N, 8, 8, 8)
        return self.fc(self.dropout(x.reshape(len(x), -1)))


def tiny(*, rngs: nnx.Rngs, **arguments) -> Tiny:
    return Tiny(rngs=rngs, **arguments)


def at(step: str | None, act) -> None:
    """Calls `act` when the loop has counted that many steps."""
    if step:
        tick, seen = journal.Clock.tick, []

        def counted(clock, images, waited):
            tick(clock, images, waited)
            seen.append(images)
            if len(seen) == int(step):
                act()

        journal.Clock.tick = counted


if __name__ == "__main__":
    register_model(paper="none", input_size=32)(tiny)
    at(os.environ.get("DIE_AT"), lambda: os.kill(os.getpid(), signal.SIGKILL))
    at(os.environ.get("SIGNAL_AT"), lambda: os.kill(os.getpid(), int(os.environ.get("SIGNAL", signal.SIGTERM))))
    command_line.main()
