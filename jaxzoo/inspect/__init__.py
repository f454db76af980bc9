"""Looking into a model: its submodules, the output of each by its path, and what it costs to compute."""

from jaxzoo.inspect.flops import multiply_adds
from jaxzoo.inspect.outputs import outputs
from jaxzoo.inspect.summary import summary

__all__ = ["multiply_adds", "outputs", "summary"]
