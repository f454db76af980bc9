"""LeNet-5.

LeCun, Bottou, Bengio and Haffner 1998, Gradient-Based Learning Applied to Document Recognition,
http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf, §II.B. Reference: convert/twins/lenet.py, written from the paper.

As published, with two differences: the last layer is linear, where the paper has distances to fixed 7×12 bitmaps of
the ten digits, which only those classes have; and images are RGB unless `in_channels` is 1.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxzoo.errors import UsageError
from jaxzoo.nn import Activation, Conv, Identity, Linear, avg_pool, flatten, init
from jaxzoo.nn.cpu.convolution import conv
from jaxzoo.registry import register_model

# Table I: the maps of S2 that each map of C3 sees.
C3 = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5)),
)


class Squash(Activation):
    """1.7159 tanh(2x/3): ±1 stays ±1, where the curve bends most (appendix A)."""

    _function = staticmethod(lambda x: 1.7159 * jnp.tanh(x * (2 / 3)))


def initialisers(fan_in: int) -> dict:
    """Weights and biases start in ±2.4 / fan-in (appendix A)."""
    return {"kernel_init": init.uniform(2.4 / fan_in), "bias_init": init.uniform(2.4 / fan_in)}


class Subsampling(nnx.Module):
    """The sum of each 2×2 pixels, times a coefficient, plus a bias. Leaves: coefficient, bias (channels,)."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        bound = init.uniform(2.4 / 4)
        self.coefficient, self.bias = (nnx.Param(bound(rngs.params(), (channels,), jnp.float32)) for _ in range(2))

    def __call__(self, x: jax.Array) -> jax.Array:
        return 4 * avg_pool(x, 2) * self.coefficient[...] + self.bias[...]


class SparseConv(nnx.Module):
    """A convolution where each output sees some of the inputs only.

    Leaves: kernel (connections, kh, kw), one filter per connection in the order of the table, and bias (outputs,).
    """

    def __init__(self, table: tuple[tuple[int, ...], ...], kernel_size: int, *, rngs: nnx.Rngs):
        self.inputs = tuple(i for row in table for i in row)
        self.outputs = tuple(o for o, row in enumerate(table) for _ in row)
        shape = (kernel_size, kernel_size)
        bounds = [2.4 / (len(row) * math.prod(shape)) for row in table]
        filters = [init.uniform(bounds[o])(rngs.params(), shape, jnp.float32) for o in self.outputs]
        self.kernel = nnx.Param(jnp.stack(filters))
        self.bias = nnx.Param(jnp.stack([init.uniform(b)(rngs.params(), (), jnp.float32) for b in bounds]))

    def __call__(self, x: jax.Array) -> jax.Array:
        filters = jnp.moveaxis(self.kernel[...], 0, -1)  # (kh, kw, connections)
        dtype = jnp.result_type(x, filters)
        dense = jnp.zeros((*filters.shape[:-1], x.shape[-1], self.bias.shape[0]), dtype)
        dense = dense.at[:, :, np.array(self.inputs), np.array(self.outputs)].set(filters.astype(dtype))
        return conv(x.astype(dtype), dense, (1, 1), [(0, 0), (0, 0)], (1, 1), 1) + self.bias[...].astype(dtype)


class LeNet5(nnx.Module):
    """Images (N, 32, 32, in_channels) to logits (N, num_classes); figure 2."""

    def __init__(self, num_classes: int = 10, in_channels: int = 3, *, rngs: nnx.Rngs):
        self.c1 = Conv(in_channels, 6, 5, **initialisers(25 * in_channels), rngs=rngs)
        self.s2 = Subsampling(6, rngs=rngs)
        self.c3 = SparseConv(C3, 5, rngs=rngs)
        self.s4 = Subsampling(16, rngs=rngs)
        self.c5 = Conv(16, 120, 5, **initialisers(25 * 16), rngs=rngs)
        self.f6 = Linear(120, 84, **initialisers(120), rngs=rngs)
        self.output = Linear(84, num_classes, **initialisers(84), rngs=rngs) if num_classes else Identity()
        self.squash = Squash()

    def __call__(self, x: jax.Array) -> jax.Array:
        height, width = x.shape[1:3]
        if not (32 <= height < 36 and 32 <= width < 36):  # subsampling cuts off pixels beyond 32
            raise UsageError(f"LeNet-5 takes images of 32×32 pixels, not {height}×{width}; resize them")
        x = self.squash(self.s2(self.squash(self.c1(x))))
        x = self.squash(self.s4(self.squash(self.c3(x))))
        x = flatten(self.squash(self.c5(x)))
        return self.output(self.squash(self.f6(x)))


@register_model(
    head=("output",), paper="LeCun et al. 1998, doi:10.1109/5.726791", twin="convert.twins.lenet:lenet5", input_size=32
)
def lenet5(*, rngs: nnx.Rngs, **kwargs) -> LeNet5:
    return LeNet5(**kwargs, rngs=rngs)
