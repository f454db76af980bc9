"""The parity ladder: how far a model is from its PyTorch twin, level by level.

Errors are relative: max |ours - reference| / max |reference|, each tensor by its own scale. Inputs are random normal,
the twin's running statistics and constant parameters are randomised first, and rates of dropout and stochastic depth
are 0.
"""

import copy
import functools
import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import torchvision
from flax import nnx

import jaxzoo
from convert.rules import leaves, load_state_dict, state_dict, torch_arrays
from convert.shapes import abstract, cast
from convert.twins import abstract_twin, arrays, build_twin, randomise
from jaxzoo.nn import Dropout
from jaxzoo.nn.dropout import stream_tags
from jaxzoo.registry import argument_names
from tests.compare import quickly
from tests.parity.reduced import reduce_depth

# A gradient that is zero in exact arithmetic (of a bias in front of a BatchNorm, say) has no scale of its own: its
# rounding is measured against this share of the largest gradient in the model.
GRADIENT_FLOOR = 1e-6

BATCH = 4
# Neither native nor square nor even; a network gets the first it can take. LeNet's is (33, 35), and DeepLab V3+, which
# takes multiples of 16 only, has one that is wide enough for a dilation of 12.
ODD = ((33, 49), (79, 95), (129, 145), (223, 221), (33, 35), (64, 208), (299, 301))
# At which all dilations count, up to 36: on features that are 8 times smaller than the image, or 16 times.
LONG = ((305, 97), (608, 48))
LONG_AND_NARROW = ((305, 33), (608, 32))

Arrays = Mapping[str, np.ndarray]


def distance(ours: np.ndarray, reference: np.ndarray, floor: float = 0.0) -> float:
    """max |ours - reference| / max(max |reference|, floor); infinite for other shapes, NaN stays NaN."""
    if np.shape(ours) != np.shape(reference):
        return float("inf")
    difference = float(np.max(np.abs(np.asarray(ours, np.float64) - reference)))
    scale = max(float(np.max(np.abs(reference))), floor)
    return difference / scale if difference else 0.0


def worst(ours: Arrays, reference: Arrays, floor: float = 0.0) -> tuple[float, str]:
    """The largest distance among tensors of the same names, and its name; infinite where the names differ."""
    if ours.keys() != reference.keys():
        return float("inf"), ", ".join(sorted(ours.keys() ^ reference.keys()))
    distances = {name: distance(ours[name], reference[name], floor) for name in reference}
    return max(((error, name) for name, error in distances.items()), key=lambda e: (np.isnan(e[0]), e[0]))


def images(size: tuple[int, int], batch: int = BATCH, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, *size, 3))


def as_torch(x: np.ndarray, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Images (N, H, W, C) as (N, C, H, W) in a dtype; whole numbers as they are."""
    return torch.from_numpy(np.moveaxis(x, -1, 1).copy()).to(dtype) if x.dtype.kind == "f" else torch.from_numpy(x)


def as_jax(inputs: tuple, dtype=jnp.float64) -> list[jax.Array]:
    return [jnp.asarray(x, dtype) if x.dtype.kind == "f" else jnp.asarray(x) for x in inputs]


def as_ours(y: torch.Tensor) -> np.ndarray:
    """Logits (N, classes) as they are, maps of them channels last."""
    return y.detach().movedim(1, -1).numpy()


def with_auxiliary_head(name: str) -> dict[str, bool]:
    """What gives a model, and its twin, the head that only the loss needs, where it comes on request."""
    return {"aux_loss": True} if "aux_loss" in argument_names(name) else {}


@functools.lru_cache(maxsize=4)  # the tests of a model follow one another
def _abstract_model(name: str, arguments: tuple) -> nnx.Module:
    model = abstract(name, **dict(arguments))
    nnx.reseed(model, **dict.fromkeys(stream_tags(model), 0))
    return model


def abstract_model(name: str, **arguments) -> nnx.Module:
    """Our model without its numbers, but for those of its random streams."""
    return nnx.clone(_abstract_model(name, tuple(sorted(arguments.items()))))


@functools.lru_cache(maxsize=4)
def _abstract_twin(name: str, arguments: tuple) -> torch.nn.Module:
    return abstract_twin(jaxzoo.card(name), **dict(arguments))


def twin_without_numbers(name: str, **arguments) -> torch.nn.Module:
    """Its twin on torch's meta device."""
    return copy.deepcopy(_abstract_twin(name, tuple(sorted(arguments.items()))))


def first_size(name: str, sizes: tuple = ODD) -> tuple[int, int]:
    """The first size that the twin can be trained at; the last one where it takes none before."""
    twin = twin_without_numbers(name).train()
    for size in sizes[:-1]:
        try:
            twin(torch.empty(BATCH, 3, *size, device="meta"))
            return size
        except RuntimeError:  # a window or a kernel does not fit, or the size does not divide
            continue
    return sizes[-1]


def outputs(y) -> dict:
    """What a network returns by name: logits, and those of auxiliary heads where it has some, behind them."""
    if isinstance(y, dict):
        return y
    if not hasattr(y, "_asdict"):
        return {"out": y}
    return {key: value for key, value in y._asdict().items() if value is not None}


class Pair:
    """A model and its twin in float64, with the same numbers.

    Where they are `reduced`, compiling costs more than running, and all programs are compiled quickly.
    """

    seeds: tuple[int, ...] = (0,)  # of the labels whose gradients are compared

    def __init__(self, name: str, reduced: bool = False, image_size: int | None = None):
        arguments = self.arguments(name)
        if image_size is None:
            self.size = self.first_size(name)
        else:
            self.size, arguments = (image_size, image_size), {"image_size": image_size}
        self.reduced, self.dense = reduced, jaxzoo.card(name).task == "segmentation"
        self.level = 0 if max(self.size) <= 64 else 1
        self.batch = BATCH if max(self.size) < 200 else 2  # of large images two do, in half the time and memory
        torch.manual_seed(0)
        self.twin, self.model = build_twin(jaxzoo.card(name), **arguments), abstract_model(name, **arguments)
        if reduced:
            reduce_depth(self.model, self.twin)
        self.twin.double()
        self.randomise()
        for module in self.twin.modules():
            if isinstance(module, torch.nn.modules.dropout._DropoutNd | torchvision.ops.StochasticDepth):
                module.p = 0.0
        load_state_dict(cast(self.model, jnp.float64), arrays(self.twin))
        for _, module in nnx.iter_modules(self.model):
            if isinstance(module, Dropout):
                module.p = 0.0

    def arguments(self, name: str) -> dict:
        """Those of both builders."""
        return with_auxiliary_head(name)

    def randomise(self) -> None:
        """Has all of the twin's weights count."""
        randomise(self.twin, seed=0)

    @staticmethod
    def first_size(name: str) -> tuple[int, int]:
        """The size of images at which training is compared."""
        return first_size(name)

    def inputs(self, seed: int = 0, size: tuple[int, int] | None = None, batch: int | None = None) -> tuple:
        """The arguments of a call, as NumPy arrays."""
        return (images(size or self.size, batch or self.batch, seed),)

    @torch.no_grad()
    def rewind(self) -> None:
        """Gives the twin our model's numbers again."""
        self.twin.zero_grad()
        start = self._start if self.reduced else state_dict(self.model)
        for key, tensor in self.twin.state_dict().items():
            tensor.copy_(torch.from_numpy(start[key]))

    @functools.cached_property
    def _start(self) -> dict[str, np.ndarray]:
        return state_dict(self.model)

    def forward(self, inputs: tuple, dtype=jnp.float64) -> dict[str, np.ndarray]:
        self.model.eval()
        graphdef, state = nnx.split(self.model)
        state = jax.tree.map(lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, state)
        options = quickly(0 if self.reduced or not self.dense else 1)
        as_users = dtype == jnp.float32 and not self.reduced
        run = jax.jit(
            lambda state, *inputs: self.outputs(nnx.merge(graphdef, state), *inputs),
            compiler_options=None if as_users else options,
        )
        return {key: np.asarray(value) for key, value in run(state, *as_jax(inputs, dtype)).items()}

    @classmethod
    def compared(cls, ours: Arrays, reference: Arrays, dtype) -> tuple[Arrays, Arrays]:
        """Of both sides what counts in a dtype, as NumPy's."""
        return ours, reference

    @staticmethod
    def outputs(model: nnx.Module, *inputs: jax.Array) -> dict[str, jax.Array]:
        """What is compared of a call in eval mode, by name."""
        return outputs(model(*inputs))

    @torch.no_grad()
    def twin_forward(self, inputs: tuple, dtype: torch.dtype = torch.float64) -> dict[str, np.ndarray]:
        self.rewind()
        y = self.twin_outputs(self.twin.eval().to(dtype), *(as_torch(x, dtype) for x in inputs))
        self.twin.double()
        return y

    @staticmethod
    def twin_outputs(twin: torch.nn.Module, *inputs: torch.Tensor) -> dict[str, np.ndarray]:
        return {key: as_ours(value) for key, value in outputs(twin(*inputs)).items()}

    def losses(self, model: nnx.Module, inputs: tuple, labels) -> tuple[dict, dict]:
        """The losses of a call in train mode, and what else is compared of it."""
        logits = outputs(model(*inputs))
        entropy = optax.softmax_cross_entropy_with_integer_labels
        return {key: entropy(y, labels).mean() for key, y in logits.items()}, logits

    def twin_losses(self, inputs: tuple, labels) -> tuple[dict, dict[str, np.ndarray]]:
        logits = outputs(self.twin(*map(as_torch, inputs)))
        entropy = torch.nn.functional.cross_entropy
        losses = {key: entropy(y, torch.from_numpy(labels)) for key, y in logits.items()}
        return losses, {key: as_ours(y) for key, y in logits.items()}

    def total(self, losses: dict):
        """The model's loss, of one loss per output: those of auxiliary heads count as the model says."""
        loss, *auxiliary = losses.values()
        return loss + sum(self.model.aux_weight * other for other in auxiliary)

    def labels(self, seed: int) -> np.ndarray:
        """A class for each image, or for each pixel."""
        shape = (self.batch, *self.size) if self.dense else self.batch
        return np.random.default_rng(seed).integers(10, size=shape)

    @property
    def parameters(self) -> jax.Array:
        """All parameters as one vector, in the order of `split`."""
        return jnp.concatenate([jnp.ravel(p.get_value()) for p in self._params.values()])

    @property
    def _params(self) -> dict[str, nnx.Variable]:
        return {leaf.path: leaf.variable for leaf in leaves(self.model) if isinstance(leaf.variable, nnx.Param)}

    def split(self, vector: jax.Array) -> dict[str, jax.Array | np.ndarray]:
        """A vector like `parameters` as arrays by path: inside jit as JAX's, outside as NumPy's."""
        shapes = {path: p.get_value().shape for path, p in self._params.items()}
        sizes = [math.prod(shape) for shape in shapes.values()]
        traced = isinstance(vector, jax.core.Tracer)
        parts = jax.lax.split(vector, sizes) if traced else np.split(np.asarray(vector), np.cumsum(sizes)[:-1])
        return {path: part.reshape(shape) for part, (path, shape) in zip(parts, shapes.items(), strict=True)}

    @functools.cached_property
    def train_pass(self) -> Callable:
        """(parameters, inputs, labels) to (outputs, statistics by path, gradient), the first and last as one vector."""
        self.to_train_mode()
        graphdef, params, rest = nnx.split(self.model, nnx.Param, ...)
        self.model.eval()
        places = {".".join(map(str, path)): path for path, _ in nnx.to_flat_state(params)}

        options = quickly(self.level) if self.reduced else None if self.level else quickly(1)

        @functools.partial(jax.jit, compiler_options=options)
        def run(vector, rest, inputs, labels):
            def loss_of(vector):
                values = [(places[path], nnx.Param(value)) for path, value in self.split(vector).items()]
                model = nnx.merge(graphdef, nnx.from_flat_state(values), rest, copy=True)
                losses, logits = self.losses(model, inputs, labels)
                statistics = nnx.to_flat_state(nnx.state(model, nnx.BatchStat))
                return self.total(losses), (logits, {".".join(map(str, path)): v.get_value() for path, v in statistics})

            gradient, (logits, statistics) = jax.grad(loss_of, has_aux=True)(vector)
            return logits, statistics, gradient

        return lambda vector, inputs, labels: run(vector, rest, as_jax(inputs), jax.tree.map(jnp.asarray, labels))

    def to_train_mode(self) -> None:
        """Of our model, without anything random."""
        self.model.train()

    def named_as_torch(self, values: Mapping[str, jax.Array]) -> dict[str, np.ndarray]:
        return torch_arrays(self.model, {path: np.asarray(value) for path, value in values.items()})


class EvalPass:
    """L1 and L6: logits in eval mode against torch's in float64."""

    def __init__(self, pair: Pair, size: tuple[int, int]):
        self.pair = pair
        # Of a single image, XLA's CPU compiler sums products one by one, which is less exact.
        self.inputs = pair.inputs(size=size, batch=2)
        self.reference = pair.twin_forward(self.inputs)

    def error(self, dtype) -> float:
        return worst(*self.pair.compared(self.pair.forward(self.inputs, dtype), self.reference, dtype))[0]

    def twin_error(self, dtype: torch.dtype) -> float:
        found = self.pair.twin_forward(self.inputs, dtype)
        return worst(*self.pair.compared(found, self.reference, np.float32))[0]


def large_float32_error(kind: type[Pair], name: str, size: tuple[int, int]) -> float:
    """The float32 forward of a network that is too large for float64, in its full depth, against torch's float32."""
    twin = build_twin(jaxzoo.card(name), **with_auxiliary_head(name))
    randomise(twin, seed=0)
    model = abstract_model(name, **with_auxiliary_head(name))
    load_state_dict(model, arrays(twin))
    graphdef, state = nnx.split(model)
    x = images(size, 2).astype(np.float32)
    with torch.no_grad():
        reference = kind.twin_outputs(twin, as_torch(x, torch.float32))
    y = jax.jit(lambda state, x: kind.outputs(nnx.merge(graphdef, state), x))(state, x)
    return worst(*kind.compared({key: np.asarray(value) for key, value in y.items()}, reference, np.float32))[0]


def twin_loss(pair: Pair, inputs: tuple, labels) -> tuple[torch.Tensor, dict[str, np.ndarray]]:
    losses, logits = pair.twin_losses(inputs, labels)
    return pair.total(losses), logits


def train_errors(pair: Pair) -> dict[str, tuple[float, str]]:
    """L2 and L3: logits, running statistics and gradients of one pass in train mode, for the worst of the labels."""
    found = [_train_errors(pair, seed) for seed in pair.seeds]
    return {part: max((f[part] for f in found), key=lambda e: (np.isnan(e[0]), e[0])) for part in found[0]}


def _train_errors(pair: Pair, seed: int) -> dict[str, tuple[float, str]]:
    inputs, labels = pair.inputs(), pair.labels(seed)
    our_logits, our_statistics, our_gradient = pair.train_pass(pair.parameters, inputs, labels)
    pair.rewind()
    pair.twin.train()
    loss, logits = twin_loss(pair, inputs, labels)
    loss.backward()
    gradients = {key: p.grad.numpy() for key, p in pair.twin.named_parameters()}
    statistics = {key: b.numpy() for key, b in pair.twin.named_buffers() if "running_" in key or "num_batches" in key}
    floor = GRADIENT_FLOOR * max(float(np.abs(g).max()) for g in gradients.values())
    return {
        "logits": worst(our_logits, logits),
        "statistics": worst(pair.named_as_torch(our_statistics), statistics) if statistics else (0.0, "none"),
        "gradients": worst(pair.named_as_torch(pair.split(our_gradient)), gradients, floor),
    }


# Deep networks with batch statistics of so few values are chaotic. These steps are small enough that five of them do
# not blow up rounding errors: SGD's first one moves all parameters together by 0.01, whatever the gradient's size.
OPTIMIZERS = {
    "sgd": (
        lambda p, norm: torch.optim.SGD(p, lr=0.01 / norm, momentum=0.9, weight_decay=1e-4),
        lambda norm: optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(0.01 / norm, momentum=0.9)),
    ),
    "adamw": (
        lambda p, norm: torch.optim.AdamW(p, lr=1e-5, weight_decay=0.05),
        lambda norm: optax.adamw(1e-5, weight_decay=0.05),
    ),
}


def training_error(pair: Pair, optimizer: str, steps: int = 5) -> tuple[float, str]:
    """L4: all parameters after some steps on different batches."""
    make_torch, make_optax = OPTIMIZERS[optimizer]
    batches = [(pair.inputs(step), pair.labels(step)) for step in range(steps)]

    pair.rewind()
    pair.twin.train()
    twin_loss(pair, *batches[0])[0].backward()
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in pair.twin.parameters()))
    torch_optimizer = make_torch(pair.twin.parameters(), norm)
    for inputs, labels in batches:
        torch_optimizer.zero_grad()
        twin_loss(pair, inputs, labels)[0].backward()
        torch_optimizer.step()
    pair.twin.zero_grad()
    del torch_optimizer

    # Both optimizers work element by element, so one long vector stands for all parameters: a small program.
    transform = make_optax(norm)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def update(vector, state, gradient):
        updates, state = transform.update(gradient, state, vector)
        return vector + updates, state

    vector = pair.parameters
    state = transform.init(vector)
    for inputs, labels in batches:
        vector, state = update(vector, state, pair.train_pass(vector, inputs, labels)[2])
    reference = {key: p.detach().numpy() for key, p in pair.twin.named_parameters()}
    return worst(pair.named_as_torch(pair.split(vector)), reference)
