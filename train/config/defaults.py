"""What options are when nobody gives them: they follow from the optimizer, the network and the size of the data."""

import dataclasses
import math
import re
from typing import Any

import jax
from flax import nnx

import jaxzoo
from jaxzoo import nn
from train.config.options import UNCHANGED, Config, head_alone, option
from train.data import BUILTIN_DATASET, Data, picture_side
from train.tasks import of_model

LEARNING_RATES = {"adamw": 1e-3, "lamb": 1e-3, "sgd": 0.05, "sgd_nesterov": 0.05, "rmsprop": 0.01, "rmsprop_tf": 0.01}
SMALL, MANY = 64, 10_000  # pixels of a picture's shorter side; images
CHARACTER = re.compile(r"\d+|.|zero|one|two|three|four|five|six|seven|eight|nine", re.IGNORECASE)
FURTHER = ("color_jitter", "auto_augment", "random_erase", "mixup", "cutmix")
NORMS = (nn.BatchNorm, nn.LayerNorm, nn.GroupNorm)


def named(config: Config) -> Config:
    """`config` with what only the task decides: its data, which comes with jaxzoo, and the batch size, unless they
    were given. Raises UsageError."""
    data, size = BUILTIN_DATASET[jaxzoo.card(config.model).task], of_model(config.model).BATCH_SIZE
    return dataclasses.replace(config, data=config.data or data, batch_size=config.batch_size or size)


def filled(config: Config, data: Data, model: nnx.Module, side: int = 32) -> Config:
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
    if config.data in BUILTIN_DATASET.values() and not pretrained:
        rate *= kind.DEMO_LR_SCALE
    chosen = {
        "epochs": epochs(config, len(data.train), model, tiny=tiny),
        "head_lr": 10.0 if config.weights_backbone else 1.0,
        "lr": float(f"{rate:.2g}"),
        "clip_norm": 1.0 if plain else 0.0,
    }
    if "crop_area" in kind.INAPPLICABLE_OPTIONS:
        chosen |= {"flip": "yes" if data.photographs else "no"}
    else:
        chosen |= augmentation(data, side)[0]
    chosen |= kind.DEFAULTS | (UNCHANGED if config.cache_features else {})
    unset = {
        name: value
        for name, value in chosen.items()
        if getattr(config, name) in (None, "auto") and name not in kind.INAPPLICABLE_OPTIONS
    }
    return dataclasses.replace(config, **unset)


def augmentation(data: Data, side: int) -> tuple[dict[str, Any], str]:
    """How training images of `side` pixels are cropped, moved and mirrored, and why.

    Random crops that may leave a twelfth, as for ImageNet, or a third where images are few. Of small pictures they
    would leave too little: these are moved within a border, by 2 pixels of 32, and mirrored unless their classes are
    called as characters are. (Long runs bear the 4 pixels that are usual for CIFAR, short ones learn less with them.)
    """
    if not data.photographs:
        return {"crop_area": 1.0, "shift": 2, "flip": "no"}, "for these pictures"
    pictures = picture_side(data.train) if len(data.train) else None
    if pictures and pictures < SMALL:
        characters = all(map(CHARACTER.fullmatch, data.classes))
        why = f"for pictures of {pictures} pixels, under {SMALL}"
        why += f", and classes such as {data.classes[0]} and {data.classes[-1]}" if characters else ""
        return {"crop_area": 1.0, "shift": round(side / 16), "flip": "no" if characters else "yes"}, why
    few = len(data.train) < MANY
    why = f"for {'fewer than' if few else 'at least'} {MANY:,} images"
    return {"crop_area": 0.35 if few else 0.08, "shift": 0, "flip": "yes"}, why


def augmentation_line(asked: Config, config: Config, data: Data, side: int) -> str:
    """What training images go through, and why, where nobody `asked` for it."""
    if "crop_area" in of_model(config.model).INAPPLICABLE_OPTIONS:
        low, high = config.scale or of_model(config.model).usual_scale(data)
        parts, why = [f"scaled by {low:g} to {high:g}", "cropped"], ""
    else:
        parts = [f"crops of at least {config.crop_area:.0%} of the area"] if config.crop_area < 1 else []
        parts += [f"moved by up to {config.shift} pixels"] if config.shift else []
        chosen, why = augmentation(data, side)
        kept = all(getattr(config, name) == value for name, value in chosen.items())
        free = any(getattr(asked, name) in (None, "auto") for name in chosen)
        why = f" ({why})" if kept and free else ""
    parts += ["mirrored at random" if config.flip == "yes" else "not mirrored"]
    parts += [f"{option(name)} {_words(getattr(config, name))}" for name in FURTHER if _is_on(getattr(config, name))]
    return f"augmentation: {', '.join(parts)}{why}"


def _is_on(value: Any) -> bool:
    return value != "none" and any(value if isinstance(value, tuple) else (value,))


def _words(value: Any) -> str:
    return " ".join(f"{part:g}" for part in value) if isinstance(value, tuple) else str(value)


def epochs(config: Config, images: int, model: nnx.Module, *, tiny: bool) -> int:
    """How often to go through so many images.

    BatchNorm's running statistics, which evaluation uses, have to get from 0 and 1 to those of the images. Where they
    move slowly (MobileNetV3: 1 % a step), few images need more epochs for that than for learning: as many as make
    ten times 1 / momentum steps, up to 50.
    """
    embedded = config.data in BUILTIN_DATASET.values() and not tiny
    usual = 10 if config.weights else of_model(config.model).DEMO_EPOCHS if embedded else 30
    shares = [m.share for _, m in nnx.iter_modules(model) if isinstance(m, nn.BatchNorm) and m.share]
    if config.weights or not shares:
        return usual
    return max(usual, min(50, math.ceil(10 / max(shares) / max(1, images // config.batch_size))))
