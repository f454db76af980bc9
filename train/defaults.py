"""What options are when nobody gives them: they follow from the optimizer, the network and the size of the data."""

import dataclasses

import jax
from flax import nnx

from jaxzoo import nn
from train.config import Config
from train.data import Data

LEARNING_RATES = {"adamw": 1e-3, "lamb": 1e-3, "sgd": 0.05, "sgd_nesterov": 0.05, "rmsprop": 0.01, "rmsprop_tf": 0.01}
NORMS = (nn.BatchNorm, nn.LayerNorm, nn.GroupNorm)


def filled(config: Config, data: Data, model: nnx.Module) -> Config:
    """`config` with a value for every option that was left to be chosen; `model` may be abstract.

    A large network without normalisation (AlexNet, VGG, SqueezeNet) diverges at rates that others like, so it gets a
    third of them and clipped gradients; a tiny one (LeNet-5) is the other way round, and needs more epochs. Pretrained
    weights are moved less, and need fewer. With few images, crops are milder.
    """
    tiny = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))) < 300_000
    plain = not tiny and not any(isinstance(module, NORMS) for _, module in nnx.iter_modules(model))
    scale = (0.1 if config.weights else 1) * (3 if tiny else 1 / 3 if plain else 1)
    rate = LEARNING_RATES[config.optimizer] * scale
    chosen = {
        "epochs": 10 if config.weights else 7 if config.data == "digits" and not tiny else 30,
        "lr": float(f"{rate:.2g}"),
        "clip_norm": 1.0 if plain else 0.0,
        "crop_area": (0.08 if len(data.train) >= 10_000 else 0.35) if data.photographs else 1.0,
        "shift": 0 if data.photographs else 2,
        "flip": "yes" if data.photographs else "no",
    }
    unset = {name: value for name, value in chosen.items() if getattr(config, name) in (None, "auto")}
    return dataclasses.replace(config, **unset)
