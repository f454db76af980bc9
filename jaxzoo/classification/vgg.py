"""VGG.

Simonyan and Zisserman 2014, Very Deep Convolutional Networks for Large-Scale Image Recognition,
https://arxiv.org/abs/1409.1556, table 1. Reference: torchvision.models.vgg.
"""

from collections.abc import Sequence
from functools import partial

import jax
from flax import nnx

from jaxzoo.nn import (
    AdaptiveAvgPool,
    BatchNorm,
    Conv,
    Dropout,
    Identity,
    Linear,
    MaxPool,
    ReLU,
    Sequential,
    flatten,
    init,
)
from jaxzoo.preprocess import Preprocess
from jaxzoo.registry import Published, imagenet, register_model

conv_initialisers = {"kernel_init": init.kaiming_normal("fan_out"), "bias_init": init.zeros}
linear_initialisers = {"kernel_init": init.normal(0.01), "bias_init": init.zeros}

# Table 1: numbers of channels, M for max pooling.
A = (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")
B = (64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")
D = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")
E = (64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512, 512, 512, 512, "M")


def make_layers(
    cfg: Sequence[int | str],
    batch_norm: bool = False,
    init_weights: bool = True,
    *,
    in_channels: int = 3,
    rngs: nnx.Rngs,
) -> Sequential:
    """The convolutions of a table, and its pools; `init_weights` as of `VGG`."""
    layers = []
    for width in cfg:
        if width == "M":
            layers.append(MaxPool(2, 2))
            continue
        initialisers = conv_initialisers if init_weights else {}
        layers.append(Conv(in_channels, width, 3, padding=1, **initialisers, rngs=rngs))
        layers += [BatchNorm(width, rngs=rngs), ReLU()] if batch_norm else [ReLU()]
        in_channels = width
    return Sequential(*layers)


class VGG(nnx.Module):
    """Images (N, H, W, in_channels), 32 pixels at least, to logits (N, num_classes).

    Args:
      features: maps images to 512 channels; see `make_layers`.
      init_weights: start the classifier's weights as the reference's do; otherwise from torch's default.
    """

    def __init__(
        self,
        features: nnx.Module,
        num_classes: int = 1000,
        init_weights: bool = True,
        dropout: float = 0.5,
        *,
        rngs: nnx.Rngs,
    ):
        linear = partial(Linear, **(linear_initialisers if init_weights else {}), rngs=rngs)
        self.features = features
        self.avgpool = AdaptiveAvgPool(7)
        self.classifier = Sequential(
            linear(512 * 7 * 7, 4096),
            ReLU(),
            Dropout(dropout, rngs=rngs),
            linear(4096, 4096),
            ReLU(),
            Dropout(dropout, rngs=rngs),
            linear(4096, num_classes) if num_classes else Identity(),
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.classifier(flatten(self.avgpool(self.features(x))))


def vgg(
    cfg: Sequence[int | str], batch_norm: bool, in_channels: int, *, init_weights: bool = True, rngs: nnx.Rngs, **kwargs
) -> VGG:
    features = make_layers(cfg, batch_norm, init_weights, in_channels=in_channels, rngs=rngs)
    return VGG(features, init_weights=init_weights, **kwargs, rngs=rngs)


# Liu et al. 2016 (SSD) trained these on pixels of 0 to 255 less the mean, so their deviation is one step of a pixel.
FEATURES = Published(Preprocess(224, 256, mean=(0.48235, 0.45882, 0.40784), std=(0.00392156862745098,) * 3))

register_vgg = partial(
    register_model,
    head=("classifier.6",),
    tables=("timm.VGG",),
    paper="Simonyan and Zisserman 2014, https://arxiv.org/abs/1409.1556",
)


@register_vgg(timm="vgg11", weights={"IMAGENET1K_V1": imagenet(69.02, 88.628)})
def vgg11(*, in_channels: int = 3, rngs: nnx.Rngs, **kwargs) -> VGG:
    return vgg(A, False, in_channels, **kwargs, rngs=rngs)


@register_vgg(timm="vgg11_bn", weights={"IMAGENET1K_V1": imagenet(70.37, 89.81)})
def vgg11_bn(*, in_channels: int = 3, rngs: nnx.Rngs, **kwargs) -> VGG:
    return vgg(A, True, in_channels, **kwargs, rngs=rngs)


@register_vgg(timm="vgg13", weights={"IMAGENET1K_V1": imagenet(69.928, 89.246)})
def vgg13(*, in_channels: int = 3, rngs: nnx.Rngs, **kwargs) -> VGG:
    return vgg(B, False, in_channels, **kwargs, rngs=rngs)


@register_vgg(timm="vgg13_bn", weights={"IMAGENET1K_V1": imagenet(71.586, 90.374)})
def vgg13_bn(*, in_channels: int = 3, rngs: nnx.Rngs, **kwargs) -> VGG:
    return vgg(B, True, in_channels, **kwargs, rngs=rngs)


@register_vgg(timm="vgg16", weights={"IMAGENET1K_V1": imagenet(71.592, 90.382), "IMAGENET1K_FEATURES": FEATURES})
def vgg16(*, in_channels: int = 3, rngs: nnx.Rngs, **kwargs) -> VGG:
    return vgg(D, False, in_channels, **kwargs, rngs=rngs)


@register_vgg(timm="vgg16_bn", weights={"IMAGENET1K_V1": imagenet(73.36, 91.516)})
def vgg16_bn(*, in_channels: int = 3, rngs: nnx.Rngs, **kwargs) -> VGG:
    return vgg(D, True, in_channels, **kwargs, rngs=rngs)


@register_vgg(timm="vgg19", weights={"IMAGENET1K_V1": imagenet(72.376, 90.876)})
def vgg19(*, in_channels: int = 3, rngs: nnx.Rngs, **kwargs) -> VGG:
    return vgg(E, False, in_channels, **kwargs, rngs=rngs)


@register_vgg(timm="vgg19_bn", weights={"IMAGENET1K_V1": imagenet(74.218, 91.842)})
def vgg19_bn(*, in_channels: int = 3, rngs: nnx.Rngs, **kwargs) -> VGG:
    return vgg(E, True, in_channels, **kwargs, rngs=rngs)
