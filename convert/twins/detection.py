"""torchvision's detectors on a canvas that is given: without their own resizing, with ours' inputs and outputs."""

import functools
from collections.abc import Callable, Mapping
from functools import partial

import torch
import torchvision
from torch.overrides import TorchFunctionMode
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d

Arrays = Mapping[str, torch.Tensor]


def builder(name: str) -> Callable[..., torch.nn.Module]:
    """`build` of torchvision's detector of this name."""
    return partial(build, name)


def build(
    name: str, freeze_batch_norm: bool = False, batch_norm_eps: float | None = None, **arguments
) -> torch.nn.Module:
    """torchvision's detector, with random numbers, as `OnCanvas`.

    Args:
      freeze_batch_norm, batch_norm_eps: of the backbone, as torchvision has them for published weights.
    """
    model = torchvision.models.get_model_builder(name)(weights=None, weights_backbone=None, **arguments)
    for parent in list(model.backbone.modules()):
        for child, norm in parent.named_children():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.eps = norm.eps if batch_norm_eps is None else batch_norm_eps
                if freeze_batch_norm:
                    setattr(parent, child, FrozenBatchNorm2d(norm.num_features, norm.eps))
    return on_canvas(model)


def on_canvas(model: torch.nn.Module) -> torch.nn.Module:
    """One of torchvision's detectors, in place, as a module whose calls and `losses` are those of `OnCanvas`."""
    model.__class__ = _on_canvas(type(model))
    model.transform = Canvas()
    if hasattr(model, "rpn"):
        model.rpn.filter_proposals = _padded(model.rpn)
    return model


def _padded(rpn: torch.nn.Module) -> Callable:
    """`rpn.filter_proposals`, in eval mode with as many boxes as there may be, as ours has: without size, so that
    nothing is found in those that pad."""
    filter_proposals = rpn.filter_proposals

    def padded(proposals, objectness, image_shapes, num_anchors_per_level):
        boxes, scores = filter_proposals(proposals, objectness, image_shapes, num_anchors_per_level)
        if not rpn.training:
            of_level = min(rpn.pre_nms_top_n(), rpn.post_nms_top_n())
            most = min(rpn.post_nms_top_n(), sum(min(of_level, count) for count in num_anchors_per_level))
            boxes = [torch.cat([x, x.new_zeros(most - len(x), 4)]) for x in boxes]
        return boxes, scores

    return padded


@functools.cache
def _on_canvas(kind: type) -> type:
    """The class of torchvision's with the calls of `OnCanvas`."""
    return type(kind.__name__, (OnCanvas, kind), {})


class Canvas(torch.nn.Module):
    """In place of a detector's transform: images stay as they are."""

    sizes: list[tuple[int, int]]

    def forward(self, images: torch.Tensor, targets: list[Arrays] | None) -> tuple[ImageList, list[Arrays] | None]:
        return ImageList(images, self.sizes), targets

    def postprocess(self, result: list[Arrays], *sizes) -> list[Arrays]:
        return result


class OnCanvas:
    """A detector whose inputs, outputs and losses are those of ours, with images (N, C, H, W)."""

    def _prepare(self, images: torch.Tensor, sizes: torch.Tensor | None) -> None:
        whole = [tuple(images.shape[-2:])] * len(images)
        self.transform.sizes = whole if sizes is None else [tuple(size) for size in sizes.tolist()]

    def forward(self, images: torch.Tensor, sizes: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        self._prepare(images, sizes)
        with Exact(images.dtype):
            found = super().forward(images)
        most = getattr(self, "roi_heads", self).detections_per_img

        def padded(rows: torch.Tensor) -> torch.Tensor:
            return torch.cat([rows, rows.new_zeros(most - len(rows), *rows.shape[1:])])

        for each in found:
            each["valid"] = torch.ones(len(each["scores"]), dtype=torch.bool)
            if "masks" in each:
                each["masks"] = each["masks"][:, 0]
        return {name: torch.stack([padded(each[name]) for each in found]) for name in found[0]}

    def losses(self, images: torch.Tensor, sizes: torch.Tensor | None, targets: Arrays) -> dict[str, torch.Tensor]:
        """The losses of train mode; samplers take the lowest indices."""
        self._prepare(images, sizes)
        each = [{name: rows[i][valid] for name, rows in targets.items()} for i, valid in enumerate(targets["valid"])]
        for target in each:
            target["labels"] = target["labels"].long()
            if "keypoints" in target:
                target["keypoints"] = target["keypoints"].float()  # torchvision takes no others
        with Exact(images.dtype):
            return super().forward(images, each)


class Exact(TorchFunctionMode):
    """Has torchvision compute in a dtype, where it asks for float32, and draw no random numbers."""

    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.randperm:
            function = torch.arange
        if function is torch.Tensor.float:
            return args[0].to(self.dtype)
        if kwargs.get("dtype") is torch.float32:
            kwargs = {**kwargs, "dtype": self.dtype}
        return function(*args, **kwargs)
