"""What options are when nobody gives them: they follow from the optimizer, the network and the size of the data."""

import dataclasses
import math

import jax
from flax import nnx

import jaxzoo
from jaxzoo import nn
from train.config.options import UNCHANGED, Config, head_alone
from train.data import Data, default_source, is_default_source
from train.tasks import of_model

LEARNING_RATES = {"adamw": 1e-3, "lamb": 1e-3, "sgd": 0.05, "sgd_nesterov": 0.05, "rmsprop": 0.01, "rmsprop_tf": 0.01}
LINES = 50  # of steps.jsonl that a run has at least, and the most steps between two of them
NORMS = (nn.BatchNorm, nn.LayerNorm, nn.GroupNorm)


def named(config: Config) -> Config:
    """`config` with what only the task decides: its data, which comes with jaxzoo, and the batch size, unless they
    were given. Raises UsageError."""
    size = of_model(config.model).BATCH_SIZE  # whose file may make its sources known
    data = default_source(jaxzoo.card(config.model).task)
    return dataclasses.replace(config, data=config.data or data, batch_size=config.batch_size or size)


def filled(config: Config, data: Data, model: nnx.Module, side: int | None = 32) -> Config:
    """`config` with a value for every option that was left to be chosen; `model` may be abstract, and trains on images
    of `side` pixels.

    A large network without normalisation (AlexNet, VGG, SqueezeNet) diverges at rates that others like, so it gets a
    third of them and clipped gradients; a tiny one (LeNet-5) is the other way round, and needs more epochs. Pretrained
    weights are moved less (those with batch norm bear more than transformers), and need fewer, but a fresh head on a
    frozen backbone is no different from other fresh layers. Features are computed of images as they are.
    """
    tiny = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))) < 300_000
    plain = not tiny and not any(isinstance(module, NORMS) for _, module in nnx.iter_modules(model))
    pretrained = config.weights or config.weights_backbone
    batch_norm = any(isinstance(module, nn.BatchNorm) for _, module in nnx.iter_modules(model))
    gentle = (0.3 if batch_norm else 0.1) if pretrained and not head_alone(config) else 1
    kind, config = of_model(config.model), named(config)
    rate = LEARNING_RATES[config.optimizer] * gentle * (3 if tiny else 1 / 3 if plain else 1)
    if is_default_source(config.data) and not pretrained:
        rate *= kind.DEMO_LR_SCALE
    chosen = {
        "epochs": epochs(config, len(data.train), model, tiny=tiny),
        "head_lr": 10.0 if config.weights_backbone else 1.0,
        "lr": float(f"{rate:.2g}"),
        "clip_norm": 1.0 if plain else 0.0,
    }
    steps = (config.epochs or chosen["epochs"]) * (len(data.train) // config.batch_size)
    chosen["log_every"] = min(LINES, max(1, steps // LINES))
    chosen |= kind.usual_options(data, side) | (UNCHANGED if config.cache_features else {})
    unset = {
        name: value
        for name, value in chosen.items()
        if getattr(config, name) in (None, "auto") and name not in kind.INAPPLICABLE_OPTIONS
    }
    return dataclasses.replace(config, **unset)


def epochs(config: Config, images: int, model: nnx.Module, *, tiny: bool) -> int:
    """How often to go through so many images.

    BatchNorm's running statistics, which evaluation uses, have to get from 0 and 1 to those of the images. Where they
    move slowly (MobileNetV3: 1 % a step), few images need more epochs for that than for learning: as many as make
    ten times 1 / momentum steps, up to 50.
    """
    embedded = is_default_source(config.data) and not tiny
    usual = 10 if config.weights else of_model(config.model).DEMO_EPOCHS if embedded else 30
    shares = [m.share for _, m in nnx.iter_modules(model) if isinstance(m, nn.BatchNorm) and m.share]
    if config.weights or not shares:
        return usual
    return max(usual, min(50, math.ceil(10 / max(shares) / max(1, images // config.batch_size))))
