"""FCN-32s, FCN-16s and FCN-8s in PyTorch, written from Long et al. 2015 and the layers of the authors' Caffe networks.

They compute what torchfcn 1.9.7 computes, bit for bit, under the same names; that package itself cannot be imported
where today's NumPy is, for it needs chainer. It starts with zeros in all convolutions, these as VGG where VGG is.
"""

import torch
from torch import nn
from torch.nn import functional as F

from convert.twins.vgg import add_stages, dense, run_stage


def silent(ins: int, outs: int) -> nn.Conv2d:
    layer = nn.Conv2d(ins, outs, 1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def interpolation(classes: int, factor: int) -> nn.ConvTranspose2d:
    """Starts as bilinear enlargement of every class by itself."""
    layer = nn.ConvTranspose2d(classes, classes, 2 * factor, factor, bias=False)
    position = (torch.arange(2 * factor) + 0.5) / factor
    tent = torch.minimum(position, 2 - position)
    with torch.no_grad():
        layer.weight.zero_()
        for i in range(classes):
            layer.weight[i, i] = torch.outer(tent, tent)
    return layer


def cut(x: torch.Tensor, start: int, like: torch.Tensor) -> torch.Tensor:
    return x[:, :, start : start + like.shape[2], start : start + like.shape[3]]


class Fcn(nn.Module):
    """All three: the smaller the final stride, the more stages have a say."""

    def __init__(self, stride: int, num_classes: int = 21, dropout: float = 0.5, width: float = 1.0):
        super().__init__()
        self.stride = stride
        add_stages(self, width, first_padding=100)
        pool3, pool4, hidden = (max(1, round(channels * width)) for channels in (256, 512, 4096))
        self.fc6 = dense(pool4, hidden, 7)
        self.drop6 = nn.Dropout2d(dropout)
        self.fc7 = dense(hidden, hidden, 1)
        self.drop7 = nn.Dropout2d(dropout)
        self.score_fr = silent(hidden, num_classes)
        if stride == 32:
            self.upscore = interpolation(num_classes, 32)
            return
        if stride == 8:
            self.score_pool3 = silent(pool3, num_classes)
        self.score_pool4 = silent(pool4, num_classes)
        self.upscore2 = interpolation(num_classes, 2)
        self.add_module(f"upscore{stride}", interpolation(num_classes, stride))
        if stride == 8:
            self.upscore_pool4 = interpolation(num_classes, 2)

    def forward(self, image):
        x, pooled = image, {}
        for number in range(1, 6):
            x = pooled[number] = F.max_pool2d(run_stage(self, number, x), 2, ceil_mode=True)
        x = self.drop6(torch.relu(self.fc6(x)))
        x = self.score_fr(self.drop7(torch.relu(self.fc7(x))))
        if self.stride == 32:
            return {"out": cut(self.upscore(x), 19, image)}
        x = self.upscore2(x)
        x = x + cut(self.score_pool4(pooled[4]), 5, x)
        if self.stride == 16:
            return {"out": cut(self.upscore16(x), 27, image)}
        x = self.upscore_pool4(x)
        x = x + cut(self.score_pool3(pooled[3]), 9, x)
        return {"out": cut(self.upscore8(x), 31, image)}


def fcn32s(**arguments) -> Fcn:
    return Fcn(32, **arguments)


def fcn16s(**arguments) -> Fcn:
    return Fcn(16, **arguments)


def fcn8s(**arguments) -> Fcn:
    return Fcn(8, **arguments)
