"""Swin Transformer, versions 1 and 2.

Liu et al. 2021, Swin Transformer: Hierarchical Vision Transformer using Shifted Windows, https://arxiv.org/abs/2103.14030;
Liu et al. 2022, Swin Transformer V2: Scaling Up Capacity and Resolution, https://arxiv.org/abs/2111.09883.
Reference: torchvision.models.swin_transformer.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxzoo.errors import UsageError
from jaxzoo.nn import (
    GELU,
    MLP,
    AdaptiveAvgPool,
    Buffer,
    Conv,
    Dropout,
    Identity,
    IndexBuffer,
    Layer,
    LayerNorm,
    Linear,
    ReLU,
    Sequential,
    StochasticDepth,
    affine,
    attend,
    flatten,
    init,
    relative_position_index,
    window_partition,
    window_reverse,
)
from jaxzoo.nn.precision import wide
from jaxzoo.registry import imagenet, register_model

linear = partial(Linear, kernel_init=init.normal(0.02), bias_init=init.zeros)


def _relative_coords_table(window: Sequence[int]) -> np.ndarray:
    """(1, 2·rows - 1, 2·columns - 1, 2): offsets on the log scale of Swin V2, §3.3, with ±8 at the window's edge."""
    rows, columns = (np.arange(1 - n, n, dtype=np.float32) / max(n - 1, 1) * 8 for n in window)
    offset = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1)[None]
    return np.sign(offset) * np.log2(np.abs(offset) + 1) / 3


def _shift_penalty(size: Sequence[int], window_size: Sequence[int], shift_size: Sequence[int]) -> np.ndarray:
    """(windows, L, L): -100 between tokens that are neighbours only because the shift is cyclic."""

    def regions(length: int, w: int, s: int) -> np.ndarray:
        padded = -(-length // w) * w
        return np.digitize(np.arange(padded), [padded - w, padded - s]) if s else np.zeros(padded, int)

    rows, columns = (regions(*axis) for axis in zip(size, window_size, shift_size, strict=True))
    region = window_partition((3 * rows[:, None] + columns)[None], window_size)[0].reshape(-1, math.prod(window_size))
    return np.where(region[:, :, None] == region[:, None], 0.0, -100.0)


def to_windows(
    x: jax.Array, bias: jax.Array | None, window_size: Sequence[int], shift_size: Sequence[int]
) -> jax.Array:
    """(N, H, W, C) plus `bias` to (N, windows, L, C): padded to whole windows, shifted cyclically, partitioned.

    The bias is that of the projection that made `x`, of zeros in the padding too: projecting before it saves work.
    """
    pads = [(0, -length % w) for length, w in zip(x.shape[1:3], window_size, strict=True)]
    x = jnp.pad(x, [(0, 0), *pads, (0, 0)])
    x = x if bias is None else x + bias.astype(x.dtype)
    x = window_partition(jnp.roll(x, [-s for s in shift_size], (1, 2)), window_size)
    return x.reshape(*x.shape[:2], -1, x.shape[-1])


def from_windows(x: jax.Array, size: Sequence[int], window_size: Sequence[int], shift_size: Sequence[int]) -> jax.Array:
    """(N, windows, L, C) back to (N, H, W, C), without padding, for a map of this size."""
    counts = [-(-length // w) for length, w in zip(size, window_size, strict=True)]
    x = window_reverse(x.reshape(*x.shape[:2], *window_size, x.shape[-1]), counts)
    return jnp.roll(x, shift_size, (1, 2))[:, : size[0], : size[1]]


def position_bias(
    table: jax.Array, index: jax.Array, size: Sequence[int], window_size: Sequence[int], shift_size: Sequence[int]
) -> jax.Array:
    """The bias of a window's scores: (heads, Q, L), or (windows, heads, Q, L) where they shift.

    Of a window's L tokens, Q are on a map of this size where one window spans it, and all where several do.

    Args:
      table: (offsets, heads), by the offset of two tokens.
      index: (L·L,), each pair's row of the table.
    """
    length = math.prod(window_size)
    bias = table[index].reshape(length, length, -1).transpose(2, 0, 1)
    if any(shift_size):
        penalty = _shift_penalty(size, window_size, shift_size)[:, None]
        bias = bias + jnp.asarray(penalty, bias.dtype)
    rows, columns = map(min, size, window_size)
    bias = bias.reshape(*bias.shape[:-2], *window_size, length)[..., :rows, :columns, :]
    return bias.reshape(*bias.shape[:-3], rows * columns, length)


def shifted_window_attention(
    x: jax.Array,
    qkv_kernel: jax.Array,
    qkv_bias: jax.Array | None,
    table: jax.Array,
    index: jax.Array,
    window_size: Sequence[int],
    shift_size: Sequence[int],
    num_heads: int,
    scaled: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]],
    dropout: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    """Self-attention inside windows of (N, H, W, C), whose heads are still to be projected (V1, §3.2).

    Args:
      table, index: see `position_bias`.
      scaled: makes of queries and keys (..., heads, D) those whose products are the scores.
      dropout: of the attention weights.
    """
    size = x.shape[1:3]
    # Where one window spans an axis, nothing is shifted, and the padding asks for nothing.
    shift_size = [0 if length <= w else s for length, w, s in zip(size, window_size, shift_size, strict=True)]
    asking = [*map(min, size, window_size)]
    biases = (None, None, None) if qkv_bias is None else jnp.split(qkv_bias, 3)
    parts = zip(jnp.split(affine(x, qkv_kernel), 3, -1), biases, (asking, window_size, window_size), strict=True)
    q, k, v = (to_windows(*part, shift_size) for part in parts)
    q, k, v = (y.reshape(*y.shape[:-1], num_heads, -1) for y in (q, k, v))
    bias = position_bias(table, index, size, window_size, shift_size)
    y = attend(*scaled(q, k), v, scale=1.0, bias=bias, dropout=dropout)
    return from_windows(y.reshape(*y.shape[:-2], -1), size, asking, shift_size)


def _resample_offsets(table: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """(o·o, heads) to the `shape` (O·O, heads): position biases for square windows of another size, as timm does.

    The old offsets are spread so that near ones stay near: their distances from 0 grow geometrically (BEiT's, Bao et
    al. 2021). Between them the table is linear.
    """
    old, new = (math.isqrt(length) for length in (len(table), shape[0]))
    if old**2 != len(table) or new**2 != shape[0] or table.shape[1] != shape[1]:
        raise UsageError(f"position biases of shape {table.shape} cannot become those of {tuple(shape)}")
    low, high = 1.01, 1.5  # the ratio of successive distances, by bisection
    while high - low > 1e-6:
        ratio = (low + high) / 2
        low, high = (low, ratio) if (1 - ratio ** (old // 2)) / (1 - ratio) > new // 2 else (ratio, high)
    distances = np.cumsum(ratio ** np.arange(old // 2))
    points = np.concatenate([-distances[::-1], [0], distances])
    offsets = np.arange(new) - new // 2
    weights = np.stack([np.interp(offsets, points, row) for row in np.eye(old)], 1)
    grid = np.asarray(table, np.float64).reshape(old, old, -1)
    return np.einsum("ab,cd,bdh->ach", weights, weights, grid).reshape(shape).astype(table.dtype)


class ShiftedWindowAttention(nnx.Module):
    """Self-attention inside windows, whose grid every other block shifts: (N, H, W, C) to the same (V1, §3.2)."""

    resampled = {"relative_position_bias_table": _resample_offsets}  # how weights for windows of another size are read

    def __init__(
        self,
        dim: int,
        window_size: Sequence[int],
        shift_size: Sequence[int],
        num_heads: int,
        qkv_bias: bool = True,
        proj_bias: bool = True,
        attention_dropout: float = 0.0,
        dropout: float = 0.0,
        *,
        rngs: nnx.Rngs,
    ):
        self.window_size, self.shift_size, self.num_heads = tuple(window_size), tuple(shift_size), num_heads
        self.qkv = linear(dim, 3 * dim, qkv_bias, rngs=rngs)
        self.proj = linear(dim, dim, proj_bias, rngs=rngs)
        self.attention_dropout = Dropout(attention_dropout, rngs=rngs)
        self.dropout = Dropout(dropout, rngs=rngs)
        self.define_position_bias(rngs)
        self.relative_position_index = IndexBuffer(jnp.asarray(relative_position_index(window_size), jnp.int32))

    def define_position_bias(self, rngs: nnx.Rngs) -> None:
        offsets = math.prod(2 * w - 1 for w in self.window_size)
        table = init.normal(0.02)(rngs.params(), (offsets, self.num_heads), jnp.float32)
        self.relative_position_bias_table = nnx.Param(table)

    def attend(self, x: jax.Array, qkv_bias: jax.Array | None, table: jax.Array, scaled: Callable) -> jax.Array:
        projection = self.qkv.kernel[...], qkv_bias
        windows = self.window_size, self.shift_size, self.num_heads
        positions = table, self.relative_position_index[...]
        y = shifted_window_attention(x, *projection, *positions, *windows, scaled, self.attention_dropout)
        return self.dropout(self.proj(y))

    def __call__(self, x: jax.Array) -> jax.Array:
        bias = None if self.qkv.bias is None else self.qkv.bias[...]
        table = self.relative_position_bias_table[...]
        return self.attend(x, bias, table, lambda q, k: (q * q.shape[-1] ** -0.5, k))


class ShiftedWindowAttentionV2(ShiftedWindowAttention):
    """With scaled cosine scores, and position biases from a small network of the offsets (V2, §3.2 and §3.3)."""

    def define_position_bias(self, rngs: nnx.Rngs) -> None:
        self.relative_coords_table = Buffer(jnp.asarray(_relative_coords_table(self.window_size)))
        self.logit_scale = nnx.Param(jnp.full((self.num_heads, 1, 1), math.log(10), jnp.float32))
        self.cpb_mlp = Sequential(linear(2, 512, rngs=rngs), ReLU(), linear(512, self.num_heads, False, rngs=rngs))

    def __call__(self, x: jax.Array) -> jax.Array:
        bias = None
        if self.qkv.bias is not None:  # keys have none: the checkpoint's numbers there stay unused and untrained
            third = self.qkv.out_features // 3
            bias = self.qkv.bias[...].at[third:-third].set(0)
        coords = self.relative_coords_table[...].astype(self.cpb_mlp[0].kernel[...].dtype)
        table = 16 * jax.nn.sigmoid(self.cpb_mlp(coords).reshape(-1, self.num_heads))
        scale = self.logit_scale[..., 0].astype(x.dtype)  # (heads, 1)
        scale = jnp.exp(jnp.where(scale > math.log(100), math.log(100), scale))
        return self.attend(x, bias, table, lambda q, k: (_unit(q) * scale, _unit(k)))


def _unit(x: jax.Array) -> jax.Array:
    """Vectors of length 1; like `torch.nn.functional.normalize`, those shorter than 1e-12 are divided by that."""
    y = wide(x)
    square = jnp.sum(y * y, -1, keepdims=True)
    return (y * jax.lax.rsqrt(jnp.maximum(square, 1e-24))).astype(x.dtype)


class SwinTransformerBlock(nnx.Module):
    """Window attention and MLP, each after a norm and with a shortcut (V1, figure 3b).

    Args:
      attn_layer: builds the attention, with the arguments of `ShiftedWindowAttention`, which it is unless given.
    """

    attention = ShiftedWindowAttention

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: Sequence[int],
        shift_size: Sequence[int],
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        stochastic_depth_prob: float = 0.0,
        norm_layer: Layer = LayerNorm,
        attn_layer: Layer | None = None,
        *,
        rngs: nnx.Rngs,
    ):
        self.norm1 = norm_layer(dim, rngs=rngs)
        self.attn = (attn_layer or self.attention)(
            dim, window_size, shift_size, num_heads, attention_dropout=attention_dropout, dropout=dropout, rngs=rngs
        )
        self.stochastic_depth = StochasticDepth(stochastic_depth_prob, rngs=rngs)
        self.norm2 = norm_layer(dim, rngs=rngs)
        self.mlp = MLP(
            dim,
            [int(dim * mlp_ratio), dim],
            GELU,
            dropout,
            kernel_init=init.normal(0.02),
            bias_init=init.zeros,
            rngs=rngs,
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.stochastic_depth(self.attn(self.norm1(x)))
        return x + self.stochastic_depth(self.mlp(self.norm2(x)))


class SwinTransformerBlockV2(SwinTransformerBlock):
    """The same with the norms after attention and MLP (V2, §3.2)."""

    attention = ShiftedWindowAttentionV2

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.stochastic_depth(self.norm1(self.attn(x)))
        return x + self.stochastic_depth(self.norm2(self.mlp(x)))


def _merge(x: jax.Array) -> jax.Array:
    """(N, H, W, C) to (N, ⌈H/2⌉, ⌈W/2⌉, 4 C), each 2×2 patch column by column."""
    n, height, width, channels = x.shape
    x = jnp.pad(x, [(0, 0), (0, height % 2), (0, width % 2), (0, 0)])
    x = x.reshape(n, -(-height // 2), 2, -(-width // 2), 2, channels)
    return x.transpose(0, 1, 3, 4, 2, 5).reshape(n, x.shape[1], x.shape[3], 4 * channels)


class PatchMerging(nnx.Module):
    """Halves the map and doubles the channels (V1, §3.1)."""

    def __init__(self, dim: int, norm_layer: Layer = LayerNorm, *, rngs: nnx.Rngs):
        self.reduction = linear(4 * dim, 2 * dim, False, rngs=rngs)
        self.norm = norm_layer(4 * dim, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.reduction(self.norm(_merge(x)))


class PatchMergingV2(nnx.Module):
    """The same with the norm after the reduction."""

    def __init__(self, dim: int, norm_layer: Layer = LayerNorm, *, rngs: nnx.Rngs):
        self.reduction = linear(4 * dim, 2 * dim, False, rngs=rngs)
        self.norm = norm_layer(2 * dim, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.norm(self.reduction(_merge(x)))


class SwinTransformer(nnx.Module):
    """Images (N, H, W, in_channels) of any size to logits (N, num_classes); sizes are Swin-T's unless given.

    Args:
      patch_size: rows and columns of pixels per token.
      embed_dim: channels of the first stage; each further stage has twice as many.
      depths, num_heads: per stage.
      window_size: rows and columns of tokens; larger than the feature map is allowed.
      stochastic_depth_prob: the last block's; it grows linearly from the first one's 0.
    """

    def __init__(
        self,
        patch_size: Sequence[int] = (4, 4),
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: Sequence[int] = (7, 7),
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        stochastic_depth_prob: float = 0.1,
        num_classes: int = 1000,
        norm_layer: Layer = LayerNorm,
        block: type[SwinTransformerBlock] = SwinTransformerBlock,
        downsample_layer: Layer = PatchMerging,
        *,
        in_channels: int = 3,
        rngs: nnx.Rngs,
    ):
        embed = Conv(in_channels, embed_dim, patch_size, patch_size, rngs=rngs)
        features = [Sequential(embed, Identity(), norm_layer(embed_dim, rngs=rngs))]  # torch permutes to NHWC under 1
        rates = iter(np.linspace(0, stochastic_depth_prob, sum(depths)).tolist())
        for stage, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
            dim = embed_dim * 2**stage
            if stage:
                features.append(downsample_layer(dim // 2, norm_layer, rngs=rngs))
            blocks = [
                block(
                    dim,
                    heads,
                    window_size,
                    [w // 2 if i % 2 else 0 for w in window_size],
                    mlp_ratio,
                    dropout,
                    attention_dropout,
                    next(rates),
                    norm_layer,
                    rngs=rngs,
                )
                for i in range(depth)
            ]
            features.append(Sequential(*blocks))
        self.features = Sequential(*features)
        self.norm = norm_layer(dim, rngs=rngs)
        self.avgpool = AdaptiveAvgPool(1)
        self.head = linear(dim, num_classes, rngs=rngs) if num_classes else Identity()

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.norm(self.features(x))
        return self.head(flatten(self.avgpool(x)))


V2 = {"window_size": (8, 8), "block": SwinTransformerBlockV2, "downsample_layer": PatchMergingV2}
TINY = {"stochastic_depth_prob": 0.2}
SMALL = {"depths": (2, 2, 18, 2), "stochastic_depth_prob": 0.3}
BASE = {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32), "stochastic_depth_prob": 0.5}


register_swin = partial(
    register_model,
    head=("head",),
    tables=("timm.SWIN", "microsoft.SWIN"),
    paper="Liu et al. 2021, https://arxiv.org/abs/2103.14030",
)
register_swin_v2 = partial(
    register_model,
    head=("head",),
    tables=("timm.SWIN_V2", "microsoft.SWIN_V2"),
    input_size=256,
    paper="Liu et al. 2022, https://arxiv.org/abs/2111.09883",
)


@register_swin(
    timm="swin_tiny_patch4_window7_224", weights={"IMAGENET1K_V1": imagenet(81.474, 95.776, 224, 232, "bicubic")}
)
def swin_t(*, rngs: nnx.Rngs, **kwargs) -> SwinTransformer:
    return SwinTransformer(**TINY | kwargs, rngs=rngs)


@register_swin(
    timm="swin_small_patch4_window7_224", weights={"IMAGENET1K_V1": imagenet(83.196, 96.36, 224, 246, "bicubic")}
)
def swin_s(*, rngs: nnx.Rngs, **kwargs) -> SwinTransformer:
    return SwinTransformer(**SMALL | kwargs, rngs=rngs)


@register_swin(
    timm="swin_base_patch4_window7_224", weights={"IMAGENET1K_V1": imagenet(83.582, 96.64, 224, 238, "bicubic")}
)
def swin_b(*, rngs: nnx.Rngs, **kwargs) -> SwinTransformer:
    return SwinTransformer(**BASE | kwargs, rngs=rngs)


@register_swin_v2(
    timm="swinv2_tiny_window8_256", weights={"IMAGENET1K_V1": imagenet(82.072, 96.132, 256, 260, "bicubic")}
)
def swin_v2_t(*, rngs: nnx.Rngs, **kwargs) -> SwinTransformer:
    return SwinTransformer(**V2 | TINY | kwargs, rngs=rngs)


@register_swin_v2(
    timm="swinv2_small_window8_256", weights={"IMAGENET1K_V1": imagenet(83.712, 96.816, 256, 260, "bicubic")}
)
def swin_v2_s(*, rngs: nnx.Rngs, **kwargs) -> SwinTransformer:
    return SwinTransformer(**V2 | SMALL | kwargs, rngs=rngs)


@register_swin_v2(
    timm="swinv2_base_window8_256", weights={"IMAGENET1K_V1": imagenet(84.112, 96.864, 256, 272, "bicubic")}
)
def swin_v2_b(*, rngs: nnx.Rngs, **kwargs) -> SwinTransformer:
    return SwinTransformer(**V2 | BASE | kwargs, rngs=rngs)
