"""ConvNeXt.

Liu et al. 2022, A ConvNet for the 2020s, https://arxiv.org/abs/2201.03545. Reference: torchvision.models.convnext.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxzoo.nn import (
    GELU,
    AdaptiveAvgPool,
    Conv,
    ConvNormActivation,
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

start = {"kernel_init": init.normal(0.02), "bias_init": init.zeros}
PaperLayerNorm = partial(LayerNorm, eps=1e-6)


class CNBlock(nnx.Module):
    """Depthwise 7×7, LayerNorm, 1×1 up, GELU, 1×1 down, scaled per channel (figure 4)."""

    def __init__(
        self, dim: int, layer_scale: float, stochastic_depth_prob: float, norm_layer: Layer, *, rngs: nnx.Rngs
    ):
        self.block = Sequential(
            Conv(dim, dim, 7, padding=3, groups=dim, **start, rngs=rngs),
            Identity(),  # the reference permutes to channels last here,
            norm_layer(dim, rngs=rngs),
            Linear(dim, 4 * dim, **start, rngs=rngs),
            GELU(),
            Linear(4 * dim, dim, **start, rngs=rngs),
            Identity(),  # and back here
        )
        self.layer_scale = nnx.Param(jnp.full((dim, 1, 1), layer_scale, jnp.float32))
        self.stochastic_depth = StochasticDepth(stochastic_depth_prob, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.stochastic_depth(self.layer_scale[:, 0, 0] * self.block(x))


class ConvNeXt(nnx.Module):
    """Images (N, H, W, in_channels), 32 pixels at least, to logits (N, num_classes).

    Args:
      widths, depths: channels and blocks of each stage.
      stochastic_depth_prob: of the last block; it grows linearly from zero at the first.
      layer_scale: the initial factor of every block's branch.
    """

    def __init__(
        self,
        widths: Sequence[int],
        depths: Sequence[int],
        stochastic_depth_prob: float = 0.0,
        layer_scale: float = 1e-6,
        num_classes: int = 1000,
        norm_layer: Layer = PaperLayerNorm,
        *,
        in_channels: int = 3,
        rngs: nnx.Rngs,
    ):
        stem = ConvNormActivation(
            in_channels, widths[0], 4, 4, 0, norm_layer=norm_layer, activation_layer=None, bias=True, **start, rngs=rngs
        )
        features, rates = [stem], iter(np.linspace(0, stochastic_depth_prob, sum(depths)).tolist())
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            if i > 0:
                shrink = Conv(widths[i - 1], width, 2, 2, **start, rngs=rngs)
                features.append(Sequential(norm_layer(widths[i - 1], rngs=rngs), shrink))
            blocks = [CNBlock(width, layer_scale, next(rates), norm_layer, rngs=rngs) for _ in range(depth)]
            features.append(Sequential(*blocks))
        self.features = Sequential(*features)
        self.avgpool = AdaptiveAvgPool(1)
        self.classifier = Sequential(
            norm_layer(widths[-1], rngs=rngs),
            Flatten(),
            Linear(widths[-1], num_classes, **start, rngs=rngs) if num_classes else Identity(),
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.classifier(self.avgpool(self.features(x)))


register_convnext = partial(
    register_model,
    head=("classifier.2",),
    tables=("timm.CONVNEXT",),
    paper="Liu et al. 2022, https://arxiv.org/abs/2201.03545",
)


@register_convnext(timm="convnext_tiny", weights={"IMAGENET1K_V1": imagenet(82.52, 96.146, 224, 236)})
def convnext_tiny(*, stochastic_depth_prob: float = 0.1, rngs: nnx.Rngs, **kwargs) -> ConvNeXt:
    return ConvNeXt((96, 192, 384, 768), (3, 3, 9, 3), stochastic_depth_prob, **kwargs, rngs=rngs)


@register_convnext(timm="convnext_small", weights={"IMAGENET1K_V1": imagenet(83.616, 96.65, 224, 230)})
def convnext_small(*, stochastic_depth_prob: float = 0.4, rngs: nnx.Rngs, **kwargs) -> ConvNeXt:
    return ConvNeXt((96, 192, 384, 768), (3, 3, 27, 3), stochastic_depth_prob, **kwargs, rngs=rngs)


@register_convnext(timm="convnext_base", weights={"IMAGENET1K_V1": imagenet(84.062, 96.87, 224, 232)})
def convnext_base(*, stochastic_depth_prob: float = 0.5, rngs: nnx.Rngs, **kwargs) -> ConvNeXt:
    return ConvNeXt((128, 256, 512, 1024), (3, 3, 27, 3), stochastic_depth_prob, **kwargs, rngs=rngs)


@register_convnext(timm="convnext_large", weights={"IMAGENET1K_V1": imagenet(84.414, 96.976, 224, 232)})
def convnext_large(*, stochastic_depth_prob: float = 0.5, rngs: nnx.Rngs, **kwargs) -> ConvNeXt:
    return ConvNeXt((192, 384, 768, 1536), (3, 3, 27, 3), stochastic_depth_prob, **kwargs, rngs=rngs)
