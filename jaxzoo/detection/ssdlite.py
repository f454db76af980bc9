"""SSDlite on MobileNetV3.

Sandler et al. 2018, MobileNetV2, https://arxiv.org/abs/1801.04381, §6.2, and Howard et al. 2019, Searching for
MobileNetV3, https://arxiv.org/abs/1905.02244, §6.3. Reference: torchvision.models.detection.ssdlite.
"""

import itertools
from functools import partial

import jax
from flax import nnx

from jaxzoo.classification.mobilenetv3 import mobilenet_v3_large
from jaxzoo.detection.backbone import freeze_first
from jaxzoo.detection.coco_weights import published
from jaxzoo.detection.ssd import SSD, SSDHead, stages, transform_of
from jaxzoo.nn import BatchNorm, Conv, ConvNormActivation, Layer, NamedSequential, ReLU6, Sequential, init
from jaxzoo.nn.ops import DefaultBoxGenerator
from jaxzoo.registry import register_model

start = {"kernel_init": init.normal(0.03), "bias_init": init.zeros}
PaperBatchNorm = partial(BatchNorm, eps=1e-3, momentum=0.03)


def prediction_block(in_channels: int, out_channels: int, norm_layer: Layer, *, rngs: nnx.Rngs) -> Sequential:
    """A depthwise convolution and a pointwise one in place of SSD's."""
    options = {"groups": in_channels, "norm_layer": norm_layer, "activation_layer": ReLU6}
    return Sequential(
        ConvNormActivation(in_channels, in_channels, 3, **options, **start, rngs=rngs),
        Conv(in_channels, out_channels, 1, **start, rngs=rngs),
    )


def extra_block(in_channels: int, out_channels: int, norm_layer: Layer, *, rngs: nnx.Rngs) -> Sequential:
    """Maps half as wide and high."""
    layer = partial(ConvNormActivation, norm_layer=norm_layer, activation_layer=ReLU6, **start, rngs=rngs)
    hidden = out_channels // 2
    return Sequential(
        layer(in_channels, hidden, 1), layer(hidden, hidden, 3, 2, groups=hidden), layer(hidden, out_channels, 1)
    )


class SSDLiteFeatureExtractorMobileNet(nnx.Module):
    """Images to maps "0", at 1/16 of their size, to "5".

    Args:
      backbone: the layers of a MobileNetV3, which move here.
      c4_pos: its last block with a stride, whose expansion is the end of the first map.
    """

    def __init__(self, backbone: Sequential, c4_pos: int, norm_layer: Layer, *, rngs: nnx.Rngs):
        layers = list(backbone)
        expand, *rest = layers[c4_pos].block
        self.features = nnx.List(
            [
                Sequential(*layers[:c4_pos], expand),
                Sequential(
                    NamedSequential(**{str(i): layer for i, layer in enumerate(rest, 1)}), *layers[c4_pos + 1 :]
                ),
            ]
        )
        channels = expand[0].out_features, layers[-1][0].out_features, 512, 256, 256, 128
        self.out_channels = channels
        self.extra = nnx.List([extra_block(*pair, norm_layer, rngs=rngs) for pair in itertools.pairwise(channels[1:])])

    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        maps = []
        for block in (*self.features, *self.extra):
            x = block(x)
            maps.append(x)
        return {str(i): level for i, level in enumerate(maps)}


STAGES = (0, 2, 4, 7, 13, 16)  # where the backbone's layers have a stride, and the last of them
HALF = {"image_mean": (0.5,) * 3, "image_std": (0.5,) * 3}  # pixels from -1 to 1


@register_model(
    task="detection",
    cam_layer="backbone.features.0",  # all levels come of it; a box is of one of them
    paper="Howard et al. 2019, https://arxiv.org/abs/1905.02244",
    input_size=320,
    head=tuple(f"head.classification_head.module_list.{level}.1" for level in range(6)),
    weights=published(transform_of((320, 320), **HALF), box_map=21.3),
    parts={
        "mobilenet_v3_large": {f"features.{i}.": f"backbone.features.0.{i}." for i in range(13)}
        | {"features.13.block.0.": "backbone.features.0.13."}
        | {f"features.13.block.{i}.": f"backbone.features.1.0.{i}." for i in range(1, 4)}
        | {f"features.{13 + i}.": f"backbone.features.1.{i}." for i in range(1, 4)}
    },
)
def ssdlite320_mobilenet_v3_large(
    *,
    num_classes: int = 91,
    reduced_tail: bool = True,
    trainable_backbone_layers: int | None = None,
    norm_layer: Layer = PaperBatchNorm,
    size: tuple[int, int] = (320, 320),
    in_channels: int = 3,
    rngs: nnx.Rngs,
    **kwargs,
) -> SSD:
    """SSDlite320.

    Args:
      reduced_tail: halve the channels of the backbone's last blocks, as torchvision does unless the backbone starts
        from published weights, which are for the others.
    """
    layers = mobilenet_v3_large(
        reduced_tail=reduced_tail, norm_layer=norm_layer, in_channels=in_channels, rngs=rngs
    ).features
    if reduced_tail:  # which means that nothing is loaded into it
        for _, module in nnx.iter_modules(layers):
            if isinstance(module, Conv):
                module.kernel.set_value(init.normal(0.03)(rngs.params(), module.kernel.shape))
    freeze_first(stages(layers, STAGES), trainable_backbone_layers)
    backbone = SSDLiteFeatureExtractorMobileNet(layers, STAGES[-2], norm_layer, rngs=rngs)
    options = {"score_thresh": 0.001, "nms_thresh": 0.55, "detections_per_img": 300, "topk_candidates": 300}
    anchor_generator = DefaultBoxGenerator([[2, 3]] * 6, min_ratio=0.2, max_ratio=0.95)
    head = partial(SSDHead, block=partial(prediction_block, norm_layer=norm_layer))
    return SSD(backbone, anchor_generator, size, num_classes, head=head, **HALF | options | kwargs, rngs=rngs)
