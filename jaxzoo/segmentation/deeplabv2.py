"""DeepLab V2 on ResNet-101: a pyramid of dilations, and the image at three scales.

Chen et al. 2016, DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution, and Fully
Connected CRFs, https://arxiv.org/abs/1606.00915. The layers bear the names of the port that is used most,
kazuto1011/deeplab-pytorch; it is no package, so the twin is written from the paper and that port's outputs.
"""

from collections.abc import Sequence
from functools import reduce

import jax
import jax.numpy as jnp
from flax import nnx

from jaxzoo.nn import BatchNorm, Conv, Identity, MaxPool, NamedSequential, ReLU, init, relu, resize
from jaxzoo.registry import register_model


def conv_bn(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 1,
    stride: int = 1,
    dilation: int = 1,
    activation: bool = True,
    *,
    rngs: nnx.Rngs,
) -> NamedSequential:
    """A convolution, batch norm and, unless told otherwise, ReLU."""
    padding = dilation * (kernel_size // 2)
    options = {"bias": False, "kernel_init": init.kaiming_normal("fan_out")}
    return NamedSequential(
        conv=Conv(in_channels, out_channels, kernel_size, stride, padding, dilation, **options, rngs=rngs),
        bn=BatchNorm(out_channels, momentum=0.001, rngs=rngs),  # the port's; Caffe's moves by 1 - 0.999 too
        **({"relu": ReLU()} if activation else {}),
    )


class Bottleneck(nnx.Module):
    """1×1, 3×3, 1×1 and a shortcut; the stride is in the first (He et al. 2015, as published for Caffe)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, dilation: int, *, rngs: nnx.Rngs):
        inner = out_channels // 4
        self.reduce = conv_bn(in_channels, inner, stride=stride, rngs=rngs)
        self.conv3x3 = conv_bn(inner, inner, 3, dilation=dilation, rngs=rngs)
        self.increase = conv_bn(inner, out_channels, activation=False, rngs=rngs)
        self.shortcut = (
            Identity()
            if in_channels == out_channels
            else conv_bn(in_channels, out_channels, stride=stride, activation=False, rngs=rngs)
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return relu(self.increase(self.conv3x3(self.reduce(x))) + self.shortcut(x))


def stage(
    depth: int, in_channels: int, out_channels: int, stride: int, dilation: int, rngs: nnx.Rngs
) -> NamedSequential:
    """Blocks of one width and dilation, of which the first may stride."""
    first = Bottleneck(in_channels, out_channels, stride, dilation, rngs=rngs)
    others = {f"block{i}": Bottleneck(out_channels, out_channels, 1, dilation, rngs=rngs) for i in range(2, depth + 1)}
    return NamedSequential(block1=first, **others)


class ASPP(nnx.Module):
    """Atrous spatial pyramid pooling: the sum of classifiers that see at several dilations (§3.2)."""

    def __init__(self, in_channels: int, num_classes: int, rates: Sequence[int], *, rngs: nnx.Rngs):
        initialisers = {"kernel_init": init.normal(0.01), "bias_init": init.zeros}
        self.names = tuple(f"c{i}" for i in range(len(rates)))
        for name, rate in zip(self.names, rates, strict=True):
            setattr(
                self, name, Conv(in_channels, num_classes, 3, padding=rate, dilation=rate, **initialisers, rngs=rngs)
            )

    def __call__(self, x: jax.Array) -> jax.Array:
        return sum(getattr(self, name)(x) for name in self.names)


class DeepLabV2(nnx.Module):
    """Images (N, H, W, in_channels) to `{"out": (N, H, W, num_classes)}`, the largest logits of any scale.

    In train mode the logits of every single scale follow, as "scale1", "scale0.5" and so on, whose losses count as much
    (§4.1.2). All are enlarged to the image's size; the published training shrinks the labels instead.

    Args:
      layers: blocks per stage.
      atrous_rates: dilations of the pyramid.
      scales: sizes at which the image is seen beside its own.
    """

    aux_weight = 1.0

    def __init__(
        self,
        layers: Sequence[int],
        num_classes: int = 21,
        atrous_rates: Sequence[int] = (6, 12, 18, 24),
        scales: Sequence[float] = (0.5, 0.75),
        *,
        in_channels: int = 3,
        rngs: nnx.Rngs,
    ):
        self.deterministic = False  # `train()` and `eval()` set it
        self.scales = tuple(scales)
        self.base = NamedSequential(
            layer1=NamedSequential(
                conv1=conv_bn(in_channels, 64, 7, 2, rngs=rngs), pool=MaxPool(3, 2, 1, ceil_mode=True)
            ),
            layer2=stage(layers[0], 64, 256, 1, 1, rngs),
            layer3=stage(layers[1], 256, 512, 2, 1, rngs),
            layer4=stage(layers[2], 512, 1024, 1, 2, rngs),
            layer5=stage(layers[3], 1024, 2048, 1, 4, rngs),
            aspp=ASPP(2048, num_classes, atrous_rates, rngs=rngs),
        )

    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        size = x.shape[1:-1]
        logits = {"scale1": self.base(x)}
        for scale in self.scales:
            smaller = resize(x, [int(length * scale) for length in size], mode="bilinear")
            logits[f"scale{scale}"] = self.base(smaller)
        place = logits["scale1"].shape[1:-1]
        fused = reduce(jnp.maximum, (resize(y, place, mode="bilinear") for y in logits.values()))
        logits = {"out": fused} | ({} if self.deterministic else logits)
        return {name: resize(y, size, mode="bilinear") for name, y in logits.items()}


def from_resnet(layers: Sequence[int]) -> dict[str, str]:
    """How the keys of torchvision's ResNet of these stages begin there and here.

    Its blocks stride in the 3×3 convolution: a network that starts from them computes nearly, not exactly, the same.
    """
    inner = {
        "conv1.": "reduce.conv.",
        "bn1.": "reduce.bn.",
        "conv2.": "conv3x3.conv.",
        "bn2.": "conv3x3.bn.",
        "conv3.": "increase.conv.",
        "bn3.": "increase.bn.",
        "downsample.0.": "shortcut.conv.",
        "downsample.1.": "shortcut.bn.",
    }
    blocks = {
        f"layer{s}.{b}.{there}": f"base.layer{s + 1}.block{b + 1}.{here}"
        for s, depth in enumerate(layers, start=1)
        for b in range(depth)
        for there, here in inner.items()
    }
    return {"conv1.": "base.layer1.conv1.conv.", "bn1.": "base.layer1.conv1.bn."} | blocks


RESNET101 = (3, 4, 23, 3)


@register_model(
    head=("base.aspp",),
    tables=("deeplab_pytorch.V2",),
    task="segmentation",
    paper="Chen et al. 2016, https://arxiv.org/abs/1606.00915",
    twin="convert.twins.deeplabv2:deeplabv2_resnet101",
    input_size=321,
    parts={"resnet101": from_resnet(RESNET101)},
)
def deeplabv2_resnet101(*, rngs: nnx.Rngs, **kwargs) -> DeepLabV2:
    return DeepLabV2(RESNET101, **kwargs, rngs=rngs)
