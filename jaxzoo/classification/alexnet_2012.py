"""AlexNet of 2012: five convolutions on two GPUs, local response normalisation, three dense layers.

Krizhevsky, Sutskever and Hinton 2012, ImageNet Classification with Deep Convolutional Neural Networks, NeurIPS 25.
Reference: pytorchcv.models.alexnet, which leaves out the groups (`groups=1`) and normalises with alpha / 5, as Caffe
does. torchvision's AlexNet is that of 2014, without normalisation.
"""

from collections.abc import Sequence

import jax
from flax import nnx

from jaxzoo.errors import UsageError
from jaxzoo.nn import (
    Conv,
    Dropout,
    Identity,
    Linear,
    LocalResponseNorm,
    MaxPool,
    NamedSequential,
    ReLU,
    flatten,
    init,
)
from jaxzoo.registry import imagenet, register_model

# §3.5, by stages that end in pooling: channels, kernel, stride, padding of every convolution.
STAGES = (
    ((96, 11, 4, 0),),
    ((256, 5, 1, 2),),
    ((384, 3, 1, 1), (384, 3, 1, 1), (256, 3, 1, 1)),
)


def convolution(
    in_channels: int, channels: int, kernel: int, stride: int, padding: int, groups: int, use_lrn: bool, rngs: nnx.Rngs
) -> NamedSequential:
    """Convolution, ReLU and, in the first two layers, local response normalisation (§3.3)."""
    initialisers = {"kernel_init": init.kaiming_uniform, "bias_init": init.zeros}
    return NamedSequential(
        conv=Conv(in_channels, channels, kernel, stride, padding, groups=groups, **initialisers, rngs=rngs),
        activ=ReLU(),
        lrn=LocalResponseNorm(5, k=2.0) if use_lrn else Identity(),
    )


def dense(in_features: int, out_features: int, dropout: float, rngs: nnx.Rngs) -> NamedSequential:
    """Linear, ReLU and dropout (§4.2)."""
    return NamedSequential(
        fc=Linear(in_features, out_features, rngs=rngs), activ=ReLU(), dropout=Dropout(dropout, rngs=rngs)
    )


class AlexNet(nnx.Module):
    """Images (N, 224, 224, in_channels) to logits (N, num_classes).

    Args:
      stages: channels, kernel, stride and padding of the convolutions, by stages that end in pooling.
      groups: parts of the second, fourth and fifth convolution, which see only the channels of their own part (§3.2).

    Raises:
      UsageError: an image is so small or so large that not 6×6 positions are left for the dense layers.
    """

    def __init__(
        self,
        stages: Sequence[Sequence[tuple[int, int, int, int]]],
        groups: int,
        num_classes: int = 1000,
        dropout: float = 0.5,
        *,
        in_channels: int = 3,
        rngs: nnx.Rngs,
    ):
        features, channels, layer = {}, in_channels, 0
        for i, convolutions in enumerate(stages, start=1):
            units = {}
            for j, (width, *geometry) in enumerate(convolutions, start=1):
                layer += 1
                split = groups if layer in (2, 4, 5) else 1
                units[f"unit{j}"] = convolution(channels, width, *geometry, split, i < 3, rngs)
                channels = width
            features[f"stage{i}"] = NamedSequential(**units, **{f"pool{i}": MaxPool(3, 2, ceil_mode=True)})
        self.features = NamedSequential(**features)
        self.output = NamedSequential(
            fc1=dense(channels * 6 * 6, 4096, dropout, rngs),
            fc2=dense(4096, 4096, dropout, rngs),
            fc3=Linear(4096, num_classes, rngs=rngs) if num_classes else Identity(),
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.features(x)
        if y.shape[1:3] != (6, 6):
            raise UsageError(f"this AlexNet takes images of 224×224 pixels, not {x.shape[1]}×{x.shape[2]}; resize them")
        return self.output(flatten(y))


@register_model(
    head=("output.fc3",),
    paper="Krizhevsky et al. 2012, doi:10.1145/3065386",
    twin="convert.twins.alexnet_2012:alexnet_2012",
    weights={"in1k": imagenet(61.5, 83.36, groups=1)},
)
def alexnet_2012(groups: int = 2, *, rngs: nnx.Rngs, **kwargs) -> AlexNet:
    return AlexNet(STAGES, groups, **kwargs, rngs=rngs)
