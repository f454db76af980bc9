"""VGG-16's convolutions under their Caffe names, written from Simonyan and Zisserman 2014, table 1 D."""

import torch
from torch import nn

WIDTHS = {1: [64] * 2, 2: [128] * 2, 3: [256] * 3, 4: [512] * 3, 5: [512] * 3}


def add_stages(net: nn.Module, width: float, first_padding: int = 1, last_dilation: int = 1) -> None:
    before = 3
    for number, widths in WIDTHS.items():
        for i, channels in enumerate(widths):
            reach = last_dilation if number == 5 else 1
            padding = first_padding if before == 3 else reach
            layer = nn.Conv2d(before, max(1, round(channels * width)), 3, 1, padding, reach)
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
            net.add_module(f"conv{number}_{i + 1}", layer)
            before = layer.out_channels


def run_stage(net: nn.Module, number: int, x: torch.Tensor) -> torch.Tensor:
    for i in range(len(WIDTHS[number])):
        x = torch.relu(getattr(net, f"conv{number}_{i + 1}")(x))
    return x


def dense(ins: int, outs: int, kernel_size: int, **arguments) -> nn.Conv2d:
    """A convolution that takes the place of a dense layer."""
    layer = nn.Conv2d(ins, outs, kernel_size, **arguments)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    return layer
