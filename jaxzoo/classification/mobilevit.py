"""MobileViT.

Mehta and Rastegari 2021, MobileViT: Light-weight, General-purpose, and Mobile-friendly Vision Transformer,
https://arxiv.org/abs/2110.02178. Reference: timm.models.mobilevit, on top of timm.models.byobnet.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxzoo.nn import (
    AdaptiveAvgPool,
    BatchNormAct,
    Conv,
    Dropout,
    Flatten,
    Identity,
    Layer,
    LayerNorm,
    NamedSequential,
    Sequential,
    SiLU,
    StochasticDepth,
    attend,
    init,
    resize,
)
from jaxzoo.nn import Linear as TorchLinear
from jaxzoo.preprocess import Preprocess
from jaxzoo.registry import Published, register_model

Linear = partial(TorchLinear, kernel_init=init.normal(0.01), bias_init=init.zeros)
conv1x1 = partial(Conv, kernel_size=1, kernel_init=init.kaiming_normal("fan_out"), bias_init=init.zeros)

PATCH = 2  # height and width in pixels, in all published networks


class ConvNormAct(NamedSequential):
    """Convolution that keeps the size at stride 1, batch norm, activation."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        act_layer: Layer | None = SiLU,
        *,
        rngs: nnx.Rngs,
    ):
        # timm divides a kernel's fan-out by its groups, which makes that of a depthwise one its fan-in.
        kernel_init = init.kaiming_normal("fan_out" if groups == 1 else "fan_in")
        padding = kernel_size // 2
        super().__init__(
            conv=Conv(
                in_channels,
                out_channels,
                kernel_size,
                stride,
                padding,
                groups=groups,
                bias=False,
                kernel_init=kernel_init,
                rngs=rngs,
            ),
            bn=BatchNormAct(out_channels, activation_layer=act_layer, rngs=rngs),
        )


class InvertedResidual(nnx.Module):
    """Expand, filter depthwise, project; around it a shortcut when the shape allows it (MobileNetV2).

    Stochastic depth drops the block's result also where there is no shortcut, as in timm.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, expand_ratio: int, drop_path: float, *, rngs: nnx.Rngs
    ):
        hidden = in_channels * expand_ratio
        self.use_residual = stride == 1 and in_channels == out_channels
        self.conv1_1x1 = ConvNormAct(in_channels, hidden, rngs=rngs)
        self.conv2_kxk = ConvNormAct(hidden, hidden, 3, stride, groups=hidden, rngs=rngs)
        self.conv3_1x1 = ConvNormAct(hidden, out_channels, act_layer=None, rngs=rngs)
        if self.use_residual:
            scale = self.conv3_1x1.bn.scale
            scale[...] = 0 * scale[...]
        self.drop_path = StochasticDepth(drop_path, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.drop_path(self.conv3_1x1(self.conv2_kxk(self.conv1_1x1(x))))
        return x + y if self.use_residual else y


def resize_to_patches(x: jax.Array, align_corners: bool) -> jax.Array:
    """Enlarges (N, H, W, C) to whole patches."""
    size = [-(-length // PATCH) * PATCH for length in x.shape[1:3]]
    return resize(x, size, mode="bilinear", align_corners=align_corners)


def unfold(x: jax.Array) -> jax.Array:
    """(N, H, W, C) to (N, P, L, C): the L pixels at each of the P places in a patch."""
    n, height, width, c = x.shape
    x = x.reshape(n, height // PATCH, PATCH, width // PATCH, PATCH, c).transpose(0, 2, 4, 1, 3, 5)
    return x.reshape(n, PATCH**2, -1, c)


def fold(x: jax.Array, height: int, width: int) -> jax.Array:
    """The inverse of `unfold`."""
    n, *_, c = x.shape
    x = x.reshape(n, PATCH, PATCH, height // PATCH, width // PATCH, c).transpose(0, 3, 1, 4, 2, 5)
    return x.reshape(n, height, width, c)


class Attention(nnx.Module):
    """Multi-head self-attention: (N, L, C) to the same."""

    def __init__(self, dim: int, num_heads: int, *, rngs: nnx.Rngs):
        self.num_heads = num_heads
        self.qkv = Linear(dim, 3 * dim, rngs=rngs)
        self.proj = Linear(dim, dim, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        qkv = self.qkv(x).reshape(*x.shape[:-1], 3, self.num_heads, -1)
        q, k, v = jnp.moveaxis(qkv, -3, 0)  # (N, L, heads, D)
        return self.proj(attend(q, k, v).reshape(x.shape))


class TransformerBlock(nnx.Module):
    """Self-attention and MLP, each after a norm and with a shortcut."""

    def __init__(self, dim: int, drop_path: float, *, rngs: nnx.Rngs):
        self.norm1 = LayerNorm(dim, rngs=rngs)
        self.attn = Attention(dim, 4, rngs=rngs)
        self.drop_path1 = StochasticDepth(drop_path, rngs=rngs)
        self.norm2 = LayerNorm(dim, rngs=rngs)
        self.mlp = NamedSequential(fc1=Linear(dim, 2 * dim, rngs=rngs), act=SiLU(), fc2=Linear(2 * dim, dim, rngs=rngs))
        self.drop_path2 = StochasticDepth(drop_path, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.drop_path1(self.attn(self.norm1(x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))


class MobileVitBlock(nnx.Module):
    """A convolution, a transformer that connects equal places of all patches, and their fusion (§3.1, figure 1b)."""

    def __init__(self, channels: int, dim: int, depth: int, drop_path: float, *, rngs: nnx.Rngs):
        self.conv_kxk = ConvNormAct(channels, channels, 3, rngs=rngs)
        self.conv_1x1 = conv1x1(channels, dim, bias=False, rngs=rngs)
        self.transformer = Sequential(*(TransformerBlock(dim, drop_path, rngs=rngs) for _ in range(depth)))
        self.norm = LayerNorm(dim, rngs=rngs)
        self.conv_proj = ConvNormAct(dim, channels, rngs=rngs)
        self.conv_fusion = ConvNormAct(2 * channels, channels, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = resize_to_patches(self.conv_1x1(self.conv_kxk(x)), align_corners=False)
        n, height, width, c = y.shape
        y = unfold(y).reshape(n * PATCH**2, -1, c)  # stochastic depth drops the places of a patch one by one, as timm's
        y = self.norm(self.transformer(y))
        y = fold(y.reshape(n, PATCH**2, -1, c), height, width)
        y = self.conv_proj(resize(y, x.shape[1:3], mode="bilinear"))
        return self.conv_fusion(jnp.concatenate([x, y], -1))


class MobileViT(nnx.Module):
    """Images (N, H, W, in_channels) to logits (N, num_classes).

    Args:
      stem_channels: of the first convolution.
      expand_ratio: of the inverted residuals.
      stages: number of inverted residuals and channels of each; then arguments of `block`, where the stage ends in one.
      num_features: channels of a last 1×1 convolution, or 0 for none.
      block: builds `block(channels, ..., drop_path)`.
      drop_rate: dropout before the classifier.
      drop_path_rate: rate of stochastic depth in the last block; it grows from 0 in the first.
    """

    def __init__(
        self,
        stem_channels: int,
        expand_ratio: int,
        stages: Sequence[Sequence[int]],
        num_features: int,
        block: Callable[..., nnx.Module],
        num_classes: int = 1000,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        *,
        in_channels: int = 3,
        rngs: nnx.Rngs,
    ):
        rates = iter(np.linspace(0, drop_path_rate, sum(depth + bool(rest) for depth, _, *rest in stages)).tolist())
        self.stem = ConvNormAct(in_channels, stem_channels, 3, 2, rngs=rngs)
        channels, built = stem_channels, []
        for i, (depth, width, *transformer) in enumerate(stages):
            blocks = []
            for j in range(depth):
                stride = 2 if i > 0 and j == 0 else 1
                blocks.append(InvertedResidual(channels, width, stride, expand_ratio, next(rates), rngs=rngs))
                channels = width
            if transformer:
                blocks.append(block(channels, *transformer, next(rates), rngs=rngs))
            built.append(Sequential(*blocks))
        self.stages = Sequential(*built)
        self.final_conv = ConvNormAct(channels, num_features, rngs=rngs) if num_features else Identity()
        self.head = NamedSequential(
            global_pool=NamedSequential(pool=AdaptiveAvgPool(1), flatten=Flatten()),
            drop=Dropout(drop_rate, rngs=rngs),
            fc=Linear(num_features or channels, num_classes, rngs=rngs) if num_classes else Identity(),
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.final_conv(self.stages(self.stem(x))))


def register_timm_mobilevit(paper: str, resize: int, name: str, acc1: float, acc5: float):
    """Registers a network of timm's by the size that evaluation resizes to, and timm's measured accuracy."""
    preprocess = Preprocess(256, resize, "bicubic", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    weights = {"cvnets_in1k": Published(preprocess, {"acc@1": acc1, "acc@5": acc5})}
    return register_model(head=("head.fc",), paper=paper, twin=f"timm:{name}", input_size=256, weights=weights)


register_mobilevit = partial(register_timm_mobilevit, "Mehta and Rastegari 2021, https://arxiv.org/abs/2110.02178", 284)


# Table 4: inverted residuals, channels, and width and depth of the transformer of every stage.
@register_mobilevit("mobilevit_xxs", 68.932, 88.942)
def mobilevit_xxs(*, rngs: nnx.Rngs, **kwargs) -> MobileViT:
    stages = ((1, 16), (3, 24), (1, 48, 64, 2), (1, 64, 80, 4), (1, 80, 96, 3))
    return MobileViT(16, 2, stages, 320, MobileVitBlock, **kwargs, rngs=rngs)


@register_mobilevit("mobilevit_xs", 74.636, 92.346)
def mobilevit_xs(*, rngs: nnx.Rngs, **kwargs) -> MobileViT:
    stages = ((1, 32), (3, 48), (1, 64, 96, 2), (1, 80, 120, 4), (1, 96, 144, 3))
    return MobileViT(16, 4, stages, 384, MobileVitBlock, **kwargs, rngs=rngs)


@register_mobilevit("mobilevit_s", 78.312, 94.144)
def mobilevit_s(*, rngs: nnx.Rngs, **kwargs) -> MobileViT:
    stages = ((1, 32), (3, 64), (1, 96, 144, 2), (1, 128, 192, 4), (1, 160, 240, 3))
    return MobileViT(16, 4, stages, 640, MobileVitBlock, **kwargs, rngs=rngs)
