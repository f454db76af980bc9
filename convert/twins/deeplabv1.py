"""DeepLab-LargeFOV in PyTorch, written from Chen et al. 2014; jaxzoo/segmentation/deeplabv1.py says what is Caffe's."""

import torch
from torch import nn
from torch.nn import functional as F

from convert.twins.vgg import add_stages, dense, run_stage


class LargeFov(nn.Module):
    def __init__(self, num_classes: int = 21, dropout: float = 0.5, rate: int = 12, width: float = 1.0):
        super().__init__()
        add_stages(self, width, last_dilation=2)
        ins, hidden = (max(1, round(channels * width)) for channels in (512, 1024))
        self.fc6 = dense(ins, hidden, 3, padding=rate, dilation=rate)
        self.drop6 = nn.Dropout(dropout)
        self.fc7 = dense(hidden, hidden, 1)
        self.drop7 = nn.Dropout(dropout)
        self.fc8 = nn.Conv2d(hidden, num_classes, 1)
        nn.init.normal_(self.fc8.weight, std=0.01)
        nn.init.zeros_(self.fc8.bias)

    def forward(self, image):
        x = image
        for number in range(1, 6):
            stride = 2 if number < 4 else 1
            x = F.max_pool2d(run_stage(self, number, x), 3, stride, 1, ceil_mode=True)
        x = F.avg_pool2d(x, 3, 1, 1)
        x = self.drop6(torch.relu(self.fc6(x)))
        x = self.fc8(self.drop7(torch.relu(self.fc7(x))))
        return {"out": F.interpolate(x, image.shape[2:], mode="bilinear", align_corners=True)}


def deeplabv1_vgg16(**arguments) -> LargeFov:
    return LargeFov(**arguments)
