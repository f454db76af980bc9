"""jaxzoo: PyTorch's vision architectures in Flax NNX, with weight parity."""

from jaxzoo.errors import UsageError
from jaxzoo.preprocess import Preprocess, eval_transform, read_image
from jaxzoo.registry import card, create_model, list_models, model_info, register_model

__version__ = "0.1.0"
__all__ = [
    "Preprocess",
    "UsageError",
    "card",
    "create_model",
    "eval_transform",
    "list_models",
    "model_info",
    "read_image",
    "register_model",
]
