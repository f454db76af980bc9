"""The commands of `jaxzoo`: each the function of its file's name, but for `train` and `convert`, which are packages."""

from collections.abc import Callable
from importlib import import_module

from jaxzoo.commands import inspect

SUMMARIES = {
    "train": "Train a model, continue a run, or evaluate; `train data` shows data, `train recipes` recipes.",
    "convert": "Move weights between PyTorch and Flax, and compare both sides.",
    "predict": "Classify or segment images.",
    "list": "List the models: size, cost, published accuracy.",
    "info": "Show a model: paper, published weights, modules.",
    "generate": "Draw new images from a trained VAE or Boltzmann machine.",
    "reconstruct": "Reconstruct images by an autoencoder; clean noisy ones.",
    "bench": "Measure speed and memory, beside PyTorch.",
    "inspect": "Look into a model: class activation maps, features, kernels, changes, embeddings.",
}
PARTS = {"inspect": inspect.SUMMARIES}
"""Of commands that are several; one is called `inspect.cam` here."""
COMMANDS = {*SUMMARIES, *(f"{name}.{part}" for name, parts in PARTS.items() for part in parts)} - PARTS.keys()


def command(name: str) -> Callable:
    """The function of a command, imported when it is asked for, so that `jaxzoo --help` answers at once."""
    path = name.replace("-", "_")
    return getattr(import_module(f"jaxzoo.commands.{path}"), path.rpartition(".")[2])
