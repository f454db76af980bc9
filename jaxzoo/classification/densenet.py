"""DenseNet.

Huang et al. 2016, Densely Connected Convolutional Networks, https://arxiv.org/abs/1608.06993.
Reference: torchvision.models.densenet.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from jaxzoo.nn import (
    AvgPool,
    BatchNorm,
    Conv,
    Dropout,
    Identity,
    Linear,
    MaxPool,
    NamedSequential,
    ReLU,
    adaptive_avg_pool,
    flatten,
    init,
    relu,
)
from jaxzoo.registry import imagenet, register_model

conv = partial(Conv, bias=False, kernel_init=init.kaiming_normal())


class DenseLayer(nnx.Module):
    """A 1×1 convolution of all the feature maps before, then a 3×3 that adds some, each after norm and ReLU (§3)."""

    def __init__(
        self,
        num_input_features: int,
        growth_rate: int,
        bn_size: int,
        drop_rate: float,
        memory_efficient: bool,
        *,
        rngs: nnx.Rngs,
    ):
        self.norm1 = BatchNorm(num_input_features, rngs=rngs)
        self.conv1 = conv(num_input_features, bn_size * growth_rate, 1, rngs=rngs)
        self.norm2 = BatchNorm(bn_size * growth_rate, rngs=rngs)
        self.conv2 = conv(bn_size * growth_rate, growth_rate, 3, padding=1, rngs=rngs)
        self.dropout = Dropout(drop_rate, rngs=rngs)
        self.memory_efficient = memory_efficient

    def bottleneck(self, features: list[jax.Array]) -> jax.Array:
        return self.conv1(relu(self.norm1(jnp.concatenate(features, -1))))

    def __call__(self, features: list[jax.Array]) -> jax.Array:
        bottleneck = nnx.remat(DenseLayer.bottleneck) if self.memory_efficient else DenseLayer.bottleneck
        return self.dropout(self.conv2(relu(self.norm2(bottleneck(self, features)))))


class DenseBlock(NamedSequential):
    """Layers that each take the block's input and the outputs of all earlier layers (figure 1)."""

    def __call__(self, x: jax.Array) -> jax.Array:
        features = [x]
        for name in self.order:
            features.append(getattr(self, name)(features))
        return jnp.concatenate(features, -1)


class Transition(NamedSequential):
    """Fewer channels, and half the size, between two blocks (§3)."""

    def __init__(self, num_input_features: int, num_output_features: int, *, rngs: nnx.Rngs):
        super().__init__(
            norm=BatchNorm(num_input_features, rngs=rngs),
            relu=ReLU(),
            conv=conv(num_input_features, num_output_features, 1, rngs=rngs),
            pool=AvgPool(2),
        )


class DenseNet(nnx.Module):
    """DenseNet-BC: images (N, H, W, in_channels), 29 pixels at least, to logits (N, num_classes).

    Args:
      growth_rate: channels that every layer adds, k in the paper.
      block_config: layers per block.
      bn_size: channels of a layer's bottleneck, in multiples of `growth_rate`.
      drop_rate: dropout after every layer.
      memory_efficient: recompute the bottlenecks for the gradient instead of keeping their inputs.
    """

    def __init__(
        self,
        growth_rate: int,
        block_config: Sequence[int],
        num_init_features: int,
        bn_size: int = 4,
        drop_rate: float = 0.0,
        num_classes: int = 1000,
        memory_efficient: bool = False,
        *,
        in_channels: int = 3,
        rngs: nnx.Rngs,
    ):
        features = {
            "conv0": conv(in_channels, num_init_features, 7, 2, 3, rngs=rngs),
            "norm0": BatchNorm(num_init_features, rngs=rngs),
            "relu0": ReLU(),
            "pool0": MaxPool(3, 2, 1),
        }
        channels = num_init_features
        for i, depth in enumerate(block_config, start=1):
            if i > 1:
                features[f"transition{i - 1}"] = Transition(channels, channels // 2, rngs=rngs)
                channels //= 2
            layers = {}
            for j in range(1, depth + 1):
                layers[f"denselayer{j}"] = DenseLayer(
                    channels, growth_rate, bn_size, drop_rate, memory_efficient, rngs=rngs
                )
                channels += growth_rate
            features[f"denseblock{i}"] = DenseBlock(**layers)
        self.features = NamedSequential(**features, norm5=BatchNorm(channels, rngs=rngs))
        self.classifier = Linear(channels, num_classes, bias_init=init.zeros, rngs=rngs) if num_classes else Identity()

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.classifier(flatten(adaptive_avg_pool(relu(self.features(x)), 1)))


register_densenet = partial(
    register_model,
    head=("classifier",),
    tables=("timm.DENSENET", "torchvision.DENSENET"),
    paper="Huang et al. 2016, https://arxiv.org/abs/1608.06993",
)


@register_densenet(timm="densenet121", weights={"IMAGENET1K_V1": imagenet(74.434, 91.972)})
def densenet121(*, rngs: nnx.Rngs, **kwargs) -> DenseNet:
    return DenseNet(32, (6, 12, 24, 16), 64, **kwargs, rngs=rngs)


@register_densenet(timm="densenet161", weights={"IMAGENET1K_V1": imagenet(77.138, 93.56)})
def densenet161(*, rngs: nnx.Rngs, **kwargs) -> DenseNet:
    return DenseNet(48, (6, 12, 36, 24), 96, **kwargs, rngs=rngs)


@register_densenet(timm="densenet169", weights={"IMAGENET1K_V1": imagenet(75.6, 92.806)})
def densenet169(*, rngs: nnx.Rngs, **kwargs) -> DenseNet:
    return DenseNet(32, (6, 12, 32, 32), 64, **kwargs, rngs=rngs)


@register_densenet(timm="densenet201", weights={"IMAGENET1K_V1": imagenet(76.896, 93.37)})
def densenet201(*, rngs: nnx.Rngs, **kwargs) -> DenseNet:
    return DenseNet(32, (6, 12, 48, 32), 64, **kwargs, rngs=rngs)
