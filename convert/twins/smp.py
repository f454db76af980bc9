"""segmentation-models-pytorch's networks under the names and with the arguments that ours have."""

from functools import partial

import segmentation_models_pytorch as smp
import torch


def deeplabv3plus(encoder: str, num_classes: int = 21, output_stride: int = 16, **arguments) -> torch.nn.Module:
    return smp.DeepLabV3Plus(
        encoder, encoder_weights=None, classes=num_classes, encoder_output_stride=output_stride, **arguments
    )


def unet(encoder: str, num_classes: int = 21) -> torch.nn.Module:
    return smp.Unet(encoder, encoder_weights=None, classes=num_classes)


deeplabv3plus_resnet50 = partial(deeplabv3plus, "resnet50")
deeplabv3plus_resnet101 = partial(deeplabv3plus, "resnet101")
deeplabv3plus_mobilenet_v2 = partial(deeplabv3plus, "mobilenet_v2")
unet_resnet18 = partial(unet, "resnet18")
unet_resnet34 = partial(unet, "resnet34")
unet_resnet50 = partial(unet, "resnet50")
