"""Backbones with feature pyramids, of which some layers do not learn: torchvision.models.detection.backbone_utils."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import jax
from flax import nnx

from jaxzoo.classification.mobilenetv3 import mobilenet_v3_large
from jaxzoo.classification.resnet import ResNet, resnet50
from jaxzoo.errors import UsageError
from jaxzoo.nn import BatchNorm, IntermediateLayers, Layer
from jaxzoo.nn.container import Buffer
from jaxzoo.nn.ops import FeaturePyramidNetwork, FrozenBatchNorm2d, LastLevelMaxPool, LastLevelP6P7

OUT_CHANNELS = 256  # of every level of a pyramid


class BackboneWithFPN(nnx.Module):
    """Images (N, H, W, in_channels) to `{name: (N, h, w, out_channels)}`, finest first.

    Args:
      backbone: runs its children in order; the layers after the last that is returned are left out.
      return_layers: the name of each level of the pyramid, by the child whose output it is made of.
      in_channels_list: of these outputs.
    """

    def __init__(
        self,
        backbone: nnx.Module,
        return_layers: Mapping[str, str],
        in_channels_list: Sequence[int],
        out_channels: int = OUT_CHANNELS,
        extra_blocks: nnx.Module | None = None,
        norm_layer: Layer | None = None,
        *,
        rngs: nnx.Rngs,
    ):
        self.body = IntermediateLayers(backbone, return_layers)
        self.fpn = FeaturePyramidNetwork(
            in_channels_list, out_channels, extra_blocks or LastLevelMaxPool(), norm_layer, rngs=rngs
        )
        self.out_channels = out_channels

    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        return self.fpn(self.body(x))


def resnet_fpn_backbone(
    resnet: Callable[..., ResNet] = resnet50,
    *,
    norm_layer: Layer = BatchNorm,
    trainable_layers: int | None = None,
    returned_layers: Sequence[int] = (1, 2, 3, 4),
    extra_blocks: nnx.Module | None = None,
    pyramid_norm_layer: Layer | None = None,
    rngs: nnx.Rngs,
    **options,
) -> BackboneWithFPN:
    """A pyramid on the stages of a ResNet (Lin et al. 2017, §3).

    Args:
      resnet: builds the ResNet, with `options`.
      norm_layer, pyramid_norm_layer: of the ResNet and of the pyramid, which has none unless given.
      trainable_layers: so many of the stem and the four stages learn, the last ones; all unless given.
      returned_layers: the stages, counted from 1.
    """
    network = resnet(norm_layer=norm_layer, rngs=rngs, **options)
    stem = network.conv1, network.bn1
    freeze_first((stem, network.layer1, network.layer2, network.layer3, network.layer4), trainable_layers)
    widest = network.fc.in_features
    return BackboneWithFPN(
        network,
        {f"layer{stage}": str(i) for i, stage in enumerate(returned_layers)},
        [widest // 2 ** (4 - stage) for stage in returned_layers],
        extra_blocks=extra_blocks,
        norm_layer=pyramid_norm_layer,
        rngs=rngs,
    )


def resnet50_p3_to_p7(
    trainable_layers: int | None,
    in_channels: int,
    p6_channels: int = OUT_CHANNELS,
    norm_layer: Layer = BatchNorm,
    *,
    rngs: nnx.Rngs,
) -> BackboneWithFPN:
    """ResNet-50 with a pyramid from a stride of 8 to one of 128, as dense detectors have it (RetinaNet §4).

    Args:
      p6_channels: of the map that the first of the two coarsest levels is made of: P5, or C5 with 2048.
    """
    return resnet_fpn_backbone(
        norm_layer=norm_layer,
        trainable_layers=trainable_layers,
        returned_layers=(2, 3, 4),
        extra_blocks=LastLevelP6P7(p6_channels, OUT_CHANNELS, rngs=rngs),
        in_channels=in_channels,
        rngs=rngs,
    )


def mobilenet_fpn_backbone(
    *, norm_layer: Layer = BatchNorm, trainable_layers: int | None = None, rngs: nnx.Rngs, **options
) -> BackboneWithFPN:
    """A pyramid on the last two stages of MobileNetV3-Large, both of which have a stride of 32.

    Args:
      trainable_layers: so many of the stem and the five stages learn, the last ones; all unless given.
    """
    features = mobilenet_v3_large(norm_layer=norm_layer, rngs=rngs, **options).features
    first = (0, 2, 4, 7, 13, 16)  # of each stage
    freeze_first([features[start:end] for start, end in itertools.pairwise((*first, len(features)))], trainable_layers)
    return BackboneWithFPN(features, {"13": "0", "16": "1"}, [160, 960], rngs=rngs)


def batch_norm(freeze: bool, eps: float, **options) -> Layer:
    """A backbone's batch norm: learning, with `options`, or as torchvision has it for backbones that are trained."""
    return partial(FrozenBatchNorm2d, eps=eps) if freeze else partial(BatchNorm, eps=eps, **options)


def freeze_first(stages: Sequence[Sequence[nnx.Module]], trainable: int | None) -> None:
    """Freezes the modules of all stages but the last `trainable` ones; of none where it is None.

    Raises:
      UsageError: `trainable` is negative or more than there are.
    """
    if trainable is None:
        return
    if not 0 <= trainable <= len(stages):
        raise UsageError(
            f"trainable_backbone_layers is {trainable!r}; it must be from 0 to {len(stages)}, or None for all"
        )
    for stage in stages[: len(stages) - trainable]:
        for module in stage:
            freeze(module)


def freeze(module: nnx.Module) -> None:
    """Makes buffers of a module's parameters, which no optimizer changes."""
    for _, inner in list(nnx.iter_modules(module)):
        for name, value in list(vars(inner).items()):
            if isinstance(value, nnx.Param):
                setattr(inner, name, Buffer(value.get_value()))
