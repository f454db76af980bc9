"""YOLOv1 in PyTorch, written from Redmon et al. 2016 and from what Darknet computes on a CPU.

Training and the choice of boxes go cell by cell and box by box, as there. Gradients are those of what is computed
forward, where Darknet's batch norm adds other epsilons on the way back.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import box_iou, nms

# Filters/kernel/stride of convolutions, and M for a max pool.
FULL = (
    "64/7/2 M 192/3 M 128/1 256/3 256/1 512/3 M 256/1 512/3 256/1 512/3 256/1 512/3 256/1 512/3 512/1 1024/3 M "
    "512/1 1024/3 512/1 1024/3 1024/3 1024/3/2 1024/3 1024/3 local dropout"
)
TINY = "16/3 M 32/3 M 64/3 M 128/3 M 256/3 M 512/3 M 1024/3 256/3"


class DarknetBatchNorm(nn.Module):
    def __init__(self, num_features: int, eps: float = 1e-6, momentum: float = 0.01):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight, self.bias = nn.Parameter(torch.ones(num_features)), nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x):
        mean, var = self.running_mean, self.running_var
        if self.training:
            var, mean = torch.var_mean(x, (0, 2, 3), correction=1)
            with torch.no_grad():
                self.running_mean += self.momentum * (mean - self.running_mean)
                self.running_var += self.momentum * (var - self.running_var)
        deviation = torch.where(var > 0, torch.where(var > 0, var, 1).sqrt(), 0)
        z = (x - mean[:, None, None]) / (deviation + self.eps)[:, None, None]
        return z * self.weight[:, None, None] + self.bias[:, None, None]


class Convolutional(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
        nn.init.kaiming_normal_(self.conv.weight)
        self.bn = DarknetBatchNorm(out_channels)
        self.act = nn.LeakyReLU(0.1)

    def forward(self, x):
        return self.act(self.bn(self.conv(x)))


class LocallyConnected2d(nn.Module):
    """Square kernels, one for each place of the output: weight (places, out, in · k · k), bias (out, places)."""

    def __init__(self, in_channels, out_channels, input_size, kernel_size, stride=1, padding=0):
        super().__init__()
        self.output_size = [(side + 2 * padding - kernel_size) // stride + 1 for side in input_size]
        places, inputs = math.prod(self.output_size), in_channels * kernel_size**2
        self.weight = nn.Parameter(torch.empty(places, out_channels, inputs).uniform_(-1, 1) * math.sqrt(2 / inputs))
        self.bias = nn.Parameter(torch.zeros(out_channels, places))
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(self, x):
        x = F.unfold(x, self.kernel_size, padding=self.padding, stride=self.stride)
        columns = [weight @ column[..., None] for weight, column in zip(self.weight, x.unbind(2), strict=True)]
        return (torch.cat(columns, 2) + self.bias).unflatten(2, self.output_size)


class Local(LocallyConnected2d):
    def forward(self, x):
        return F.leaky_relu(super().forward(x), 0.1)


class Connected(nn.Module):
    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        bound = math.sqrt(2 / in_features)
        nn.init.uniform_(self.linear.weight, -bound, bound)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x):
        return self.linear(x.flatten(1))


class YOLOv1(nn.Module):
    """Images (N, C, H, W) from 0 to 1; outputs and `losses` are those of ours."""

    def __init__(
        self,
        layers: str,
        num_classes: int = 20,
        num_boxes: int = 2,
        image_size: int = 448,
        dropout: float = 0.5,
        score_thresh: float = 0.2,
        nms_thresh: float = 0.4,
        detections_per_img: int = 100,
        in_channels: int = 3,
        width: float = 1,
    ):
        super().__init__()
        self.side, self.num_classes, self.num_boxes = image_size // 64, num_classes, num_boxes
        self.plan = layers
        self.score_thresh, self.nms_thresh, self.detections_per_img = score_thresh, nms_thresh, detections_per_img
        self.layers, channels = nn.ModuleList(), in_channels
        for layer in layers.split():
            if layer == "M":
                self.layers.append(nn.MaxPool2d(2))
            elif layer == "dropout":
                self.layers.append(nn.Dropout(dropout))
            elif layer == "local":
                before, channels = channels, int(256 * width)
                self.layers.append(Local(before, channels, [self.side] * 2, 3, padding=1))
            else:
                before = channels
                channels, kernel_size, *stride = map(int, layer.split("/"))
                channels = int(channels * width)
                self.layers.append(Convolutional(before, channels, kernel_size, *stride or [1]))
        outputs = num_classes + 5 * num_boxes
        self.layers.append(Connected(channels * self.side**2, self.side**2 * outputs))

    def cells(self, images):
        """Of each image and cell the classes (N, S², C), confidences (N, S², B) and boxes (N, S², B, 4)."""
        for layer in self.layers:
            images = layer(images)
        places = self.side**2
        classes, confidences, boxes = images.split(
            [places * self.num_classes, places * self.num_boxes, places * self.num_boxes * 4], 1
        )
        shape = len(images), places
        return (
            classes.reshape(*shape, self.num_classes),
            confidences.reshape(*shape, self.num_boxes),
            boxes.reshape(*shape, self.num_boxes, 4),
        )

    def forward(self, images, sizes=None):
        height, width = images.shape[2:]
        result = {
            "boxes": images.new_zeros(len(images), self.detections_per_img, 4),
            "labels": torch.zeros(len(images), self.detections_per_img, dtype=torch.int64),
            "scores": images.new_zeros(len(images), self.detections_per_img),
            "valid": torch.zeros(len(images), self.detections_per_img, dtype=torch.bool),
        }
        for i, (classes, confidences, boxes) in enumerate(zip(*self.cells(images), strict=True)):
            corners = [
                corners_of((x + place % self.side) / self.side, (y + place // self.side) / self.side, w**2, h**2)
                for place, pair in enumerate(boxes)
                for x, y, w, h in pair
            ]
            corners = torch.stack(corners) * images.new_tensor([width, height, width, height])
            found = []
            for label in range(self.num_classes):
                scores = (confidences * classes[:, label, None]).flatten()
                better = (scores > self.score_thresh).nonzero()[:, 0]
                for each in better[nms(corners[better], scores[better], self.nms_thresh)].tolist():
                    found.append((float(scores[each]), label, corners[each]))
            found.sort(key=lambda each: -each[0])
            h, w = (height, width) if sizes is None else sizes[i].tolist()
            for j, (score, label, box) in enumerate(found[: self.detections_per_img]):
                box = torch.minimum(box.clamp(min=0), box.new_tensor([w, h, w, h]))
                for name, value in (("boxes", box), ("labels", label), ("scores", score), ("valid", True)):
                    result[name][i, j] = value
        return result

    def losses(self, images, sizes, targets):
        height, width = images.shape[2:]
        squares = {name: [] for name in ("classification", "objectness", "no_objectness", "bbox_regression")}
        for i, (classes, confidences, boxes) in enumerate(zip(*self.cells(images), strict=True)):
            objects = {}
            for box, label, valid in zip(*(targets[name][i] for name in ("boxes", "labels", "valid")), strict=True):
                if not valid:
                    continue
                x1, y1, x2, y2 = (box.double() / box.new_tensor([width, height, width, height])).tolist()
                x, y, w, h = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
                if w < 0.005 or h < 0.005:
                    continue
                row, column = (min(int(z * self.side), self.side - 1) for z in (y, x))
                objects.setdefault((row, column), (x, y, w, h, int(label)))
            for place in range(self.side**2):
                row, column = divmod(place, self.side)
                responsible = None
                if (row, column) in objects:
                    x, y, w, h, label = objects[row, column]
                    truth = boxes.new_tensor([x, y, w, h])
                    with torch.no_grad():
                        theirs = [
                            torch.stack([(b[0] + column) / self.side, (b[1] + row) / self.side, b[2] ** 2, b[3] ** 2])
                            for b in boxes[place]
                        ]
                    corners = torch.stack([corners_of(*box) for box in theirs])
                    overlaps = box_iou(corners, corners_of(*truth)[None])[:, 0].tolist()
                    if any(overlaps):
                        responsible = overlaps.index(max(overlaps))
                    else:
                        errors = [float((box - truth).norm()) for box in theirs]
                        responsible = errors.index(min(errors))
                    for other in range(self.num_classes):
                        squares["classification"].append((float(other == label) - classes[place, other]) ** 2)
                    goal = (x * self.side - column, y * self.side - row, math.sqrt(w), math.sqrt(h))
                    for wanted, value in zip(goal, boxes[place, responsible], strict=True):
                        squares["bbox_regression"].append(5 * (wanted - value) ** 2)
                    squares["objectness"].append((overlaps[responsible] - confidences[place, responsible]) ** 2)
                for j, confidence in enumerate(confidences[place]):
                    if j != responsible:
                        squares["no_objectness"].append(0.5 * confidence**2)
        zero = confidences.new_zeros(())
        return {name: sum(values, zero) / 2 / len(images) for name, values in squares.items()}


def corners_of(x, y, w, h):
    return torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2])


def yolov1(**arguments) -> YOLOv1:
    return YOLOv1(FULL, **arguments)


def yolov1_tiny(**arguments) -> YOLOv1:
    return YOLOv1(TINY, **arguments)
