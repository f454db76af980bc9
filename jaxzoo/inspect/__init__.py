"""Looking into a model: its submodules, the output of each by its path, its cost and receptive field, and the places in
images that speak for an output."""

from jaxzoo.inspect.cam import attention_rollout, box_score, cam, cam_layer, class_score, heatmap, pixel_score
from jaxzoo.inspect.flops import multiply_adds
from jaxzoo.inspect.outputs import outputs
from jaxzoo.inspect.receptive_field import ReceptiveField, hybrid_dilation, receptive_field
from jaxzoo.inspect.summary import summary

__all__ = [
    "ReceptiveField",
    "attention_rollout",
    "box_score",
    "cam",
    "cam_layer",
    "class_score",
    "heatmap",
    "hybrid_dilation",
    "multiply_adds",
    "outputs",
    "pixel_score",
    "receptive_field",
    "summary",
]
