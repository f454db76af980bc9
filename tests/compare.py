"""One comparison for all layers: outputs, gradients and state against the torch twin in float64."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

import convert
from convert.twins import arrays as arrays


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def to_last(x: np.ndarray) -> np.ndarray:
    """(N, C, ...) to (N, ..., C)."""
    return np.moveaxis(x, 1, -1)


def close(ours, theirs, what: str = "values", bound: float = 1e-10) -> None:
    """The largest difference is at most `bound` of the largest value."""
    ours = np.asarray(ours)
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else np.asarray(theirs)
    assert ours.shape == theirs.shape, f"{what}: shape {ours.shape}, should be {theirs.shape}"
    error = np.abs(ours - theirs).max(initial=0)
    assert error <= bound * np.abs(theirs).max(initial=0), f"{what}: differ by {error}"


def quickly(level: int) -> dict[str, int | bool]:
    """Compiler options for programs that run a few times only: XLA's older code, optimised up to this level.

    At level 0 in a quarter of the time, but then gradients of grouped convolutions and of large maps run 10 times as
    long.
    """
    return {"xla_backend_optimization_level": level, "xla_cpu_use_fusion_emitters": False}


def cast(module: nnx.Module, dtype) -> nnx.Module:
    """Casts the floating leaves of a module, concrete or abstract, in place."""
    for _, leaf in nnx.iter_graph(module):
        if isinstance(leaf, nnx.Variable) and jnp.issubdtype(leaf.get_value().dtype, jnp.floating):
            value = leaf.get_value()
            abstract = isinstance(value, jax.ShapeDtypeStruct)
            leaf.set_value(jax.ShapeDtypeStruct(value.shape, dtype) if abstract else value.astype(dtype))
    return module


def randomise(twin: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Casts to float64 and makes every parameter and running statistic random, variances positive."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in twin.double().state_dict().items():
            if tensor.is_floating_point():
                tensor.normal_(generator=generator)
                if name.endswith("running_var"):
                    tensor.abs_().add_(0.5)
    return twin


def twins(build: Callable[[nnx.Rngs], nnx.Module], theirs: torch.nn.Module) -> tuple[nnx.Module, torch.nn.Module]:
    """Our layer and torch's with the same random float64 weights, moved by the layer rules."""
    ours = cast(nnx.eval_shape(lambda: build(nnx.Rngs(0))), jnp.float64)
    convert.load_state_dict(ours, arrays(randomise(theirs)))
    for _, leaf in nnx.iter_graph(ours):
        if isinstance(leaf, nnx.RngState):
            leaf.set_value(jax.random.key(0) if isinstance(leaf, nnx.RngKey) else jnp.zeros((), jnp.uint32))
    return ours, theirs


def agree(
    ours: nnx.Module | Callable, theirs: torch.nn.Module | Callable, *inputs: np.ndarray, images: bool = True
) -> None:
    """Outputs, gradients of every input and parameter, and the state afterwards, are equal.

    Args:
      inputs: in torch's layout.
      images: inputs and outputs with more than two axes are (N, C, ...) for torch and (N, ..., C) for us.
    """

    def layout(x: np.ndarray) -> np.ndarray:
        return to_last(x) if images and x.ndim > 2 else x

    module = ours if isinstance(ours, nnx.Module) else nnx.List()
    graph, params, rest = nnx.split(module, nnx.Param, ...)

    @jax.jit
    def run(params, cotangent, *xs):
        def forward(params, *xs):
            copy = nnx.merge(graph, params, rest, copy=True)
            y = copy(*xs) if isinstance(ours, nnx.Module) else ours(*xs)
            return y, nnx.state(copy, nnx.Not(nnx.Param))

        y, backward, state = jax.vjp(forward, params, *xs, has_aux=True)
        return y, state, backward(cotangent)

    tensors = [torch.tensor(x, requires_grad=np.issubdtype(x.dtype, np.floating)) for x in inputs]
    expected = theirs(*tensors)
    cotangent = normal(*expected.shape, seed=1)
    if expected.requires_grad:
        expected.backward(torch.tensor(cotangent))

    y, state, (grads, *input_grads) = run(params, layout(cotangent), *(jnp.asarray(layout(x)) for x in inputs))
    close(y, layout(expected.detach().numpy()), "output")
    for i, (tensor, gradient) in enumerate(zip(tensors, input_grads, strict=True)):
        if tensor.requires_grad:
            close(gradient, layout(tensor.grad.numpy()), f"gradient of input {i}")
    if isinstance(theirs, torch.nn.Module):
        gradients = convert.state_dict(nnx.merge(graph, grads, rest, copy=True))
        for name, parameter in theirs.named_parameters():
            close(gradients[name], parameter.grad, f"gradient of {name}")
        ours_after = convert.state_dict(nnx.merge(graph, params, state, copy=True))
        theirs_after = arrays(theirs)
        assert ours_after.keys() == theirs_after.keys()
        for name, array in theirs_after.items():
            close(ours_after[name], array, name)


def agree_in_distribution(name: str, ours: np.ndarray, theirs: np.ndarray) -> None:
    """Constants are equal; mean, standard deviation and fourth moment agree within five of their standard errors."""
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype, name
    if theirs.size == 1 or np.ptp(theirs) == 0:
        np.testing.assert_array_equal(ours, theirs, name)
        return
    assert np.ptp(ours) > 0, f"{name} is constant"
    ours, theirs = ours.ravel()[: 1 << 20], theirs.ravel()[: 1 << 20]
    n, spread = theirs.size, max(ours.std(), theirs.std())
    assert abs(ours.mean() - theirs.mean()) <= 5 * spread * np.sqrt(2 / n), f"{name}: mean"
    for power in (2, 4) if n >= 100 else ():
        moments = [np.abs(x / spread) ** power for x in (ours, theirs)]
        error = np.sqrt(sum(m.var() for m in moments) / n)
        assert abs(moments[0].mean() - moments[1].mean()) <= 5 * error + 1e-6, f"{name}: moment {power}"
