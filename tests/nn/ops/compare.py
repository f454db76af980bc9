"""What is asked of every differentiable operation, beside that it equals torchvision's."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from tests.compare import agree, close, normal


def boxes(n: int, size: float = 40.0, seed: int = 0, whole: bool = False) -> np.ndarray:
    """Random boxes (n, 4) of positive area, some of them beyond an image of `size`; whole ones share edges."""
    rng = np.random.default_rng([seed, n])
    low = rng.uniform(-0.2 * size, 0.8 * size, (n, 2))
    corners = np.concatenate([low, low + rng.uniform(0.05 * size, 0.5 * size, (n, 2))], 1)
    return np.round(corners) + np.array([0, 0, 1, 1]) if whole else corners


def same(ours: Callable, theirs: Callable, *inputs: np.ndarray, images: bool = False) -> None:
    """Values and gradients are torch's; forward mode is the transpose of reverse mode; `vmap` does each by itself."""
    agree(ours, theirs, *inputs, images=images)
    inputs = [jnp.asarray(np.moveaxis(x, 1, -1) if images and x.ndim > 2 else x) for x in inputs]
    slopes = [jnp.asarray(normal(*x.shape, seed=2)) for x in inputs]
    y, forward = jax.jvp(ours, inputs, slopes)
    cotangent = jnp.asarray(normal(*y.shape, seed=3))
    backward = jax.vjp(ours, *inputs)[1](cotangent)
    products = sum((b * s).sum() for b, s in zip(backward, slopes, strict=True))
    scale = abs(np.asarray(cotangent * forward)).sum() or 1
    assert abs((cotangent * forward).sum() - products) <= 1e-9 * scale
    twice = jax.vmap(ours)(*(jnp.stack([x, x + 0.1]) for x in inputs))
    for i, shift in enumerate((0, 0.1)):
        close(twice[i], ours(*(x + shift for x in inputs)), f"under vmap, {i}")
