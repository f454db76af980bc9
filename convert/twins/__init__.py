"""PyTorch twins: the reference module that a model's card names; here are those that no package has."""

import importlib
import inspect
import warnings

import numpy as np

from convert.files import require_torch
from jaxzoo.errors import UsageError
from jaxzoo.registry import ModelCard


def build_twin(card: ModelCard, **arguments):
    """The torch module of a card, randomly initialised by torch's generator, in eval mode; downloads nothing.

    A twin is `torchvision:resnet50`, `timm:mobilevit_s`, `pytorchcv:alexnet`, or `package.module:callable`.

    Args:
      card: a model's card.
      **arguments: of the builder, such as `num_classes`.

    Raises:
      UsageError: the package is not installed, or has no such builder.
    """
    package, _, name = card.twin.partition(":")
    require_torch(f"the reference of {card.name}")
    try:
        if package == "torchvision":
            builder = importlib.import_module("torchvision.models").get_model_builder(name)
            if builder.__module__.startswith("torchvision.models.detection."):  # they resize images themselves
                builder = importlib.import_module("convert.twins.detection").builder(name)
            # The builders of segmentation and detection would download their backbone.
            offline = {"weights": None, "weights_backbone": None}
            arguments |= {key: v for key, v in offline.items() if key in inspect.signature(builder).parameters}
        elif package == "timm":
            builder = importlib.import_module("timm").create_model
            arguments |= {"model_name": name}
        elif package == "pytorchcv":
            builder = importlib.import_module("pytorchcv.model_provider").get_model
            arguments |= {"name": name}
        else:
            builder = getattr(importlib.import_module(package), name)
    except ImportError as error:
        raise UsageError(
            f"the reference of {card.name} is {card.twin}, which needs: pip install {error.name}"
        ) from None
    except (ValueError, AttributeError):
        raise UsageError(
            f"the reference of {card.name} is {card.twin}, which this version of {package} lacks"
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of initialisations that may become others
        return builder(**arguments).eval()


def abstract_twin(card: ModelCard, **arguments):
    """The torch module of a card without its numbers, on torch's meta device."""
    import torch
    from torch.overrides import TorchFunctionMode

    class Countable(TorchFunctionMode):
        """What builders compute widths and rates with has numbers."""

        def __torch_function__(self, function, types, args=(), kwargs=None):
            device = {"device": "cpu"} if function in (torch.arange, torch.tensor) else {}
            return function(*args, **device | (kwargs or {}))

    with torch.device("meta"), Countable():
        return build_twin(card, **arguments).to("meta")


def randomise(twin, seed: int) -> None:
    """Makes every weight count: running statistics, and parameters that start as constants, become random, in place."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in twin.parameters():
            if parameter.numel() and parameter.min() == parameter.max():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        for name, buffer in twin.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(std=0.1, generator=generator)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5, generator=generator)


def arrays(twin) -> dict[str, np.ndarray]:
    """A twin's state_dict as NumPy arrays, as `convert.read` gives them."""
    return {name: tensor.numpy() for name, tensor in twin.state_dict().items()}
