"""DeepLab V2 in PyTorch, written from Chen et al. 2016, with the names and the arithmetic of kazuto1011's port."""

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional as F


def unit(ins: int, outs: int, size: int, stride: int = 1, reach: int = 1, relu: bool = True) -> nn.Sequential:
    conv = nn.Conv2d(ins, outs, size, stride, reach * (size - 1) // 2, reach, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    parts = [("conv", conv), ("bn", nn.BatchNorm2d(outs, momentum=0.001))]
    return nn.Sequential(OrderedDict([*parts, ("relu", nn.ReLU())] if relu else parts))


class Block(nn.Module):
    def __init__(self, ins: int, outs: int, stride: int, reach: int):
        super().__init__()
        self.reduce = unit(ins, outs // 4, 1, stride)
        self.conv3x3 = unit(outs // 4, outs // 4, 3, 1, reach)
        self.increase = unit(outs // 4, outs, 1, relu=False)
        self.shortcut = unit(ins, outs, 1, stride, relu=False) if ins != outs else nn.Identity()

    def forward(self, x):
        return torch.relu(self.shortcut(x) + self.increase(self.conv3x3(self.reduce(x))))


class Pyramid(nn.Module):
    def __init__(self, ins: int, num_classes: int, rates):
        super().__init__()
        for i, rate in enumerate(rates):
            branch = nn.Conv2d(ins, num_classes, 3, 1, rate, rate)
            nn.init.normal_(branch.weight, std=0.01)
            nn.init.zeros_(branch.bias)
            self.add_module(f"c{i}", branch)

    def forward(self, x):
        return torch.stack([branch(x) for branch in self.children()]).sum(0)


class Base(nn.Sequential):
    def __init__(self, depths, num_classes: int, rates):
        super().__init__()
        stem = OrderedDict(conv1=unit(3, 64, 7, 2), pool=nn.MaxPool2d(3, 2, 1, ceil_mode=True))
        self.layer1 = nn.Sequential(stem)
        ins = 64
        for i, (depth, outs, stride, reach) in enumerate(
            zip(depths, (256, 512, 1024, 2048), (1, 2, 1, 1), (1, 1, 2, 4), strict=True)
        ):
            blocks = OrderedDict()
            for j in range(depth):
                blocks[f"block{j + 1}"] = Block(ins, outs, 1 if j else stride, reach)
                ins = outs
            self.add_module(f"layer{i + 2}", nn.Sequential(blocks))
        self.aspp = Pyramid(ins, num_classes, rates)


class MultiScale(nn.Module):
    def __init__(self, depths=(3, 4, 23, 3), num_classes=21, atrous_rates=(6, 12, 18, 24), scales=(0.5, 0.75)):
        super().__init__()
        self.base = Base(depths, num_classes, atrous_rates)
        self.scales = scales

    def forward(self, image):
        def sized(x, size):
            return F.interpolate(x, size, mode="bilinear", align_corners=False)

        single = {"scale1": self.base(image)}
        for scale in self.scales:
            single[f"scale{scale}"] = self.base(sized(image, [int(n * scale) for n in image.shape[2:]]))
        size = single["scale1"].shape[2:]
        fused = torch.stack([sized(x, size) for x in single.values()]).max(0).values
        found = {"out": fused} | (single if self.training else {})
        return {name: sized(x, image.shape[2:]) for name, x in found.items()}


def deeplabv2_resnet101(**arguments) -> MultiScale:
    return MultiScale(**arguments)
