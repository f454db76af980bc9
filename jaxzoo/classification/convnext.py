"""ConvNeXt.

Liu et al. 2022, A ConvNet for the 2020s, https://arxiv.org/abs/2201.03545. Reference: torchvision.models.convnext.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxzoo.nn import (
    GELU,
    AdaptiveAvgPool,
    Conv,
    Flatten,
    Identity,
    Layer,
    LayerNorm,
    Linear,
    Sequential,
    StochasticDepth,
    init,
)
from jaxzoo.registry import imagenet, register_model

initialisers = {"kernel_init": init.normal(0.02), "bias_init": init.zeros}
PaperLayerNorm = partial(LayerNorm, eps=1e-6)


class CNBlockConfig(NamedTuple):
    """A stage of blocks: their channels, those of the next stage (None for the last), and their number."""

    input_channels: int
    out_channels: int | None
    num_layers: int


class CNBlock(nnx.Module):
    """Depthwise 7×7, LayerNorm, 1×1 up, GELU, 1×1 down, scaled per channel (figure 4)."""

    def __init__(
        self, dim: int, layer_scale: float, stochastic_depth_prob: float, norm_layer: Layer, *, rngs: nnx.Rngs
    ):
        self.block = Sequential(
            Conv(dim, dim, 7, padding=3, groups=dim, **initialisers, rngs=rngs),
            Identity(),  # the reference permutes to channels last here,
            norm_layer(dim, rngs=rngs),
            Linear(dim, 4 * dim, **initialisers, rngs=rngs),
            GELU(),
            Linear(4 * dim, dim, **initialisers, rngs=rngs),
            Identity(),  # and back here
        )
        self.layer_scale = nnx.Param(jnp.full((dim, 1, 1), layer_scale, jnp.float32))
        self.stochastic_depth = StochasticDepth(stochastic_depth_prob, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.stochastic_depth(self.layer_scale[:, 0, 0] * self.block(x))


class ConvNeXt(nnx.Module):
    """Images (N, H, W, in_channels), 32 pixels at least, to logits (N, num_classes).

    Args:
      block_setting: the four stages.
      stochastic_depth_prob: of the last block; it grows linearly from zero at the first.
      layer_scale: the initial factor of every block's branch.
      block: builds a block, with the arguments of `CNBlock`.
    """

    def __init__(
        self,
        block_setting: Sequence[CNBlockConfig],
        stochastic_depth_prob: float = 0.0,
        layer_scale: float = 1e-6,
        num_classes: int = 1000,
        block: Layer = CNBlock,
        norm_layer: Layer = PaperLayerNorm,
        *,
        in_channels: int = 3,
        rngs: nnx.Rngs,
    ):
        conv, first = partial(Conv, **initialisers, rngs=rngs), block_setting[0].input_channels
        features = [Sequential(conv(in_channels, first, 4, 4), norm_layer(first, rngs=rngs))]
        rates = iter(np.linspace(0, stochastic_depth_prob, sum(stage.num_layers for stage in block_setting)).tolist())
        for channels, out_channels, depth in block_setting:
            blocks = [block(channels, layer_scale, next(rates), norm_layer, rngs=rngs) for _ in range(depth)]
            features.append(Sequential(*blocks))
            if out_channels is not None:
                features.append(Sequential(norm_layer(channels, rngs=rngs), conv(channels, out_channels, 2, 2)))
        self.features = Sequential(*features)
        self.avgpool = AdaptiveAvgPool(1)
        self.classifier = Sequential(
            norm_layer(channels, rngs=rngs),
            Flatten(),
            Linear(channels, num_classes, **initialisers, rngs=rngs) if num_classes else Identity(),
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.classifier(self.avgpool(self.features(x)))


def stages(widths: Sequence[int], depths: Sequence[int]) -> list[CNBlockConfig]:
    return [CNBlockConfig(*stage) for stage in zip(widths, (*widths[1:], None), depths, strict=True)]


register_convnext = partial(
    register_model,
    head=("classifier.2",),
    tables=("timm.CONVNEXT",),
    paper="Liu et al. 2022, https://arxiv.org/abs/2201.03545",
)


@register_convnext(timm="convnext_tiny", weights={"IMAGENET1K_V1": imagenet(82.52, 96.146, 224, 236)})
def convnext_tiny(*, stochastic_depth_prob: float = 0.1, rngs: nnx.Rngs, **kwargs) -> ConvNeXt:
    return ConvNeXt(stages((96, 192, 384, 768), (3, 3, 9, 3)), stochastic_depth_prob, **kwargs, rngs=rngs)


@register_convnext(timm="convnext_small", weights={"IMAGENET1K_V1": imagenet(83.616, 96.65, 224, 230)})
def convnext_small(*, stochastic_depth_prob: float = 0.4, rngs: nnx.Rngs, **kwargs) -> ConvNeXt:
    return ConvNeXt(stages((96, 192, 384, 768), (3, 3, 27, 3)), stochastic_depth_prob, **kwargs, rngs=rngs)


@register_convnext(timm="convnext_base", weights={"IMAGENET1K_V1": imagenet(84.062, 96.87, 224, 232)})
def convnext_base(*, stochastic_depth_prob: float = 0.5, rngs: nnx.Rngs, **kwargs) -> ConvNeXt:
    return ConvNeXt(stages((128, 256, 512, 1024), (3, 3, 27, 3)), stochastic_depth_prob, **kwargs, rngs=rngs)


@register_convnext(timm="convnext_large", weights={"IMAGENET1K_V1": imagenet(84.414, 96.976, 224, 232)})
def convnext_large(*, stochastic_depth_prob: float = 0.5, rngs: nnx.Rngs, **kwargs) -> ConvNeXt:
    return ConvNeXt(stages((192, 384, 768, 1536), (3, 3, 27, 3)), stochastic_depth_prob, **kwargs, rngs=rngs)
