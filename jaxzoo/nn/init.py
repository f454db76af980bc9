"""Initialisers under torch.nn.init's names; kernels are (..., in, out), so fans come out as torch's."""

import math

from flax import nnx

from jax.nn.initializers import Initializer

ones = nnx.initializers.ones_init()
zeros = nnx.initializers.zeros_init()
constant = nnx.initializers.constant
normal = nnx.initializers.normal  # also for torch's trunc_normal_(std): it cuts at ±2 absolute, ±100 standard deviations here
xavier_uniform = nnx.initializers.xavier_uniform()

# What torch's Linear and Conv do by themselves: kaiming_uniform_(a=sqrt(5)), that is U(±1/sqrt(fan_in)).
torch_default = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def uniform(bound: float) -> Initializer:
    """U(-bound, bound)."""
    unit = nnx.initializers.uniform(2 * bound)
    return lambda key, shape, dtype: unit(key, shape, dtype) - bound


def torch_default_bias(fan_in: int) -> Initializer:
    """U(±1/sqrt(fan_in)): the bias that goes with `torch_default`."""
    return uniform(1 / math.sqrt(fan_in) if fan_in else 0.0)


def kaiming_normal(mode: str = "fan_in") -> Initializer:
    """N(0, 2 / fan): He initialisation for ReLU networks (He et al. 2015)."""
    return nnx.initializers.variance_scaling(2.0, mode, "normal")
