"""Looking into a model: its submodules, the output of each by its path, its cost and receptive field, and the places in
images that speak for an output."""

from jaxzoo.inspect.cam import attention_rollout, box_score, cam, cam_layer, class_score, heatmap, pixel_score
from jaxzoo.inspect.flops import multiply_adds
from jaxzoo.inspect.maps import embed, stages, strongest
from jaxzoo.inspect.outputs import outputs
from jaxzoo.inspect.parameters import (
    Change,
    ParameterStatistics,
    changes,
    dead_kernels,
    kernel_of,
    parameter_statistics,
    parameters,
)
from jaxzoo.inspect.plane import nearest, principal_plane, tsne_plane
from jaxzoo.inspect.receptive_field import ReceptiveField, hybrid_dilation, receptive_field
from jaxzoo.inspect.summary import summary

__all__ = [
    "Change",
    "ParameterStatistics",
    "ReceptiveField",
    "attention_rollout",
    "box_score",
    "cam",
    "cam_layer",
    "changes",
    "class_score",
    "dead_kernels",
    "embed",
    "heatmap",
    "hybrid_dilation",
    "kernel_of",
    "multiply_adds",
    "nearest",
    "outputs",
    "parameter_statistics",
    "parameters",
    "pixel_score",
    "principal_plane",
    "receptive_field",
    "stages",
    "strongest",
    "summary",
    "tsne_plane",
]
