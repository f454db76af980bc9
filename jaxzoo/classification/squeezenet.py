"""SqueezeNet.

Iandola et al. 2016, SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size,
https://arxiv.org/abs/1602.07360. Reference: torchvision.models.squeezenet.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from jaxzoo.errors import UsageError
from jaxzoo.nn import AdaptiveAvgPool, Conv, Dropout, Identity, MaxPool, ReLU, Sequential, flatten, init
from jaxzoo.registry import imagenet, register_model

conv = partial(Conv, kernel_init=init.kaiming_uniform, bias_init=init.zeros)

# Table 1: channels of the 1×1 convolutions that squeeze, and of each half that expands; M for max pooling.
# Version 1.1 pools earlier, for less than half the work.
FIRES = {
    "1_0": ("M", (16, 64), (16, 64), (32, 128), "M", (32, 128), (48, 192), (48, 192), (64, 256), "M", (64, 256)),
    "1_1": ("M", (16, 64), (16, 64), "M", (32, 128), (32, 128), "M", (48, 192), (48, 192), (64, 256), (64, 256)),
}


class Fire(nnx.Module):
    """Squeeze to few channels, then expand them by 1×1 and 3×3 filters side by side (§3.2, figure 1)."""

    def __init__(
        self, inplanes: int, squeeze_planes: int, expand1x1_planes: int, expand3x3_planes: int, *, rngs: nnx.Rngs
    ):
        self.squeeze = conv(inplanes, squeeze_planes, 1, rngs=rngs)
        self.expand1x1 = conv(squeeze_planes, expand1x1_planes, 1, rngs=rngs)
        self.expand3x3 = conv(squeeze_planes, expand3x3_planes, 3, padding=1, rngs=rngs)
        self.activation = ReLU()

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.activation(self.squeeze(x))
        return self.activation(jnp.concatenate([self.expand1x1(x), self.expand3x3(x)], -1))


class SqueezeNet(nnx.Module):
    """Images (N, H, W, in_channels), 21 pixels at least, to logits (N, num_classes).

    Args:
      version: "1_0" or "1_1"; others are a UsageError.
    """

    def __init__(
        self,
        version: str,
        num_classes: int = 1000,
        dropout: float = 0.5,
        *,
        in_channels: int = 3,
        rngs: nnx.Rngs,
    ):
        if version not in FIRES:
            raise UsageError(f"version is {version!r}; it must be one of: {', '.join(FIRES)}")
        channels, kernel = (96, 7) if version == "1_0" else (64, 3)
        layers = [conv(in_channels, channels, kernel, 2, rngs=rngs), ReLU()]
        for fire in FIRES[version]:
            if fire == "M":
                layers.append(MaxPool(3, 2, ceil_mode=True))
            else:
                squeeze, expand = fire
                layers.append(Fire(channels, squeeze, expand, expand, rngs=rngs))
                channels = 2 * expand
        self.features = Sequential(*layers)
        self.classifier = Sequential(
            Dropout(dropout, rngs=rngs),
            conv(channels, num_classes, 1, kernel_init=init.normal(0.01), rngs=rngs) if num_classes else Identity(),
            ReLU(),
            AdaptiveAvgPool(1),
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return flatten(self.classifier(self.features(x)))


register_squeezenet = partial(
    register_model, head=("classifier.1",), paper="Iandola et al. 2016, https://arxiv.org/abs/1602.07360"
)


@register_squeezenet(weights={"IMAGENET1K_V1": imagenet(58.092, 80.42)})
def squeezenet1_0(*, rngs: nnx.Rngs, **kwargs) -> SqueezeNet:
    return SqueezeNet("1_0", **kwargs, rngs=rngs)


@register_squeezenet(weights={"IMAGENET1K_V1": imagenet(58.178, 80.624)})
def squeezenet1_1(*, rngs: nnx.Rngs, **kwargs) -> SqueezeNet:
    return SqueezeNet("1_1", **kwargs, rngs=rngs)
