"""`channel_sum` sums over everything but the channels, however many rows there are."""

import jax
import jax.numpy as jnp
import pytest

from jaxzoo.nn.cpu.channel_sum import channel_sum
from tests.compare import close, normal


@pytest.mark.parametrize(
    "shape", [(1, 3), (2, 5), (700, 3), (1031, 2), (2, 1, 1, 3), (3, 23, 29, 2), (40, 37, 1, 2), (600, 5, 3), (2, 0, 3)]
)
def test_it_is_a_sum(shape):
    x, y = (jnp.asarray(normal(*shape, seed=seed)) for seed in (0, 1))
    axes = tuple(range(len(shape) - 1))
    close(jax.jit(lambda x, y: channel_sum(x * (y + 1)))(x, y), (x * (y + 1)).sum(axes), bound=1e-14)


def test_it_has_the_gradient_of_a_sum():
    x = jnp.asarray(normal(3, 23, 29, 2))
    close(jax.jit(jax.grad(lambda x: (channel_sum(x * x) ** 2).sum()))(x), 4 * x * (x**2).sum((0, 1, 2)), bound=1e-14)
