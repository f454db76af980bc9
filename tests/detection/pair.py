"""Detectors of a few layers beside torchvision's, on the parity ladder's terms: for options that it does not try."""

import contextlib
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from convert.rules import load_state_dict
from convert.shapes import cast
from convert.twins import arrays, randomise
from jaxzoo.nn.dropout import stream_tags
from tests.compare import quickly
from tests.parity import ladder
from tests.parity.detectors import THRESHOLD, DetectorPair


class SmallPair(DetectorPair):
    """A detector and its twin with the same numbers in float64.

    Args:
      build: makes our model.
      twin: a `convert.twins.detection.OnCanvas`.
      size: height and width of the canvas.
    """

    least = 0

    def __init__(self, build: Callable[[], nnx.Module], twin: torch.nn.Module, size: tuple[int, int]):
        self.model, self.twin, self.size = nnx.eval_shape(build), twin.double(), size
        nnx.reseed(self.model, **dict.fromkeys(stream_tags(self.model), 0))
        self.reduced, self.batch, self.dense = True, 2, True
        self.model.score_thresh = self.twin.score_thresh = THRESHOLD
        randomise(self.twin, seed=0)
        load_state_dict(cast(self.model, jnp.float64), arrays(self.twin))

    @contextlib.contextmanager
    def changed(self, **options) -> Iterator[None]:
        """Both sides with other attributes."""
        before = {name: getattr(self.model, name) for name in options}
        for values in (options, before):
            for side in (self.model, self.twin):
                for name, value in values.items():
                    setattr(side, name, value)
            if values is options:
                yield

    def same_detections(self) -> list[int]:
        """Asserts that all layers' outputs and the detections are, and returns how many each image has."""
        inputs = self.inputs()
        reference = self.twin_forward(inputs)
        ours = self.forward(inputs)
        error, name = ladder.worst(*self.compared(ours, reference, np.float64))
        assert error <= 1e-9, f"{name} differs by {error}"
        return ours[".valid.0"].sum(1).tolist()

    def same_losses(self, targets: dict[str, np.ndarray]) -> dict[str, float]:
        """Asserts that the losses for some targets are, and returns them."""
        inputs = self.inputs()
        self.model.train()
        graphdef, state = nnx.split(self.model)
        run = jax.jit(
            lambda state, inputs, targets: nnx.merge(graphdef, state, copy=True).losses(*inputs, targets),
            compiler_options=quickly(0),
        )
        losses = run(state, ladder.as_jax(inputs), {name: jnp.asarray(x) for name, x in targets.items()})
        self.rewind()
        self.twin.train()
        expected = self.twin_losses(inputs, targets)[1]
        error, name = ladder.worst({name: np.asarray(x) for name, x in losses.items()}, expected)
        assert error <= 1e-9, f"{name} differs by {error}"
        return {name: float(loss) for name, loss in losses.items()}


def nothing(rows: int) -> dict[str, np.ndarray]:
    """Targets of two images without objects, padded with NaN, which must reach nothing."""
    boxes, labels = np.full((2, rows, 4), np.nan), np.zeros((2, rows), np.int32)
    return {"boxes": boxes, "labels": labels, "valid": np.zeros((2, rows), bool)}


def check_citizenship(model: nnx.Module, size: tuple[int, int]) -> None:
    """Asserts that a detector can be an argument of programs, finds in float32 what it computes in bfloat16, and takes
    no images."""
    model.eval()
    graphdef, state = nnx.split(cast(model, jnp.bfloat16))
    assert graphdef == nnx.graphdef(nnx.merge(graphdef, state)) and hash(graphdef) == hash(nnx.graphdef(model))

    def found(count: int) -> dict[str, jax.ShapeDtypeStruct]:
        images = jax.ShapeDtypeStruct((count, *size, 3), jnp.bfloat16)
        return jax.eval_shape(lambda state, images: nnx.merge(graphdef, state)(images), state, images)

    assert {x.shape[0] for x in found(0).values()} == {0}
    assert {name: x.dtype for name, x in found(1).items()} == {
        "boxes": jnp.float32,
        "labels": jnp.int32,
        "scores": jnp.float32,
        "valid": jnp.bool,
    }
