"""MaxViT.

Tu et al. 2022, MaxViT: Multi-Axis Vision Transformer, https://arxiv.org/abs/2204.01697.
Reference: torchvision.models.maxvit.
"""

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxzoo.errors import UsageError
from jaxzoo.nn import (
    GELU,
    AdaptiveAvgPool,
    AvgPool,
    BatchNorm,
    ConvNormActivation,
    Dropout,
    Flatten,
    Identity,
    IndexBuffer,
    Layer,
    LayerNorm,
    Linear,
    NamedSequential,
    Sequential,
    SiLU,
    SqueezeExcitation,
    StochasticDepth,
    Tanh,
    attend,
    init,
    relative_position_index,
    window_partition,
    window_reverse,
)
from jaxzoo.registry import imagenet, register_model

initialisers = {"kernel_init": init.normal(0.02), "bias_init": init.zeros}
conv = partial(ConvNormActivation, **initialisers)
pointwise = partial(conv, kernel_size=1, norm_layer=None, activation_layer=None)
linear = partial(Linear, **initialisers)
PaperBatchNorm = partial(BatchNorm, eps=1e-3, momentum=0.01)


class MBConv(nnx.Module):
    """Normalise, expand, filter depthwise, squeeze and excite, project, and a shortcut (§3.3)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        expansion_ratio: float,
        squeeze_ratio: float,
        stride: int,
        activation_layer: Layer,
        norm_layer: Layer,
        p_stochastic_dropout: float,
        *,
        rngs: nnx.Rngs,
    ):
        self.proj = Identity()
        if stride != 1 or in_channels != out_channels:
            pool = [AvgPool(3, stride, 1)] if stride == 2 else []
            self.proj = Sequential(*pool, *pointwise(in_channels, out_channels, rngs=rngs))
        mid = int(out_channels * expansion_ratio)
        layer = partial(conv, norm_layer=norm_layer, activation_layer=activation_layer, rngs=rngs)
        self.layers = NamedSequential(
            pre_norm=norm_layer(in_channels, rngs=rngs),
            conv_a=layer(in_channels, mid, 1),
            conv_b=layer(mid, mid, 3, stride, groups=mid),
            squeeze_excitation=SqueezeExcitation(
                mid, int(out_channels * squeeze_ratio), SiLU, **initialisers, rngs=rngs
            ),
            conv_c=pointwise(mid, out_channels, rngs=rngs)[0],
        )
        self.stochastic_depth = StochasticDepth(p_stochastic_dropout, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.proj(x) + self.stochastic_depth(self.layers(x))


class RelativePositionalMultiHeadAttention(nnx.Module):
    """Self-attention of (N, groups, L, C), the L tokens being a square, with a bias for every offset in it (§3.1)."""

    def __init__(self, feat_dim: int, head_dim: int, max_seq_len: int, *, rngs: nnx.Rngs):
        if feat_dim % head_dim:
            raise ValueError(f"head_dim={head_dim} does not divide feat_dim={feat_dim}")
        self.heads, size = feat_dim // head_dim, math.isqrt(max_seq_len)
        self.to_qkv = linear(feat_dim, 3 * feat_dim, rngs=rngs)
        self.merge = linear(feat_dim, feat_dim, rngs=rngs)
        table = init.normal(0.02)(rngs.params(), ((2 * size - 1) ** 2, self.heads), jnp.float32)
        self.relative_position_bias_table = nnx.Param(table)
        index = relative_position_index((size, size)).reshape(max_seq_len, max_seq_len)
        self.relative_position_index = IndexBuffer(jnp.asarray(index, jnp.int32))

    def __call__(self, x: jax.Array) -> jax.Array:
        q, k, v = (y.reshape(*x.shape[:-1], self.heads, -1) for y in jnp.split(self.to_qkv(x), 3, -1))
        bias = self.relative_position_bias_table[...][self.relative_position_index[...]]  # (L, L, heads)
        # The reference scales by all channels, where others take those of a head.
        y = attend(q, k, v, scale=x.shape[-1] ** -0.5, bias=bias.transpose(2, 0, 1))
        return self.merge(y.reshape(x.shape))


def check_divides(size: Sequence[int], partition_size: int) -> None:
    """Raises `UsageError` where a map of this height and width does not divide into partitions."""
    if any(length % partition_size for length in size):
        raise UsageError(
            f"a map of {size[0]} x {size[1]} does not divide into partitions of {partition_size} x {partition_size}: "
            f"give images of multiples of {32 * partition_size} pixels, or another partition_size"
        )


class PartitionAttentionLayer(nnx.Module):
    """Attention and MLP among the tokens of a window, or among those on a grid over the whole map (§3.2).

    (N, H, W, C) to the same.

    Raises:
      UsageError: H or W is no multiple of `partition_size`.
    """

    def __init__(
        self,
        in_channels: int,
        head_dim: int,
        partition_size: int,
        partition_type: str,
        mlp_ratio: int,
        activation_layer: Layer,
        norm_layer: Layer,
        attention_dropout: float,
        mlp_dropout: float,
        p_stochastic_dropout: float,
        *,
        rngs: nnx.Rngs,
    ):
        self.partition_size, self.partition_type = partition_size, partition_type
        self.attn_layer = Sequential(
            norm_layer(in_channels, rngs=rngs),
            RelativePositionalMultiHeadAttention(in_channels, head_dim, partition_size**2, rngs=rngs),
            Dropout(attention_dropout, rngs=rngs),
        )
        self.mlp_layer = Sequential(
            norm_layer(in_channels, rngs=rngs),
            linear(in_channels, in_channels * mlp_ratio, rngs=rngs),
            activation_layer(),
            linear(in_channels * mlp_ratio, in_channels, rngs=rngs),
            Dropout(mlp_dropout, rngs=rngs),
        )
        self.stochastic_dropout = StochasticDepth(p_stochastic_dropout, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        n, height, width, channels = x.shape
        size, grid = self.partition_size, self.partition_type == "grid"
        check_divides((height, width), size)
        counts = height // size, width // size
        window = counts if grid else (size, size)
        x = window_partition(x, window)
        shape = x.shape
        x = x.reshape(n, shape[1], -1, channels)
        x = x.swapaxes(1, 2) if grid else x  # (N, groups, size², C)
        x = x + self.stochastic_dropout(self.attn_layer(x))
        x = x + self.stochastic_dropout(self.mlp_layer(x))
        x = x.swapaxes(1, 2) if grid else x
        return window_reverse(x.reshape(shape), (size, size) if grid else counts)


class MaxVitLayer(nnx.Module):
    """MBConv, then attention in windows, then on a grid (figure 2).

    Args:
      mbconv, attention: build `MBConv` and `PartitionAttentionLayer`, with the arguments that all layers share.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        p_stochastic_dropout: float,
        mbconv: Layer,
        attention: Layer,
        *,
        rngs: nnx.Rngs,
    ):
        drop = {"p_stochastic_dropout": p_stochastic_dropout, "rngs": rngs}
        self.layers = NamedSequential(
            MBconv=mbconv(in_channels, out_channels, stride=stride, **drop),
            window_attention=attention(out_channels, partition_type="window", **drop),
            grid_attention=attention(out_channels, partition_type="grid", **drop),
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.layers(x)


class MaxVitBlock(nnx.Module):
    """Layers of one size, the first of which halves it."""

    def __init__(self, layers: Sequence[MaxVitLayer]):
        self.layers = Sequential(*layers)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.layers(x)


class MaxVit(nnx.Module):
    """Images (N, H, W, in_channels) to logits (N, num_classes); sizes are MaxViT-T's unless given.

    Images of any size are taken whose maps divide into partitions; with four blocks, H and W are multiples of
    32·partition_size.

    Args:
      input_size: height and width of the images in pixels, to have them checked at once.
      stem_channels: of the first two convolutions.
      partition_size: rows and columns of tokens that attend to each other.
      block_channels, block_layers: per block.
      head_dim: channels per attention head.
      stochastic_depth_prob: the last layer's; it grows linearly from the first one's 0.
      norm_layer: of the convolutions; attention and MLP have LayerNorm.
      squeeze_ratio, expansion_ratio: channels in a convolution block, in multiples of those it returns.

    Raises:
      UsageError: the map of a block does not divide into partitions.
    """

    def __init__(
        self,
        input_size: Sequence[int] | None = None,
        stem_channels: int = 64,
        partition_size: int = 7,
        block_channels: Sequence[int] = (64, 128, 256, 512),
        block_layers: Sequence[int] = (2, 2, 5, 2),
        head_dim: int = 32,
        stochastic_depth_prob: float = 0.2,
        norm_layer: Layer = PaperBatchNorm,
        activation_layer: Layer = GELU,
        squeeze_ratio: float = 0.25,
        expansion_ratio: float = 4,
        mlp_ratio: int = 4,
        mlp_dropout: float = 0.0,
        attention_dropout: float = 0.0,
        num_classes: int = 1000,
        *,
        in_channels: int = 3,
        rngs: nnx.Rngs,
    ):
        for i in range(len(block_channels) if input_size else 0):
            check_divides([-(-length // 2 ** (i + 2)) for length in input_size], partition_size)
        mbconv = partial(
            MBConv,
            expansion_ratio=expansion_ratio,
            squeeze_ratio=squeeze_ratio,
            activation_layer=activation_layer,
            norm_layer=norm_layer,
        )
        attention = partial(
            PartitionAttentionLayer,
            head_dim=head_dim,
            partition_size=partition_size,
            mlp_ratio=mlp_ratio,
            activation_layer=activation_layer,
            norm_layer=LayerNorm,
            attention_dropout=attention_dropout,
            mlp_dropout=mlp_dropout,
        )
        self.stem = Sequential(
            conv(in_channels, stem_channels, 3, 2, norm_layer=norm_layer, activation_layer=activation_layer, rngs=rngs),
            conv(stem_channels, stem_channels, 3, norm_layer=None, activation_layer=None, rngs=rngs),
        )
        rates = iter(np.linspace(0, stochastic_depth_prob, sum(block_layers)).tolist())
        blocks, channels = [], stem_channels
        for width, depth in zip(block_channels, block_layers, strict=True):
            layers = []
            for i in range(depth):
                layers.append(MaxVitLayer(channels, width, 1 if i else 2, next(rates), mbconv, attention, rngs=rngs))
                channels = width
            blocks.append(MaxVitBlock(layers))
        self.blocks = Sequential(*blocks)
        self.classifier = Sequential(
            AdaptiveAvgPool(1),
            Flatten(),
            LayerNorm(channels, rngs=rngs),
            linear(channels, channels, rngs=rngs),
            Tanh(),
            linear(channels, num_classes, False, rngs=rngs) if num_classes else Identity(),
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.classifier(self.blocks(self.stem(x)))


@register_model(
    head=("classifier.5",),
    paper="Tu et al. 2022, https://arxiv.org/abs/2204.01697",
    weights={"IMAGENET1K_V1": imagenet(83.7, 96.722, 224, 224, "bicubic")},
)
def maxvit_t(*, rngs: nnx.Rngs, **kwargs) -> MaxVit:
    return MaxVit(**kwargs, rngs=rngs)
