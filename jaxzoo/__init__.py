"""jaxzoo: PyTorch's vision architectures in Flax NNX, with weight parity."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors, which do not follow `__getattr__`
    from jaxzoo import crf as crf
    from jaxzoo import inspect as inspect
    from jaxzoo import nn as nn
    from jaxzoo import registry as registry
    from jaxzoo.detection.detect import detect as detect
    from jaxzoo.errors import UsageError as UsageError
    from jaxzoo.feature_extraction import feature_extractor as feature_extractor
    from jaxzoo.imagenet import imagenet_classes as imagenet_classes
    from jaxzoo.images import read_image as read_image
    from jaxzoo.inspect.model_info import model_info as model_info
    from jaxzoo.preprocess import Preprocess as Preprocess
    from jaxzoo.preprocess import eval_transform as eval_transform
    from jaxzoo.registry import (
        card as card,
    )
    from jaxzoo.registry import (
        create_model as create_model,
    )
    from jaxzoo.registry import (
        list_models as list_models,
    )
    from jaxzoo.registry import (
        register_model as register_model,
    )

_HOME = {
    "Preprocess": "jaxzoo.preprocess",
    "UsageError": "jaxzoo.errors",
    "card": "jaxzoo.registry",
    "create_model": "jaxzoo.registry",
    "detect": "jaxzoo.detection.detect",
    "eval_transform": "jaxzoo.preprocess",
    "feature_extractor": "jaxzoo.feature_extraction",
    "imagenet_classes": "jaxzoo.imagenet",
    "list_models": "jaxzoo.registry",
    "model_info": "jaxzoo.inspect.model_info",
    "read_image": "jaxzoo.images",
    "register_model": "jaxzoo.registry",
}
__version__ = "0.1.0"
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    # JAX is imported when it is first needed: the command lines choose its settings before that.
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name in ("crf", "inspect", "nn", "registry"):
        return import_module(f"jaxzoo.{name}")
    raise AttributeError(f"module 'jaxzoo' has no attribute {name!r}")
