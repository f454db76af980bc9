"""One comparison for all detectors: detections, losses, gradients and statistics against torchvision's in float64.

Both sides are shallow, on a small canvas with two images of different sizes, and take the lowest indices where they
draw. The last layers are made large, so that scores differ and boxes move.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

import jaxzoo
from convert import load_state_dict, state_dict
from convert.shapes import abstract, cast
from convert.twins import arrays, build_twin, randomise
from jaxzoo.nn.dropout import stream_tags
from tests.compare import close, quickly
from tests.parity.reduced import reduce_depth

CANVAS = (128, 160)
SIZES = np.array([CANVAS, (112, 97)], np.int32)
Arrays = Mapping[str, np.ndarray]


def images(count: int = 2) -> np.ndarray:
    """Random ones on a canvas, zero where an image of `SIZES` is not."""
    canvas = np.zeros((count, *CANVAS, 3))
    for image, (height, width) in zip(canvas, SIZES, strict=True):
        image[:height, :width] = np.random.default_rng(height).standard_normal((height, width, 3))
    return canvas


def pad(each: Sequence[Sequence[tuple]], classes: int) -> dict[str, np.ndarray]:
    """Boxes of images as targets of six rows, of which those that pad would be seen if they counted."""
    most = 6
    boxes = np.tile([3.0, 4.0, 60.0, 70.0], (len(each), most, 1))
    valid = np.zeros((len(each), most), bool)
    for i, rows in enumerate(each):
        boxes[i, : len(rows)], valid[i, : len(rows)] = np.reshape(rows, (-1, 4)), True
    labels = np.random.default_rng(0).integers(1, classes, valid.shape).astype(np.int32)
    return {"boxes": boxes, "labels": labels, "valid": valid}


BOXES = {
    "a duplicate": [
        [(10, 12, 58, 71), (80, 20, 141, 90), (10, 12, 58, 71), (60, 70, 75, 99)],
        [(5, 5, 90, 100), (40, 30, 60, 52)],
    ],
    "a box that overlaps nothing, and an image without boxes": [[(300, 310, 330, 350), (70, 25, 150, 110)], []],
}


class Pair:
    """A detector and its twin with the same numbers.

    Args:
      name: of the model.
      large: what the weights of some layers are multiplied by, by their path in torch's names.
      **arguments: of both builders.
    """

    def __init__(self, name: str, large: Mapping[str, float], **arguments):
        torch.manual_seed(0)
        self.twin, self.model = build_twin(jaxzoo.card(name), **arguments), abstract(name, **arguments)
        nnx.reseed(self.model, **dict.fromkeys(stream_tags(self.model), 0))
        reduce_depth(self.model, self.twin)
        randomise(self.twin.double(), seed=0)
        with torch.no_grad():
            for path, factor in large.items():
                self.twin.get_parameter(f"{path}.weight").mul_(factor)
        load_state_dict(cast(self.model, jnp.float64), arrays(self.twin))
        self.start = copied(self.twin)

    def detections(self) -> tuple[Arrays, Arrays]:
        """Ours, by one program, and torch's."""
        self.model.eval()
        graphdef, state = nnx.split(self.model)
        run = jax.jit(lambda state, *given: nnx.merge(graphdef, state)(*given), compiler_options=quickly(1))
        ours = run(state, images(), SIZES)
        with torch.no_grad():
            theirs = self.twin.eval()(as_torch(images()), torch.tensor(SIZES))
        return {k: np.asarray(v) for k, v in ours.items()}, {k: v.numpy() for k, v in theirs.items()}

    def training(self, targets: Sequence[Arrays]) -> list[tuple[tuple, tuple]]:
        """For each of the targets, ours and torch's (losses, gradients, state after it), both from the start."""
        self.model.train()
        self.model.set_attributes(deterministic=True)
        graphdef, params, rest = nnx.split(self.model, nnx.Param, ...)

        @jax.jit
        def run(params, rest, targets):
            def total(params):
                model = nnx.merge(graphdef, params, rest, copy=True)
                losses = model.losses(jnp.asarray(images()), jnp.asarray(SIZES), targets)
                return sum(losses.values()), (losses, nnx.state(model, nnx.Not(nnx.Param)))

            return jax.grad(total, has_aux=True)(params)

        run = run.lower(params, rest, targets[0]).compile(quickly(1))
        pairs = []
        for each in targets:
            gradients, (losses, after) = run(params, rest, each)
            gradients = state_dict(nnx.merge(graphdef, gradients, rest, copy=True))
            ours = losses, gradients, state_dict(nnx.merge(graphdef, params, after, copy=True))
            pairs.append((ours, self._twin_training(each)))
        return pairs

    def _twin_training(self, targets: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        self.twin.load_state_dict({name: torch.tensor(array) for name, array in self.start.items()})
        self.twin.zero_grad()
        given = {name: torch.tensor(array) for name, array in targets.items()}
        losses = self.twin.train().losses(as_torch(images()), torch.tensor(SIZES), given)
        sum(losses.values()).backward()
        gradients = {name: None if p.grad is None else p.grad.clone() for name, p in self.twin.named_parameters()}
        return {name: loss.detach().numpy() for name, loss in losses.items()}, gradients, copied(self.twin)


def copied(twin: torch.nn.Module) -> Arrays:
    return {name: array.copy() for name, array in arrays(twin).items()}


def as_torch(x: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.moveaxis(x, -1, 1))


def same_detections(ours: Arrays, theirs: Arrays, least: int) -> None:
    """The same boxes in the same order, so many at least in both images.

    Regions that lie on few pixels can have equal features and scores, but for rounding, which then decides the order.
    """
    assert ours.keys() == theirs.keys()
    np.testing.assert_array_equal(ours["valid"], theirs["valid"])
    assert (ours["valid"].sum(1) >= least).all(), ours["valid"].sum(1)
    scores = theirs["scores"][theirs["valid"]]
    assert len(np.unique(scores.round(12))) > 0.9 * len(scores)
    ours, theirs = settle_ties(ours), settle_ties(theirs)
    np.testing.assert_array_equal(ours["labels"], theirs["labels"])
    for name in ours.keys() - {"valid", "labels"}:
        close(ours[name], theirs[name], name, 1e-9)


def settle_ties(found: Arrays) -> Arrays:
    """Detections of equal scores by their boxes."""
    keys = [*np.moveaxis(found["boxes"].round(9), -1, 0), found["labels"], -found["scores"].round(12)]
    order = np.lexsort(keys, axis=1)
    return {name: np.stack([rows[o] for rows, o in zip(x, order, strict=True)]) for name, x in found.items()}


def same_training(ours: tuple, theirs: tuple) -> None:
    """Losses of the same names and values, gradients of all parameters, statistics."""
    (losses, gradients, after), (their_losses, their_gradients, their_after) = ours, theirs
    assert losses.keys() == their_losses.keys()
    for name, loss in their_losses.items():
        close(losses[name], loss, name, 1e-9)
    largest = max(float(g.abs().max()) for g in their_gradients.values() if g is not None)
    for name, gradient in their_gradients.items():
        if gradient is None:
            assert not np.any(gradients[name]), name
        else:
            error = np.abs(gradients[name] - gradient.numpy()).max()
            assert error <= 1e-8 * max(float(gradient.abs().max()), 1e-6 * largest), f"gradient of {name}: {error}"
    assert after.keys() == their_after.keys()
    for name, array in their_after.items():
        close(after[name], array, name, 1e-9)
