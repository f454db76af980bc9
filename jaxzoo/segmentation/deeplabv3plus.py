"""DeepLab V3+.

Chen et al. 2018, Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation,
https://arxiv.org/abs/1802.02611. Reference: segmentation_models_pytorch.DeepLabV3Plus.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from jaxzoo.classification.mobilenetv2 import mobilenet_v2
from jaxzoo.classification.resnet import resnet50, resnet101
from jaxzoo.errors import UsageError
from jaxzoo.nn import BatchNorm, Conv, IntermediateLayers, NamedSequential, ReLU, Sequential, resize
from jaxzoo.registry import register_model
from jaxzoo.segmentation.deeplabv3 import ASPP, conv_bn_relu


class Separable(Sequential):
    """A depthwise 3×3 convolution that keeps the size, and a 1×1 convolution (§3.1), batch norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int = 1, *, rngs: nnx.Rngs):
        depthwise = Conv(in_channels, in_channels, 3, 1, dilation, dilation, in_channels, bias=False, rngs=rngs)
        pointwise = Conv(in_channels, out_channels, 1, bias=False, rngs=rngs)
        super().__init__(Sequential(depthwise, pointwise), BatchNorm(out_channels, rngs=rngs), ReLU())


class Decoder(nnx.Module):
    """The pyramid's features beside finer ones of the encoder, at a quarter of the image's size (§3.1, figure 2)."""

    def __init__(
        self,
        low_channels: int,
        high_channels: int,
        atrous_rates: Sequence[int],
        output_stride: int,
        channels: int = 256,
        *,
        rngs: nnx.Rngs,
    ):
        self.scale = output_stride // 4
        self.aspp = Sequential(
            ASPP(high_channels, atrous_rates, channels, Separable, rngs=rngs), *Separable(channels, channels, rngs=rngs)
        )
        narrow = 48  # §4.1, table 1
        self.block1 = Sequential(*conv_bn_relu(low_channels, narrow, 1, 1, rngs))
        self.block2 = Separable(narrow + channels, channels, rngs=rngs)

    def __call__(self, low: jax.Array, high: jax.Array) -> jax.Array:
        x = resize(self.aspp(high), scale_factor=self.scale, mode="bilinear", align_corners=True)
        return self.block2(jnp.concatenate([x, self.block1(low)], -1))


class DeepLabV3Plus(nnx.Module):
    """Images (N, H, W, in_channels) to logits (N, H, W, num_classes) under "out".

    H and W must be multiples of `output_stride`; others are a `UsageError`.

    Args:
      encoder: of an output stride, `in_channels` and `rngs`, maps images to features: "low", a quarter of their size,
        and "high".
      low_channels, high_channels: of these features.
      output_stride: how many times smaller than the image the encoder's last features are: 8 or 16.
      atrous_rates: dilations of the pyramid; the reference's. The paper has 6, 12, 18 where the stride is 16.
    """

    def __init__(
        self,
        encoder: Callable[..., nnx.Module],
        low_channels: int,
        high_channels: int,
        num_classes: int = 21,
        output_stride: int = 16,
        atrous_rates: Sequence[int] = (12, 24, 36),
        *,
        in_channels: int = 3,
        rngs: nnx.Rngs,
    ):
        if output_stride not in (8, 16):
            raise UsageError(f"output_stride is {output_stride!r}; it must be one of: 8, 16")
        self.output_stride = output_stride
        self.encoder = encoder(output_stride, in_channels=in_channels, rngs=rngs)
        self.decoder = Decoder(low_channels, high_channels, atrous_rates, output_stride, rngs=rngs)
        self.segmentation_head = Sequential(Conv(256, num_classes, 1, rngs=rngs))

    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        size, multiple = x.shape[1:-1], self.output_stride
        if any(side % multiple for side in size):
            height, width = (-(-side // multiple) * multiple for side in size)
            raise UsageError(
                f"images of {size[0]} × {size[1]} pixels do not fit: DeepLab V3+ takes heights and widths that are "
                f"multiples of {multiple}; pad or resize them to {height} × {width}, for example"
            )
        features = self.encoder(x)
        logits = self.segmentation_head(self.decoder(features["low"], features["high"]))
        return {"out": resize(logits, size, mode="bilinear", align_corners=True)}


def resnet_encoder(resnet: Callable, output_stride: int, *, in_channels: int, rngs: nnx.Rngs) -> nnx.Module:
    """A ResNet's features after its first and its last stage.

    Where stages dilate instead of striding, all of their blocks do so alike, the first as well.
    """
    dilations = {"layer3": 16 // output_stride, "layer4": 32 // output_stride}
    replace = [False, *(rate > 1 for rate in dilations.values())]
    network = resnet(replace_stride_with_dilation=replace, dilations=dilations, in_channels=in_channels, rngs=rngs)
    return IntermediateLayers(network, {"layer1": "low", "layer4": "high"})


def mobilenet_encoder(output_stride: int, *, in_channels: int, rngs: nnx.Rngs) -> nnx.Module:
    """MobileNetV2's features after the last block at a quarter of the image's size, and after all."""
    features = mobilenet_v2(output_stride=output_stride, in_channels=in_channels, rngs=rngs).features
    return NamedSequential(features=IntermediateLayers(features, {"3": "low", "18": "high"}))


register_deeplabv3plus = partial(
    register_model,
    head=("segmentation_head.0",),
    task="segmentation",
    paper="Chen et al. 2018, https://arxiv.org/abs/1802.02611",
    input_size=512,
)


@register_deeplabv3plus(twin="convert.twins.smp:deeplabv3plus_resnet50", parts={"resnet50": {"": "encoder."}})
def deeplabv3plus_resnet50(*, rngs: nnx.Rngs, **kwargs) -> DeepLabV3Plus:
    return DeepLabV3Plus(partial(resnet_encoder, resnet50), 256, 2048, **kwargs, rngs=rngs)


@register_deeplabv3plus(twin="convert.twins.smp:deeplabv3plus_resnet101", parts={"resnet101": {"": "encoder."}})
def deeplabv3plus_resnet101(*, rngs: nnx.Rngs, **kwargs) -> DeepLabV3Plus:
    return DeepLabV3Plus(partial(resnet_encoder, resnet101), 256, 2048, **kwargs, rngs=rngs)


@register_deeplabv3plus(
    twin="convert.twins.smp:deeplabv3plus_mobilenet_v2", parts={"mobilenet_v2": {"features.": "encoder.features."}}
)
def deeplabv3plus_mobilenet_v2(*, rngs: nnx.Rngs, **kwargs) -> DeepLabV3Plus:
    return DeepLabV3Plus(mobilenet_encoder, 24, 1280, **kwargs, rngs=rngs)
