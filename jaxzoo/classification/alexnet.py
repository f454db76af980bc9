"""AlexNet in one tower.

Krizhevsky 2014, One weird trick for parallelizing convolutional neural networks, https://arxiv.org/abs/1404.5997.
Reference: torchvision.models.alexnet.
"""

import jax
from flax import nnx

from jaxzoo.nn import AdaptiveAvgPool, Conv, Dropout, Identity, Linear, MaxPool, ReLU, Sequential, flatten
from jaxzoo.registry import imagenet, register_model


class AlexNet(nnx.Module):
    """Images (N, H, W, in_channels), 63 pixels at least, to logits (N, num_classes)."""

    def __init__(self, num_classes: int = 1000, dropout: float = 0.5, *, in_channels: int = 3, rngs: nnx.Rngs):
        self.features = Sequential(
            Conv(in_channels, 64, 11, 4, 2, rngs=rngs),
            ReLU(),
            MaxPool(3, 2),
            Conv(64, 192, 5, padding=2, rngs=rngs),
            ReLU(),
            MaxPool(3, 2),
            Conv(192, 384, 3, padding=1, rngs=rngs),
            ReLU(),
            Conv(384, 256, 3, padding=1, rngs=rngs),
            ReLU(),
            Conv(256, 256, 3, padding=1, rngs=rngs),
            ReLU(),
            MaxPool(3, 2),
        )
        self.avgpool = AdaptiveAvgPool(6)
        self.classifier = Sequential(
            Dropout(dropout, rngs=rngs),
            Linear(256 * 6 * 6, 4096, rngs=rngs),
            ReLU(),
            Dropout(dropout, rngs=rngs),
            Linear(4096, 4096, rngs=rngs),
            ReLU(),
            Linear(4096, num_classes, rngs=rngs) if num_classes else Identity(),
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.classifier(flatten(self.avgpool(self.features(x))))


@register_model(
    head=("classifier.6",),
    paper="Krizhevsky 2014, https://arxiv.org/abs/1404.5997",
    weights={"IMAGENET1K_V1": imagenet(56.522, 79.066)},
)
def alexnet(*, rngs: nnx.Rngs, **kwargs) -> AlexNet:
    return AlexNet(**kwargs, rngs=rngs)
