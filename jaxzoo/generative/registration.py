"""How models of this task are entered in the registry: for images of 28×28 pixels as MNIST's are, unless said."""

from collections.abc import Callable
from functools import partial

from jaxzoo.preprocess import Pixels
from jaxzoo.registry import one_image, register_model

SIDE = 28


def register_reconstruction(**facts) -> Callable[[Callable], Callable]:
    """`register_model` for a builder with the arguments image_size and in_channels, of which 1 is the default."""
    inputs = partial(one_image, in_channels=1)
    return register_model(
        task="reconstruction", head=(), input_size=SIDE, preparation=Pixels(SIDE), inputs=inputs, **facts
    )
