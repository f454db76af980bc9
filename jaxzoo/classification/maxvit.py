"""MaxViT.

Tu et al. 2022, MaxViT: Multi-Axis Vision Transformer, https://arxiv.org/abs/2204.01697.
Reference: torchvision.models.maxvit.
"""

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

initialised = {"kernel_init": init.normal(0.02), "bias_init": init.zeros}
conv = partial(ConvNormActivation, **initialised)
pointwise = partial(conv, kernel_size=1, norm_layer=None, activation_layer=None)
linear = partial(Linear, **initialised)
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
                mid, int(out_channels * squeeze_ratio), SiLU, **initialised, rngs=rngs
            ),
            conv_c=pointwise(mid, out_channels, rngs=rngs)[0],
        )
        self.stochastic_depth = StochasticDepth(p_stochastic_dropout, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.proj(x) + self.stochastic_depth(self.layers(x))


class RelativePositionalMultiHeadAttention(nnx.Module):
    """Self-attention of (N, groups, L, C), the L tokens being a square, with a bias for every offset in it (§3.1)."""

    def __init__(self, feat_dim: int, head_dim: int, size: int, *, rngs: nnx.Rngs):
        if feat_dim % head_dim:
            raise ValueError(f"head_dim={head_dim} does not divide feat_dim={feat_dim}")
        self.heads = feat_dim // head_dim
        self.to_qkv = linear(feat_dim, 3 * feat_dim, rngs=rngs)
        self.merge = linear(feat_dim, feat_dim, rngs=rngs)
        table = init.normal(0.02)(rngs.params(), ((2 * size - 1) ** 2, self.heads), jnp.float32)
        self.relative_position_bias_table = nnx.Param(table)
        index = relative_position_index((size, size)).reshape(size**2, size**2)
        self.relative_position_index = IndexBuffer(jnp.asarray(index, jnp.int32))

    def __call__(self, x: jax.Array) -> jax.Array:
        q, k, v = (y.reshape(*x.shape[:-1], self.heads, -1) for y in jnp.split(self.to_qkv(x), 3, -1))
        bias = self.relative_position_bias_table[...][self.relative_position_index[...]]  # (L, L, heads)
        # The reference scales by all channels, where others take those of a head.
        y = attend(q, k, v, scale=x.shape[-1] ** -0.5, bias=bias.transpose(2, 0, 1))
        return self.merge(y.reshape(x.shape))


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
        attention_dropout: float,
        mlp_dropout: float,
        p_stochastic_dropout: float,
        *,
        rngs: nnx.Rngs,
    ):
        self.partition_size, self.partition_type = partition_size, partition_type
        self.attn_layer = Sequential(
            LayerNorm(in_channels, rngs=rngs),
            RelativePositionalMultiHeadAttention(in_channels, head_dim, partition_size, rngs=rngs),
            Dropout(attention_dropout, rngs=rngs),
        )
        self.mlp_layer = Sequential(
            LayerNorm(in_channels, rngs=rngs),
            linear(in_channels, in_channels * mlp_ratio, rngs=rngs),
            activation_layer(),
            linear(in_channels * mlp_ratio, in_channels, rngs=rngs),
            Dropout(mlp_dropout, rngs=rngs),
        )
        self.stochastic_dropout = StochasticDepth(p_stochastic_dropout, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        n, height, width, channels = x.shape
        size, grid = self.partition_size, self.partition_type == "grid"
        if height % size or width % size:
            raise UsageError(
                f"a map of {height} x {width} does not divide into partitions of {size} x {size}: "
                f"give images of multiples of {32 * size} pixels, or another partition_size"
            )
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
    """MBConv, then attention in windows, then on a grid (figure 2)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        squeeze_ratio: float,
        expansion_ratio: float,
        stride: int,
        norm_layer: Layer,
        activation_layer: Layer,
        head_dim: int,
        mlp_ratio: int,
        mlp_dropout: float,
        attention_dropout: float,
        p_stochastic_dropout: float,
        partition_size: int,
        rngs: nnx.Rngs,
    ):
        attention = partial(
            PartitionAttentionLayer,
            out_channels,
            head_dim,
            partition_size,
            mlp_ratio=mlp_ratio,
            activation_layer=activation_layer,
            attention_dropout=attention_dropout,
            mlp_dropout=mlp_dropout,
            p_stochastic_dropout=p_stochastic_dropout,
            rngs=rngs,
        )
        self.layers = NamedSequential(
            MBconv=MBConv(
                in_channels,
                out_channels,
                expansion_ratio,
                squeeze_ratio,
                stride,
                activation_layer,
                norm_layer,
                p_stochastic_dropout,
                rngs=rngs,
            ),
            window_attention=attention("window"),
            grid_attention=attention("grid"),
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

    With four blocks H and W are multiples of 32·partition_size.

    Args:
      stem_channels: of the first two convolutions.
      partition_size: rows and columns of tokens that attend to each other.
      block_channels, block_layers: per block.
      head_dim: channels per attention head.
      stochastic_depth_prob: the last layer's; it grows linearly from the first one's 0.
      norm_layer: of the convolutions; attention and MLP have LayerNorm.
      squeeze_ratio, expansion_ratio: channels in a convolution block, in multiples of those it returns.
    """

    def __init__(
        self,
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
        self.stem = Sequential(
            conv(in_channels, stem_channels, 3, 2, norm_layer=norm_layer, activation_layer=activation_layer, rngs=rngs),
            conv(stem_channels, stem_channels, 3, norm_layer=None, activation_layer=None, rngs=rngs),
        )
        rates = iter(np.linspace(0, stochastic_depth_prob, sum(block_layers)).tolist())
        layer = partial(
            MaxVitLayer,
            squeeze_ratio=squeeze_ratio,
            expansion_ratio=expansion_ratio,
            norm_layer=norm_layer,
            activation_layer=activation_layer,
            head_dim=head_dim,
            mlp_ratio=mlp_ratio,
            mlp_dropout=mlp_dropout,
            attention_dropout=attention_dropout,
            partition_size=partition_size,
            rngs=rngs,
        )
        blocks, channels = [], stem_channels
        for width, depth in zip(block_channels, block_layers, strict=True):
            layers = []
            for i in range(depth):
                layers.append(layer(channels, width, stride=1 if i else 2, p_stochastic_dropout=next(rates)))
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
