"""Looking into a model: the output of every submodule by its path, and what it costs to compute."""

from jaxzoo.inspect.flops import multiply_adds
from jaxzoo.inspect.outputs import outputs

__all__ = ["multiply_adds", "outputs"]
