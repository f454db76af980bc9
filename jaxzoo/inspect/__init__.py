"""Looking into a model: its submodules, the output of each by its path, its cost and its receptive field."""

from jaxzoo.inspect.flops import multiply_adds
from jaxzoo.inspect.outputs import outputs
from jaxzoo.inspect.receptive_field import ReceptiveField, hybrid_dilation, receptive_field
from jaxzoo.inspect.summary import summary

__all__ = ["ReceptiveField", "hybrid_dilation", "multiply_adds", "outputs", "receptive_field", "summary"]
