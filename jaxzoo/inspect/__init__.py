"""Looking into a model: the output of every submodule by its path."""

from jaxzoo.inspect.outputs import outputs

__all__ = ["outputs"]
