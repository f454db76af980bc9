"""Detectors and their twins: images on a canvas, boxes to learn, and what is compared of them."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

import jaxzoo
from convert.twins import abstract_twin
from jaxzoo import inspect
from jaxzoo.registry import argument_names
from tests.parity import ladder

CANVAS = (128, 160)  # for detectors of images of any size
THRESHOLD = 0.01  # of scores, at which random weights leave hundreds of candidates
SMALL = {  # numbers of boxes, of which a small canvas has no more, and of classes
    "num_classes": 7,
    "rpn_pre_nms_top_n_test": 150,
    "rpn_post_nms_top_n_test": 200,
    "rpn_pre_nms_top_n_train": 120,
    "rpn_post_nms_top_n_train": 140,
    "box_detections_per_img": 110,
    "box_batch_size_per_image": 100,  # of the proposals a sample
}
POINTS = {"num_keypoints": 5, "num_classes": 2, "box_detections_per_img": 50}
SPREAD = {  # standard deviations that outputs are given, for scores to differ and boxes to move
    "rpn.head.cls_logits": 3.0,
    "rpn.head.bbox_pred": 2.0,
    "roi_heads.box_predictor.cls_score": 1.2,
    "roi_heads.box_predictor.bbox_pred": 4.0,
}


class DetectorPair(ladder.Pair):
    """A detector and its twin in float64, with the same numbers. Two images of different sizes share a canvas."""

    seeds = (0, 1)
    least = 12  # detections in each image

    def __init__(self, name: str, reduced: bool = False):
        super().__init__(name, reduced)
        self.batch, self.dense = 2, True
        for side in (self.model, self.twin):
            heads = getattr(side, "roi_heads", None)
            (heads or side).score_thresh = THRESHOLD if heads is None else 5 * THRESHOLD

    def arguments(self, name: str) -> dict:
        names = argument_names(name)
        return (SMALL if SMALL.keys() <= set(names) else {}) | (POINTS if "num_keypoints" in names else {})

    @torch.no_grad()
    def randomise(self) -> None:
        super().randomise()
        inputs, modules = [*map(ladder.as_torch, self.inputs())], dict(self.twin.named_modules())
        for path in [path for path in SPREAD if path in modules]:
            outputs: list[torch.Tensor] = []
            hook = modules[path].register_forward_hook(lambda module, given, y, to=outputs: to.append(y.flatten()))
            self.twin.eval()(*inputs)
            hook.remove()
            for parameter in modules[path].parameters():
                parameter *= SPREAD[path] / torch.cat(outputs).std()

    @staticmethod
    def first_size(name: str) -> tuple[int, int]:
        """The small canvas, or the size of the images where the network takes no smaller ones."""
        card = jaxzoo.card(name)
        try:
            trunk(abstract_twin(card))(torch.empty(2, 3, *CANVAS, device="meta"))
        except (RuntimeError, ValueError):  # a kernel does not fit, or the size is built in
            return card.preprocess.fixed_size
        return CANVAS

    def inputs(self, seed: int = 0, size: tuple[int, int] | None = None, batch: int | None = None) -> tuple:
        x = ladder.images(self.size, 2, seed)
        height, width = self.size
        sizes = np.array([[height, width - 20], [height - 28, width]], np.int32)
        for image, (h, w) in zip(x, sizes, strict=True):
            image[h:], image[:, w:] = 0, 0
        return x, sizes

    def labels(self, seed: int) -> dict[str, np.ndarray]:
        """Six rows for each image: two boxes, a duplicate, one that no anchor matches well, for regions one that
        overlaps nothing; the last pad, and would be seen if they counted. With even seeds one image has no boxes."""
        draws, most = np.random.default_rng(seed), 6
        boxes = np.tile([3.0, 4.0, 60.0, 70.0], (2, most, 1))
        corner = draws.uniform(0, np.array(self.size[::-1]) / 2, (2, 5, 2))
        sides = draws.uniform(16, np.array(self.size[::-1]) / 2.2, (2, 5, 2))
        boxes[:, :5] = np.concatenate([corner, corner + sides], -1)
        boxes[:, 2], boxes[:, 3, 2:] = boxes[:, 1], boxes[:, 3, :2] + 3
        regions = hasattr(self.model, "roi_heads")
        boxes[:, 4, :] = boxes[:, 4, :] + (2 * max(self.size) if regions else 0)
        valid = np.arange(most) < np.array([[5 if regions else 4], [0 if seed % 2 == 0 else 2]])
        heads = getattr(self.model, "roi_heads", None)
        points = hasattr(heads, "keypoint_head")
        labels = draws.integers(1, 2 if points else 7, valid.shape).astype(np.int32)
        targets = {"boxes": boxes, "labels": labels, "valid": valid}
        if hasattr(heads, "mask_head"):
            targets["masks"] = self._masks(draws, boxes, valid)
        if points:
            targets["keypoints"] = self._keypoints(draws, boxes)
        return targets

    def _masks(self, draws: np.random.Generator, boxes: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Random pixels in the upper three quarters of each box; all of them in rows that pad."""
        masks = np.ones((*valid.shape, *self.size), np.uint8)
        y, x = np.mgrid[: self.size[0], : self.size[1]]
        for place in zip(*np.nonzero(valid), strict=True):
            x1, y1, x2, y2 = boxes[place]
            inside = (x1 <= x) & (x < x2) & (y1 <= y) & (y < y2 - (y2 - y1) / 4)
            masks[place] = inside & (draws.random(self.size) < 0.7)
        return masks

    @staticmethod
    def _keypoints(draws: np.random.Generator, boxes: np.ndarray) -> np.ndarray:
        """Some in their box, one on its far corner, some outside, some not visible."""
        share = draws.uniform(-0.1, 1.1, (*boxes.shape[:2], POINTS["num_keypoints"], 2))
        share[:, :, 0] = 1
        places = boxes[:, :, None, :2] + share * (boxes[:, :, None, 2:] - boxes[:, :, None, :2])
        seen = draws.integers(0, 3, (*share.shape[:3], 1))
        return np.concatenate([places, seen], -1).astype(np.float32).astype(float)  # as torchvision asks for

    def to_train_mode(self) -> None:
        super().to_train_mode()
        self.model.set_attributes(deterministic=True, raise_if_not_found=False)  # samplers take the lowest indices

    def total(self, losses: dict):
        return sum(losses.values())

    @staticmethod
    def outputs(model: nnx.Module, *inputs: jax.Array) -> dict[str, jax.Array]:
        return dict(_named(inspect.outputs(model, *inputs)))

    @staticmethod
    def twin_outputs(twin: torch.nn.Module, *inputs: torch.Tensor) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}

        def keep(path: str):
            def hook(module, inputs, output):  # copies, for a ReLU in place may follow
                found.update({name: _channels_last(path, array) for name, array in _named({path: output})})

            return hook

        hooks = [module.register_forward_hook(keep(path)) for path, module in twin.named_modules()]
        twin(*inputs)
        for hook in hooks:
            hook.remove()
        return found

    def losses(self, model: nnx.Module, inputs: tuple, labels) -> tuple[dict, dict]:
        losses = model.losses(*inputs, labels)
        return losses, losses

    def twin_losses(self, inputs: tuple, labels) -> tuple[dict, dict[str, np.ndarray]]:
        targets = {name: torch.from_numpy(rows) for name, rows in labels.items()}
        losses = self.twin.losses(*map(ladder.as_torch, inputs), targets)
        return losses, {name: loss.detach().numpy() for name, loss in losses.items()}

    @classmethod
    def compared(cls, ours: dict, reference: dict, dtype) -> tuple[dict, dict]:
        """Of all layers those of equal shapes: a head's for all boxes, of which torch has as many as it found. In
        float32 without what follows the choice of boxes, which rounding may change."""
        final = {name for name in reference if name.startswith(".")}
        assert final <= ours.keys()
        assert reference[".valid.0"].sum(1).min() >= cls.least, "so few detections show nothing"
        ours, reference = _ordered(ours), _ordered(reference)
        names = {name for name in reference if name in ours and ours[name].shape == reference[name].shape} | final
        if dtype != np.float64:
            names = {name for name in names if not name.startswith((".", "roi_heads"))}
        return tuple({name: side[name] for name in sorted(names)} for side in (ours, reference))


def _ordered(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Boxes of equal scores, which come in any order, by their left edges: those too small to differ for a head."""
    scores, edges = found[".scores.0"], found[".boxes.0"][..., 0]
    rank = np.cumsum(np.diff(scores, prepend=scores[:, :1]) < -1e-12, 1)
    order = np.lexsort((edges, rank))
    each = np.arange(len(order))[:, None]
    return found | {name: array[each, order] for name, array in found.items() if name.startswith(".")}


def trunk(detector: nnx.Module | torch.nn.Module) -> nnx.Module | torch.nn.Module:
    """The layers of a detector that see no numbers of boxes."""
    layers = getattr(detector, "layers", None)
    if isinstance(layers, torch.nn.ModuleList):
        return torch.nn.Sequential(*layers)
    return layers or detector.backbone


def _arrays(output: Any) -> list[Any]:
    """The arrays in nested lists."""
    if isinstance(output, list | tuple):
        return [array for item in output for array in _arrays(item)]
    return [output] if hasattr(output, "shape") else []


def _named(found: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The arrays of all layers by path; those of a head for several levels as one."""
    for path, output in found.items():
        for name, value in output.items() if isinstance(output, dict) else [("", output)]:
            arrays = _arrays(value)
            if len(arrays) > 1 and len({(x.ndim, x.shape[2:]) for x in arrays}) == 1 and arrays[0].ndim == 3:
                arrays = [jnp.concatenate(arrays, 1)]
            yield from ((f"{path}.{name}.{i}", x) for i, x in enumerate(arrays))


def _channels_last(path: str, array: torch.Tensor) -> np.ndarray:
    return (array.movedim(1, -1) if array.ndim == 4 and path else array).numpy().copy()
