"""LeNet-5 in PyTorch, written from LeCun et al. 1998; see jaxzoo/classification/lenet.py for what differs."""

import torch
from torch import nn
from torch.nn import functional as F

# Table I transposed: a row per map of S2, a column per map of C3.
TABLE = """
X...XXX..XXXX.XX
XX...XXX..XXXX.X
XXX...XXX..X.XXX
.XXX..XXXX..X.XX
..XXX..XXXX.XX.X
...XXX..XXXX.XXX
"""


def squash(x: torch.Tensor) -> torch.Tensor:
    return 1.7159 * torch.tanh(2 / 3 * x)


class Subsampling(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.coefficient = nn.Parameter(torch.empty(channels).uniform_(-0.6, 0.6))
        self.bias = nn.Parameter(torch.empty(channels).uniform_(-0.6, 0.6))

    def forward(self, x):
        channels = self.coefficient.numel()
        ones = torch.ones(channels, 1, 2, 2, dtype=x.dtype, device=x.device)
        sums = F.conv2d(x, ones, stride=2, groups=channels)
        return sums * self.coefficient[:, None, None] + self.bias[:, None, None]


class SparseConv(nn.Module):
    def __init__(self):
        super().__init__()
        rows = TABLE.split()
        self.sources = [[i for i, row in enumerate(rows) if row[j] == "X"] for j in range(16)]
        bounds = [2.4 / (25 * len(sources)) for sources in self.sources]
        kernels = [
            torch.empty(len(sources), 5, 5).uniform_(-bound, bound)
            for sources, bound in zip(self.sources, bounds, strict=True)
        ]
        self.kernel = nn.Parameter(torch.cat(kernels))
        self.bias = nn.Parameter(torch.cat([torch.empty(1).uniform_(-bound, bound) for bound in bounds]))

    def forward(self, x):
        kernels = self.kernel.split([len(sources) for sources in self.sources])
        maps = [F.conv2d(x[:, s], k[None]) for s, k in zip(self.sources, kernels, strict=True)]
        return torch.cat(maps, 1) + self.bias[:, None, None]


class LeNet5(nn.Module):
    def __init__(self, num_classes: int = 10, in_channels: int = 3):
        super().__init__()
        self.c1 = nn.Conv2d(in_channels, 6, 5)
        self.s2 = Subsampling(6)
        self.c3 = SparseConv()
        self.s4 = Subsampling(16)
        self.c5 = nn.Conv2d(16, 120, 5)
        self.f6 = nn.Linear(120, 84)
        self.output = nn.Linear(84, num_classes)
        for layer in (self.c1, self.c5, self.f6, self.output):
            bound = 2.4 / layer.weight[0].numel()
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.uniform_(layer.bias, -bound, bound)

    def forward(self, x):
        x = squash(self.s2(squash(self.c1(x))))
        x = squash(self.s4(squash(self.c3(x))))
        x = squash(self.c5(x)).flatten(1)
        return self.output(squash(self.f6(x)))


def lenet5(**arguments) -> LeNet5:
    return LeNet5(**arguments)
