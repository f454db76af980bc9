"""VGG-16 as the first segmentation networks have it: flat, its layers under the names that they have in Caffe.

Simonyan and Zisserman 2014, https://arxiv.org/abs/1409.1556, table 1 D.
"""

from functools import partial

import jax
from flax import nnx

from jaxzoo.classification.vgg import D, conv_initialisers
from jaxzoo.nn import Conv, init, relu

STAGES = (64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)

# For layers after the stages that the reference takes from elsewhere: they learn at any width.
fully_connected = partial(Conv, kernel_init=init.kaiming_normal("fan_in"), bias_init=init.zeros)


class VGG16Stages(nnx.Module):
    """The convolutions conv1_1 to conv5_3; the layers between the stages are the network's own.

    Args:
      width: a factor of all numbers of channels, for small machines.
      first_padding: of conv1_1, in pixels.
      last_dilation: of conv5_1 to conv5_3.
    """

    def __init__(
        self,
        width: float = 1.0,
        first_padding: int = 1,
        last_dilation: int = 1,
        *,
        in_channels: int = 3,
        rngs: nnx.Rngs,
    ):
        channels = in_channels
        for i, stage in enumerate(STAGES, start=1):
            dilation = last_dilation if i == len(STAGES) else 1
            for j, planes in enumerate(stage, start=1):
                padding = first_padding if (i, j) == (1, 1) else dilation
                planes = narrowed(planes, width)
                layer = Conv(channels, planes, 3, 1, padding, dilation, **conv_initialisers, rngs=rngs)
                setattr(self, f"conv{i}_{j}", layer)
                channels = planes

    def stage(self, i: int, x: jax.Array) -> jax.Array:
        """The convolutions of a stage, each with ReLU."""
        for j in range(1, len(STAGES[i - 1]) + 1):
            x = relu(getattr(self, f"conv{i}_{j}")(x))
        return x


def narrowed(channels: int, width: float) -> int:
    """So many channels times `width`, one at least."""
    return max(1, round(channels * width))


def from_vgg16() -> dict[str, str]:
    """How the keys of `vgg16`'s convolutions begin there and here."""
    names = (f"conv{i}_{j}." for i, stage in enumerate(STAGES, 1) for j in range(1, len(stage) + 1))
    layers = [layer for width in D for layer in (["pool"] if width == "M" else ["conv", "relu"])]
    places = (place for place, layer in enumerate(layers) if layer == "conv")
    return {f"features.{place}.": name for place, name in zip(places, names, strict=True)}
