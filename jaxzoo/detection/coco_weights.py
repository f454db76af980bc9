"""Weights that torchvision publishes, trained on COCO."""

from collections.abc import Mapping

from jaxzoo.detection.transform import DetectionTransform
from jaxzoo.registry import Published


def published(
    transform: DetectionTransform = DetectionTransform(),  # noqa: B008
    name: str = "COCO_V1",
    **facts,
) -> Mapping[str, Published]:
    """Weights of COCO: their metrics, which end in "_map", and arguments of the builder."""
    metrics = {fact: value for fact, value in facts.items() if fact.endswith("_map")}
    arguments = {fact: value for fact, value in facts.items() if fact not in metrics}
    return {name: Published(transform, metrics, arguments, "COCO-val2017")}
