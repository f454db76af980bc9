"""Layers that compute what their torch namesakes compute, on channels-last arrays.

Constructors take torch's arguments, parameters carry Flax's names. A layer computes in the promoted dtype of its input
and its parameters, so precision is chosen from outside by casting these.
"""

from jaxzoo.nn import init
from jaxzoo.nn.activation import (
    GELU,
    Activation,
    Hardsigmoid,
    Hardswish,
    LeakyReLU,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Tanh,
    gelu,
    hardsigmoid,
    hardswish,
    leaky_relu,
    relu,
    relu6,
    sigmoid,
    silu,
)
from jaxzoo.nn.attention import InProjection, MultiHeadAttention, attend
from jaxzoo.nn.block import MLP, BatchNormAct, ConvNormActivation, Layer, LayerScale, SqueezeExcitation
from jaxzoo.nn.channels import channel_shuffle, make_divisible
from jaxzoo.nn.container import (
    Buffer,
    Flatten,
    Identity,
    IntermediateLayers,
    NamedSequential,
    Sequential,
    Unflatten,
    attributes,
    flatten,
    unflatten,
)
from jaxzoo.nn.conv import Conv, ConvTranspose
from jaxzoo.nn.dropout import Dropout, Dropout2d, StochasticDepth
from jaxzoo.nn.integers import IndexBuffer
from jaxzoo.nn.linear import Embed, Linear, affine
from jaxzoo.nn.local import LocallyConnected2d
from jaxzoo.nn.norm import BatchNorm, DarknetBatchNorm, GroupNorm, LayerNorm, LocalResponseNorm
from jaxzoo.nn.pool import (
    AdaptiveAvgPool,
    AdaptiveMaxPool,
    AvgPool,
    MaxPool,
    adaptive_avg_pool,
    adaptive_max_pool,
    avg_pool,
    max_pool,
)
from jaxzoo.nn.resize import resize
from jaxzoo.nn.window import relative_position_index, window_partition, window_reverse

__all__ = [
    "GELU",
    "MLP",
    "Activation",
    "AdaptiveAvgPool",
    "AdaptiveMaxPool",
    "AvgPool",
    "BatchNorm",
    "BatchNormAct",
    "Buffer",
    "Conv",
    "ConvNormActivation",
    "ConvTranspose",
    "DarknetBatchNorm",
    "Dropout",
    "Dropout2d",
    "Embed",
    "Flatten",
    "GroupNorm",
    "Hardsigmoid",
    "Hardswish",
    "Identity",
    "InProjection",
    "IndexBuffer",
    "IntermediateLayers",
    "Layer",
    "LayerNorm",
    "LayerScale",
    "LeakyReLU",
    "Linear",
    "LocalResponseNorm",
    "LocallyConnected2d",
    "MaxPool",
    "MultiHeadAttention",
    "NamedSequential",
    "ReLU",
    "ReLU6",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SqueezeExcitation",
    "StochasticDepth",
    "Tanh",
    "Unflatten",
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "affine",
    "attend",
    "attributes",
    "avg_pool",
    "channel_shuffle",
    "flatten",
    "gelu",
    "hardsigmoid",
    "hardswish",
    "init",
    "leaky_relu",
    "make_divisible",
    "max_pool",
    "relative_position_index",
    "relu",
    "relu6",
    "resize",
    "sigmoid",
    "silu",
    "unflatten",
    "window_partition",
    "window_reverse",
]
