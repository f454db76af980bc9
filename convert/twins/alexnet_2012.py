"""pytorchcv's AlexNet with the paper's two groups in the second, fourth and fifth convolution, which it leaves out."""

import torch
from pytorchcv.model_provider import get_model


def alexnet_2012(groups: int = 2, **arguments) -> torch.nn.Module:
    net = get_model("alexnet", **arguments)
    for unit in (net.features.stage2.unit1, net.features.stage3.unit2, net.features.stage3.unit3) if groups > 1 else ():
        c = unit.conv
        unit.conv = torch.nn.Conv2d(c.in_channels, c.out_channels, c.kernel_size, c.stride, c.padding, groups=groups)
        torch.nn.init.kaiming_uniform_(unit.conv.weight)
        torch.nn.init.zeros_(unit.conv.bias)
    return net
