"""A detector and torchvision's with the same numbers in float64: the same detections, losses and gradients."""

import contextlib
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

import convert
from convert.rules import torch_arrays
from convert.shapes import cast
from convert.twins import arrays, randomise
from tests.compare import close, quickly
from tests.parity.reduced import reduce_depth

FLOOR = 1e-6  # of the largest gradient: the scale of one that is zero but for rounding


def images_on_canvas(sizes: np.ndarray, canvas: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Random images (N, H, W, 3) of these sizes (N, 2), with zeros below and to the right."""
    images = np.random.default_rng(seed).standard_normal((len(sizes), *canvas, 3))
    for image, (height, width) in zip(images, sizes, strict=True):
        image[height:] = image[:, width:] = 0
    return images


def truths(sizes: np.ndarray, classes: int, most: int = 5, seed: int = 0) -> dict[str, np.ndarray]:
    """Random objects of images of these sizes, the first with a duplicate and a tiny box, the last without any.

    Rows that pad hold NaN, which must reach nothing.
    """
    rng = np.random.default_rng(seed)
    boxes = np.full((len(sizes), most, 4), np.nan)
    labels, valid = np.zeros((len(sizes), most), np.int32), np.zeros((len(sizes), most), bool)
    for i, (height, width) in enumerate(sizes[:-1]):
        count = most - i
        low, side = rng.uniform(0, 0.6, (count, 2)), rng.uniform(0.2, 0.4, (count, 2))
        boxes[i, :count] = np.concatenate([low, low + side], 1) * np.array([width, height, width, height])
        labels[i, :count], valid[i, :count] = rng.integers(1, classes, count), True
    boxes[0, 1], labels[0, 1] = boxes[0, 0], labels[0, 0] % (classes - 1) + 1  # the same place, another label
    boxes[0, 2, 2:] = boxes[0, 2, :2] + 0.7
    return {"boxes": boxes, "labels": labels, "valid": valid}


class Pair:
    """Ours and torchvision's.

    Args:
      build: makes our model.
      twin: torchvision's detector as a `convert.twins.detection.OnCanvas`.
      reduced: whether to leave out blocks that repeat others, of both.
      level: of `quickly`.
    """

    def __init__(self, build: Callable[[], nnx.Module], twin: torch.nn.Module, reduced: bool = False, level: int = 1):
        self.options = quickly(level)
        self.model, self.twin = cast(nnx.eval_shape(build), jnp.float64), twin.double()
        if reduced:
            reduce_depth(self.model, self.twin)
        randomise(self.twin, seed=0)
        convert.load_state_dict(self.model, arrays(self.twin))
        nnx.reseed(self.model, sampling=0)

    @contextlib.contextmanager
    def changed(self, **options) -> Iterator[None]:
        """Both with other attributes."""
        before = {name: getattr(self.model, name) for name in options}
        for module in (self.model, self.twin):
            for name, value in options.items():
                setattr(module, name, value)
        yield
        for module in (self.model, self.twin):
            for name, value in before.items():
                setattr(module, name, value)

    def same_detections(self, images: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Asserts that those of eval mode are, in the same order, and returns how many there are of each image."""
        self.model.eval()
        graphdef, state = nnx.split(self.model)
        run = jax.jit(lambda state, *x: nnx.merge(graphdef, state)(*x), compiler_options=self.options)
        ours = run(state, images, jnp.asarray(sizes))
        with torch.no_grad():
            theirs = self.twin.eval()(as_torch(images), torch.tensor(sizes))
        assert ours.keys() == theirs.keys()
        assert (ours["labels"].dtype, ours["valid"].dtype) == (jnp.int32, bool)
        for name in ("valid", "labels"):
            np.testing.assert_array_equal(ours[name], theirs[name].numpy(), name)
        for name in ours.keys() - {"valid", "labels"}:
            close(ours[name], theirs[name], name, 1e-9)
        return np.asarray(ours["valid"].sum(1))

    def same_losses(
        self, images: np.ndarray, sizes: np.ndarray, targets: dict[str, np.ndarray], gradients: bool = True
    ) -> None:
        """Asserts that losses, statistics and all gradients are, in train mode, and that no loss is zero."""
        self.model.train()
        if any(hasattr(module, "deterministic") for _, module in nnx.iter_modules(self.model)):
            self.model.set_attributes(deterministic=True)
        graphdef, params, rest = nnx.split(self.model, nnx.Param, ...)

        def total(params, images, targets):
            model = nnx.merge(graphdef, params, rest, copy=True)
            losses = model.losses(images, jnp.asarray(sizes), targets)
            return sum(losses.values()), (losses, nnx.state(model, nnx.BatchStat))

        def run(*given):
            return jax.grad(total, has_aux=True)(*given) if gradients else (None, total(*given)[1])

        given = {name: jnp.asarray(x) for name, x in targets.items()}
        gradient, (losses, statistics) = jax.jit(run, compiler_options=self.options)(params, images, given)
        expected = self._twin_losses(images, sizes, targets)
        assert losses.keys() == expected.keys()
        for name, loss in expected.items():
            assert loss.item() and abs(loss.item() - losses[name]) <= 1e-9 * abs(loss.item()), name
        buffers = arrays(self.twin)
        for name, value in self._named_as_torch(statistics).items():
            close(value, buffers[name], name, 1e-9)
        if gradients:
            self._same_gradients(self._named_as_torch(gradient), sum(expected.values()))

    def _twin_losses(self, images: np.ndarray, sizes: np.ndarray, targets: dict[str, np.ndarray]) -> dict:
        """With the statistics that ours starts with."""
        self.twin.load_state_dict({name: torch.tensor(x) for name, x in convert.state_dict(self.model).items()})
        given = {name: torch.tensor(x) for name, x in targets.items()}
        return self.twin.train().losses(as_torch(images), torch.tensor(sizes), given)

    def _same_gradients(self, ours: dict[str, np.ndarray], loss: torch.Tensor) -> None:
        self.twin.zero_grad()
        loss.backward()
        theirs = {name: p.grad.numpy() for name, p in self.twin.named_parameters() if p.requires_grad}
        assert ours.keys() == theirs.keys()
        least = FLOOR * max(np.abs(g).max() for g in theirs.values())
        for name, value in theirs.items():
            error = np.abs(ours[name] - value).max()
            assert error <= 1e-8 * max(np.abs(value).max(), least), f"gradient of {name} differs by {error}"

    def _named_as_torch(self, state: nnx.State) -> dict[str, np.ndarray]:
        flat = {".".join(map(str, path)): np.asarray(v.get_value()) for path, v in nnx.to_flat_state(state)}
        return torch_arrays(self.model, flat)


def as_torch(images: np.ndarray) -> torch.Tensor:
    return torch.tensor(images).movedim(-1, 1)
