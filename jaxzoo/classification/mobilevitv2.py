"""MobileViTv2: MobileViT with attention whose cost is linear in the number of patches.

Mehta and Rastegari 2022, Separable Self-attention for Mobile Vision Transformers, https://arxiv.org/abs/2206.02680.
Reference: timm.models.mobilevit.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from jaxzoo.classification.mobilevit import (
    ConvNormAct,
    MobileViT,
    conv1x1,
    fold,
    register_timm_mobilevit,
    resize_to_patches,
    unfold,
)
from jaxzoo.nn import GroupNorm, NamedSequential, Sequential, SiLU, StochasticDepth, relu
from jaxzoo.nn.precision import wide

LayerNorm2d = partial(GroupNorm, 1)


class LinearSelfAttention(nnx.Module):
    """Every pixel's value, gated by the keys' mean over the patches (§3.2, figure 4): (N, P, L, C) to the same."""

    def __init__(self, dim: int, *, rngs: nnx.Rngs):
        self.dim = dim
        self.qkv_proj = conv1x1(dim, 1 + 2 * dim, rngs=rngs)
        self.out_proj = conv1x1(dim, dim, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        query, key, value = jnp.split(self.qkv_proj(x), (1, 1 + self.dim), -1)
        scores = jax.nn.softmax(wide(query), 2).astype(key.dtype)
        context = (key * scores).sum(2, keepdims=True)
        return self.out_proj(relu(value) * context)


class LinearTransformerBlock(nnx.Module):
    """Linear self-attention and MLP, each after a norm and with a shortcut: (N, P, L, C) to the same."""

    def __init__(self, dim: int, drop_path: float, *, rngs: nnx.Rngs):
        self.norm1 = LayerNorm2d(dim, rngs=rngs)
        self.attn = LinearSelfAttention(dim, rngs=rngs)
        self.drop_path1 = StochasticDepth(drop_path, rngs=rngs)
        self.norm2 = LayerNorm2d(dim, rngs=rngs)
        self.mlp = NamedSequential(
            fc1=conv1x1(dim, 2 * dim, rngs=rngs), act=SiLU(), fc2=conv1x1(2 * dim, dim, rngs=rngs)
        )
        self.drop_path2 = StochasticDepth(drop_path, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.drop_path1(self.attn(self.norm1(x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))


class MobileVitV2Block(nnx.Module):
    """A depthwise convolution, then a transformer that connects equal places of all patches; no fusion (§3.3)."""

    def __init__(self, channels: int, depth: int, drop_path: float, *, rngs: nnx.Rngs):
        dim = channels // 2
        self.conv_kxk = ConvNormAct(channels, channels, 3, groups=channels, rngs=rngs)
        self.conv_1x1 = conv1x1(channels, dim, bias=False, rngs=rngs)
        self.transformer = Sequential(*(LinearTransformerBlock(dim, drop_path, rngs=rngs) for _ in range(depth)))
        self.norm = LayerNorm2d(dim, rngs=rngs)
        self.conv_proj = ConvNormAct(dim, channels, act_layer=None, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = resize_to_patches(x, align_corners=True)  # and stays so
        y = self.norm(self.transformer(unfold(self.conv_1x1(self.conv_kxk(x)))))
        return self.conv_proj(fold(y, *x.shape[1:3]))


def mobilevitv2(width: float, **kwargs) -> MobileViT:
    """MobileViTv2 with `width` times the channels of table 6."""
    stages = ((1, 64), (2, 128), (1, 256, 2), (1, 384, 4), (1, 512, 3))
    stages = [(depth, int(channels * width), *transformer) for depth, channels, *transformer in stages]
    return MobileViT(int(32 * width), 2, stages, 0, MobileVitV2Block, **kwargs)


register_mobilevitv2 = partial(
    register_timm_mobilevit, "Mehta and Rastegari 2022, https://arxiv.org/abs/2206.02680", 288
)


@register_mobilevitv2("mobilevitv2_050", 70.138, 89.92)
def mobilevitv2_050(*, rngs: nnx.Rngs, **kwargs) -> MobileViT:
    return mobilevitv2(0.5, **kwargs, rngs=rngs)


@register_mobilevitv2("mobilevitv2_075", 75.608, 92.744)
def mobilevitv2_075(*, rngs: nnx.Rngs, **kwargs) -> MobileViT:
    return mobilevitv2(0.75, **kwargs, rngs=rngs)


@register_mobilevitv2("mobilevitv2_100", 78.076, 94.17)
def mobilevitv2_100(*, rngs: nnx.Rngs, **kwargs) -> MobileViT:
    return mobilevitv2(1.0, **kwargs, rngs=rngs)


@register_mobilevitv2("mobilevitv2_125", 79.68, 94.858)
def mobilevitv2_125(*, rngs: nnx.Rngs, **kwargs) -> MobileViT:
    return mobilevitv2(1.25, **kwargs, rngs=rngs)


@register_mobilevitv2("mobilevitv2_150", 80.37, 95.074)
def mobilevitv2_150(*, rngs: nnx.Rngs, **kwargs) -> MobileViT:
    return mobilevitv2(1.5, **kwargs, rngs=rngs)


@register_mobilevitv2("mobilevitv2_175", 80.86, 95.256)
def mobilevitv2_175(*, rngs: nnx.Rngs, **kwargs) -> MobileViT:
    return mobilevitv2(1.75, **kwargs, rngs=rngs)


@register_mobilevitv2("mobilevitv2_200", 81.134, 95.362)
def mobilevitv2_200(*, rngs: nnx.Rngs, **kwargs) -> MobileViT:
    return mobilevitv2(2.0, **kwargs, rngs=rngs)
