"""U-Net on ResNets.

Ronneberger et al. 2015, U-Net: Convolutional Networks for Biomedical Image Segmentation,
https://arxiv.org/abs/1505.04597. Reference: segmentation_models_pytorch.Unet, which differs from the paper: its
contracting path is a ResNet, convolutions are padded and followed by batch norm, and small maps are enlarged to the
nearest pixel where the paper has transposed convolutions.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from jaxzoo.classification.resnet import resnet18, resnet34, resnet50
from jaxzoo.nn import Conv, ConvNormActivation, IntermediateLayers, Sequential, init, resize
from jaxzoo.registry import register_model

CHANNELS = (256, 128, 64, 32, 16)  # of the expansive path, coarse to fine


class DecoderBlock(nnx.Module):
    """Enlarges features to a size, puts those of the encoder beside them, and convolves twice."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int, *, rngs: nnx.Rngs):
        conv = partial(ConvNormActivation, kernel_init=init.kaiming_uniform, rngs=rngs)
        self.conv1 = conv(in_channels + skip_channels, out_channels)
        self.conv2 = conv(out_channels, out_channels)

    def __call__(self, x: jax.Array, size: tuple[int, int], skip: jax.Array | None = None) -> jax.Array:
        x = resize(x, size)
        x = x if skip is None else jnp.concatenate([x, skip], -1)
        return self.conv2(self.conv1(x))


class Decoder(nnx.Module):
    """The expansive path: from features at 1/32 of the image's size to its own (figure 1)."""

    def __init__(self, encoder_channels: Sequence[int], *, rngs: nnx.Rngs):
        deepest, *skips = reversed(encoder_channels)
        self.blocks = nnx.List(
            DecoderBlock(*channels, rngs=rngs)
            for channels in zip((deepest, *CHANNELS), (*skips, 0), CHANNELS, strict=False)
        )

    def __call__(self, features: Sequence[jax.Array], size: tuple[int, int]) -> jax.Array:
        x, *skips = reversed(features)
        for block, skip in zip(self.blocks, skips, strict=False):
            x = block(x, skip.shape[1:-1], skip)
        return self.blocks[-1](x, size)


class UNet(nnx.Module):
    """Images (N, H, W, in_channels) of any size to logits (N, H, W, num_classes) under "out"."""

    def __init__(
        self,
        resnet: Callable,
        encoder_channels: Sequence[int],
        num_classes: int = 21,
        *,
        in_channels: int = 3,
        rngs: nnx.Rngs,
    ):
        stages = ("relu", "layer1", "layer2", "layer3", "layer4")  # features at 1/2, 1/4 … 1/32 of the image's size
        self.encoder = IntermediateLayers(resnet(in_channels=in_channels, rngs=rngs), {name: name for name in stages})
        self.decoder = Decoder(encoder_channels, rngs=rngs)
        self.segmentation_head = Sequential(
            Conv(
                CHANNELS[-1],
                num_classes,
                3,
                padding=1,
                kernel_init=init.xavier_uniform,
                bias_init=init.zeros,
                rngs=rngs,
            )
        )

    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        features = list(self.encoder(x).values())
        return {"out": self.segmentation_head(self.decoder(features, x.shape[1:-1]))}


register_unet = partial(
    register_model,
    head=("segmentation_head.0",),
    task="segmentation",
    paper="Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597",
    input_size=256,
)

BASIC, BOTTLENECK = (64, 64, 128, 256, 512), (64, 256, 512, 1024, 2048)  # channels of a ResNet's features


@register_unet(twin="convert.twins.smp:unet_resnet18", parts={"resnet18": {"": "encoder."}})
def unet_resnet18(*, rngs: nnx.Rngs, **kwargs) -> UNet:
    return UNet(resnet18, BASIC, **kwargs, rngs=rngs)


@register_unet(twin="convert.twins.smp:unet_resnet34", parts={"resnet34": {"": "encoder."}})
def unet_resnet34(*, rngs: nnx.Rngs, **kwargs) -> UNet:
    return UNet(resnet34, BASIC, **kwargs, rngs=rngs)


@register_unet(twin="convert.twins.smp:unet_resnet50", parts={"resnet50": {"": "encoder."}})
def unet_resnet50(*, rngs: nnx.Rngs, **kwargs) -> UNet:
    return UNet(resnet50, BOTTLENECK, **kwargs, rngs=rngs)
