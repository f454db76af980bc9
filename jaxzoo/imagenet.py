"""The names of ImageNet-1K's classes."""

import functools
from importlib import resources


@functools.cache
def imagenet_classes() -> tuple[str, ...]:
    """The 1,000 names in the order of the outputs of every network trained on ImageNet-1K; 281 is "tabby"."""
    return tuple(resources.files("jaxzoo").joinpath("imagenet_classes.txt").read_text().splitlines())
