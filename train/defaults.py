"""What options are when nobody gives them: they follow from the optimizer, the network and the size of the data."""

import dataclasses
import math

import jax
from flax import nnx

import jaxzoo
from jaxzoo import nn
from train.config import UNCHANGED, Config, head_alone
from train.data import EMBEDDED, Data
from train.tasks import of_model

LEARNING_RATES = {"adamw": 1e-3, "lamb": 1e-3, "sgd": 0.05, "sgd_nesterov": 0.05, "rmsprop": 0.01, "rmsprop_tf": 0.01}
NORMS = (nn.BatchNorm, nn.LayerNorm, nn.GroupNorm)


def named(config: Config) -> Config:
    """`config` with what only the task decides: its data, which comes with jaxzoo, and the batch size, unless they
    were given. Raises UsageError."""
    data, size = EMBEDDED[jaxzoo.card(config.model).task], of_model(config.model).BATCH_SIZE
    return dataclasses.replace(config, data=config.data or data, batch_size=config.batch_size or size)


def filled(config: Config, data: Data, model: nnx.Module) -> Config:
    """`config` with a value for every option that was left to be chosen; `model` may be abstract.

    A large network without normalisation (AlexNet, VGG, SqueezeNet) diverges at rates that others like, so it gets a
    third of them and clipped gradients; a tiny one (LeNet-5) is the other way round, and needs more epochs. Pretrained
    weights are moved less (those with batch norm bear more than transformers), and need fewer, but a fresh head on a
    frozen backbone is no different from other fresh layers. With few images, crops are milder; features are computed of
    images as they are.
    """
    tiny = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))) < 300_000
    plain = not tiny and not any(isinstance(module, NORMS) for _, module in nnx.iter_modules(model))
    pretrained = config.weights or config.weights_backbone
    batch_norm = any(isinstance(module, nn.BatchNorm) for _, module in nnx.iter_modules(model))
    gentle = (0.3 if batch_norm else 0.1) if pretrained and not head_alone(config) else 1
    kind, config = of_model(config.model), named(config)
    rate = LEARNING_RATES[config.optimizer] * gentle * (3 if tiny else 1 / 3 if plain else 1)
    if config.data in EMBEDDED.values() and not pretrained:
        rate *= kind.EMBEDDED[1]
    chosen = {
        "epochs": epochs(config, len(data.train), model, tiny=tiny),
        "head_lr": 10.0 if config.weights_backbone else 1.0,
        "lr": float(f"{rate:.2g}"),
        "clip_norm": 1.0 if plain else 0.0,
        "crop_area": (0.08 if len(data.train) >= 10_000 else 0.35) if data.photographs else 1.0,
        "shift": 0 if data.photographs else 2,
        "flip": "yes" if data.photographs else "no",
    }
    chosen |= kind.DEFAULTS | (UNCHANGED if config.cache_features else {})
    unset = {
        name: value
        for name, value in chosen.items()
        if getattr(config, name) in (None, "auto") and name not in kind.FOREIGN
    }
    return dataclasses.replace(config, **unset)


def epochs(config: Config, images: int, model: nnx.Module, *, tiny: bool) -> int:
    """How often to go through so many images.

    BatchNorm's running statistics, which evaluation uses, have to get from 0 and 1 to those of the images. Where they
    move slowly (MobileNetV3: 1 % a step), few images need more epochs for that than for learning: as many as make
    ten times 1 / momentum steps, up to 50.
    """
    embedded = config.data in EMBEDDED.values() and not tiny
    usual = 10 if config.weights else of_model(config.model).EMBEDDED[0] if embedded else 30
    shares = [m.share for _, m in nnx.iter_modules(model) if isinstance(m, nn.BatchNorm) and m.share]
    if config.weights or not shares:
        return usual
    return max(usual, min(50, math.ceil(10 / max(shares) / max(1, images // config.batch_size))))
