"""jaxzoo: PyTorch's vision architectures in Flax NNX, with weight parity."""

from importlib import import_module

_HOME = {
    "Preprocess": "jaxzoo.preprocess",
    "UsageError": "jaxzoo.errors",
    "card": "jaxzoo.registry",
    "create_model": "jaxzoo.registry",
    "eval_transform": "jaxzoo.preprocess",
    "feature_extractor": "jaxzoo.feature_extraction",
    "imagenet_classes": "jaxzoo.imagenet",
    "list_models": "jaxzoo.registry",
    "model_info": "jaxzoo.figures",
    "read_image": "jaxzoo.images",
    "register_model": "jaxzoo.registry",
}
__version__ = "0.1.0"
__all__ = list(_HOME)


def __getattr__(name: str):
    # JAX is imported when it is first needed: the command lines choose its settings before that.
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name in ("crf", "inspect", "nn", "registry"):
        return import_module(f"jaxzoo.{name}")
    raise AttributeError(f"module 'jaxzoo' has no attribute {name!r}")
