"""The parity ladder: how far a model is from its PyTorch twin, level by level.

Errors are relative: max |ours - reference| / max |reference|, each tensor by its own scale. Inputs are random normal, the
twin's running statistics and constant parameters are randomised first, and rates of dropout and stochastic depth are 0.
"""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import torchvision
from flax import nnx

import jaxzoo
from convert.rules import leaves, load_state_dict, torch_arrays
from convert.twins import arrays, build_twin, randomise
from jaxzoo.nn import Dropout
from tests.parity.reduced import reduce_depth

# A gradient that is zero in exact arithmetic (of a bias in front of a BatchNorm, say) has no scale of its own: its rounding
# is measured against this share of the largest gradient in the model.
GRADIENT_FLOOR = 1e-6

BATCH, CLASSES = 2, 1000
ODD = (65, 97)  # neither native nor square nor even

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
    return torch.from_numpy(np.moveaxis(x, -1, 1).copy()).to(dtype)


def abstract_model(name: str, dtype=jnp.float32, reduced: bool = False, **arguments) -> nnx.Module:
    """Our model without its numbers: shapes only, floating leaves in the given dtype."""
    model = nnx.eval_shape(lambda: jaxzoo.create_model(name, **arguments))
    if reduced:
        reduce_depth(model)
    for leaf in leaves(model):
        value = leaf.variable.get_value()
        if jnp.issubdtype(value.dtype, jnp.floating):
            leaf.variable.set_value(jax.ShapeDtypeStruct(value.shape, dtype))
    nnx.reseed(model, dropout=0)
    return model


class Pair:
    """A model and its twin in float64, with the same numbers."""

    def __init__(self, name: str, reduced: bool = False, image_size: int | None = None):
        self.size = ODD
        arguments = {}
        if image_size is not None:
            self.size, arguments = (image_size, image_size), {"image_size": image_size}
        self.twin = build_twin(jaxzoo.card(name), **arguments)
        if reduced:
            reduce_depth(self.twin)
        self.twin.double()
        randomise(self.twin, seed=0)
        for module in self.twin.modules():
            if isinstance(module, torch.nn.Dropout | torchvision.ops.StochasticDepth):
                module.p = 0.0
        self.start = {key: array.copy() for key, array in arrays(self.twin).items()}
        self.model = abstract_model(name, jnp.float64, reduced, **arguments)
        load_state_dict(self.model, self.start)
        for _, module in nnx.iter_modules(self.model):
            if isinstance(module, Dropout):
                module.p = 0.0
        self.paths = {leaf.path: leaf.variable for leaf in leaves(self.model)}

    def rewind(self) -> None:
        self.twin.load_state_dict({key: torch.from_numpy(array.copy()) for key, array in self.start.items()})

    def forward(self, x: np.ndarray, dtype=jnp.float64) -> np.ndarray:
        self.model.eval()
        graphdef, state = nnx.split(self.model)
        state = jax.tree.map(lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, state)
        return np.asarray(jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))(state, jnp.asarray(x, dtype)))

    @torch.no_grad()
    def twin_forward(self, x: np.ndarray, dtype: torch.dtype = torch.float64) -> np.ndarray:
        self.rewind()
        result = self.twin.eval().to(dtype)(as_torch(x, dtype)).numpy()
        self.twin.double()
        return result

    @functools.cached_property
    def train_pass(self) -> Callable:
        """(parameters by path, x, labels) to (loss, logits, gradients by path, statistics by path), from the first statistics."""
        self.model.train()
        graphdef, params, rest = nnx.split(self.model, nnx.Param, ...)
        self.model.eval()
        paths = [".".join(map(str, path)) for path, _ in nnx.to_flat_state(params)]
        tree = jax.tree.structure(params)

        @jax.jit
        def run(values, rest, x, labels):
            def loss_of(values):
                params = jax.tree.unflatten(tree, [values[path] for path in paths])
                model = nnx.merge(graphdef, params, rest, copy=True)
                logits = model(x)
                loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
                statistics = nnx.to_flat_state(nnx.state(model, nnx.BatchStat))
                return loss, (logits, {".".join(map(str, path)): v.get_value() for path, v in statistics})

            (loss, (logits, statistics)), gradients = jax.value_and_grad(loss_of, has_aux=True)(values)
            return loss, logits, gradients, statistics

        return lambda values, x, labels: run(values, rest, jnp.asarray(x), jnp.asarray(labels))

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        return {path: np.asarray(v.get_value()) for path, v in self.paths.items() if isinstance(v, nnx.Param)}

    def named_as_torch(self, values: Arrays) -> dict[str, np.ndarray]:
        return torch_arrays(self.model, {path: np.asarray(value) for path, value in values.items()})


def forward_error(pair: Pair, size: tuple[int, int]) -> float:
    """L1: logits in eval mode."""
    x = images(size)
    return distance(pair.forward(x), pair.twin_forward(x))


def float32_errors(pair: Pair, size: tuple[int, int]) -> tuple[float, float]:
    """L6: our float32 forward and torch's, each against torch's float64."""
    x = images(size)
    reference = pair.twin_forward(x)
    return distance(pair.forward(x, jnp.float32), reference), distance(pair.twin_forward(x, torch.float32), reference)


def large_float32_error(name: str) -> float:
    """The float32 forward of a network that is too large for float64, against torch's float32."""
    twin = build_twin(jaxzoo.card(name))
    randomise(twin, seed=0)
    model = abstract_model(name)
    load_state_dict(model, arrays(twin))
    graphdef, state = nnx.split(model)
    size = jaxzoo.card(name).input_size
    x = images((size, size), 1).astype(np.float32)
    with torch.no_grad():
        reference = twin(as_torch(x, torch.float32)).numpy()
    return distance(np.asarray(jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))(state, x)), reference)


def twin_loss(pair: Pair, x: np.ndarray, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    logits = pair.twin(as_torch(x))
    return torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)), logits


def labels_for(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(CLASSES, size=BATCH)


def train_errors(pair: Pair) -> dict[str, tuple[float, str]]:
    """L2 and L3: logits, running statistics and gradients of one pass in train mode."""
    x, labels = images(pair.size), labels_for(0)
    pair.rewind()
    pair.twin.train().zero_grad()
    loss, logits = twin_loss(pair, x, labels)
    loss.backward()
    gradients = {key: p.grad.numpy() for key, p in pair.twin.named_parameters()}
    statistics = {key: b.numpy() for key, b in pair.twin.named_buffers() if "running_" in key or "num_batches" in key}
    _, our_logits, our_gradients, our_statistics = pair.train_pass(pair.parameters, x, labels)
    floor = GRADIENT_FLOOR * max(float(np.abs(g).max()) for g in gradients.values())
    return {
        "logits": (distance(our_logits, logits.detach().numpy()), "logits"),
        "statistics": worst(pair.named_as_torch(our_statistics), statistics) if statistics else (0.0, "none"),
        "gradients": worst(pair.named_as_torch(our_gradients), gradients, floor),
    }


OPTIMIZERS = {
    "sgd": (
        lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=1e-4),
        lambda: optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(0.01, momentum=0.9)),
    ),
    "adamw": (
        lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.05),
        lambda: optax.adamw(1e-3, weight_decay=0.05),
    ),
}


def training_error(pair: Pair, optimizer: str, steps: int = 5) -> tuple[float, str]:
    """L4: all parameters after some steps on different batches."""
    make_torch, make_optax = OPTIMIZERS[optimizer]
    batches = [(images(pair.size, seed=step), labels_for(step)) for step in range(steps)]

    pair.rewind()
    pair.twin.train()
    torch_optimizer = make_torch(pair.twin.parameters())
    for x, labels in batches:
        torch_optimizer.zero_grad()
        twin_loss(pair, x, labels)[0].backward()
        torch_optimizer.step()
    del torch_optimizer

    # Both optimizers work element by element, so one long vector stands for all parameters: one small compilation.
    start = pair.parameters
    ends = np.cumsum([a.size for a in start.values()])[:-1]

    def split(vector: jax.Array) -> dict[str, np.ndarray]:
        parts = np.split(np.asarray(vector), ends)
        return {path: part.reshape(a.shape) for part, (path, a) in zip(parts, start.items(), strict=True)}

    transform = make_optax()
    vector = jnp.concatenate([a.ravel() for a in start.values()])
    state = transform.init(vector)
    for x, labels in batches:
        gradients = pair.train_pass(split(vector), x, labels)[2]
        gradient = jnp.concatenate([np.ravel(gradients[path]) for path in start])
        update, state = transform.update(gradient, state, vector)
        vector = vector + update
    reference = {key: p.detach().numpy() for key, p in pair.twin.named_parameters()}
    return worst(pair.named_as_torch(split(vector)), reference)
