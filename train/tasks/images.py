"""Networks that see one image at a time and tell classes apart: how they are built, and what they are shown."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import convert.fitting
import convert.shapes
import jaxzoo
from convert.weights import Weights
from jaxzoo.errors import UsageError
from jaxzoo.inspect.intercept import program
from jaxzoo.preprocess import Preprocess, from_dict
from train.config.options import Config, option, stages
from train.config.options import model_arguments as given_arguments
from train.data import Data

FURTHER = ("color_jitter", "auto_augment", "random_erase", "mixup", "cutmix")


def preparation(config: Config, data: Data, weights: Weights | None) -> Preprocess:
    """The eval transform: what the weights, or else the model, were published with, at the size of this run.

    At another size than the published one, resize and crop keep their proportion.
    """
    base = jaxzoo.card(config.model).preprocess
    if weights and weights.preprocess:
        base = from_dict(weights.preprocess)
    side = config.image_size or (stages(config) or [None])[-1]
    if not side:
        side = smallest(config, data.image_size, base.crop) if data.image_size else base.crop
    return dataclasses.replace(base, crop=side, resize=side) if data.image_size else base.at(side)


def smallest(config: Config, own: int, published: int) -> int:
    """The least side from that of the images upwards that a model can be trained with: of 32 x 32 pixels nothing is
    left to AlexNet or Inception."""
    for side in (own, *(side for side in (64, 96, 128, 160, 192) if own < side < published)):
        try:
            known = {"image_size": side} if takes(config, "image_size") else {}
            model = convert.shapes.abstract(config.model, **known, **given_arguments(config))
            model.train()
            program(model, (2, side, side, 3), lambda path, call: call())
        except UsageError:
            continue
        except (TypeError, ValueError):
            break  # --model-args are wrong, which whoever builds the model says
        return side
    return published


def takes(config: Config, *names: str) -> str | None:
    """The first of these names that the model has an argument of."""
    return next((name for name in names if name in jaxzoo.registry.argument_names(config.model)), None)


def model_arguments(config: Config, data: Data, preprocess: Preprocess, weights: Weights | None) -> dict:
    """What the model is built with: --model-args, --drop-path, the classes, the image size where it must know that."""
    size = {"image_size": preprocess.crop} if takes(config, "image_size") else {}
    for name in ("progressive", "train_size"):
        if size and getattr(config, name):
            raise UsageError(f"{config.model} is built for one image size: it cannot train with {option(name)}")
    depth = {}
    if config.drop_path is not None:
        name = takes(config, "stochastic_depth_prob", "drop_path_rate")  # torchvision's and timm's
        if not name:
            raise UsageError(f"{config.model} has no stochastic depth: leave out --drop-path")
        depth = {name: config.drop_path}
    stride = {}
    if config.output_stride is not None:
        if not takes(config, "output_stride"):
            raise UsageError(f"{config.model} has only one output stride: leave out --output-stride")
        stride = {"output_stride": config.output_stride}
    # A checkpoint tells itself whether it has an auxiliary head.
    auxiliary = {"aux_loss": config.aux_weight != 0} if takes(config, "aux_loss") and not config.weights else {}
    own = given_arguments(config)
    if "num_classes" in own and len(data.classes) != 2:
        raise UsageError(
            f"--model-args num_classes=1 is for two classes, which a sigmoid tells apart; {config.data} has "
            f"{len(data.classes)}: leave it out"
        )
    arguments = {"num_classes": len(data.classes)} | size | depth | stride | auxiliary | own
    return arguments | ({"num_classes": 1} if has_one_output(config, data, weights, arguments) else {})


def has_one_output(config: Config, data: Data, weights: Weights | None, arguments: dict) -> bool:
    """Whether these weights tell two classes apart by a single output."""
    if not weights or len(data.classes) != 2:
        return False
    others = {name: value for name, value in arguments.items() if name != "num_classes"}
    shapes = {key: array.shape for key, array in weights.tensors.items()}
    return convert.fitting.infer_arguments(config.model, shapes, weights.arguments, others)[0].get("num_classes") == 1


def head_words(arguments: Mapping[str, Any]) -> str:
    """What a fresh head is for, such as `for 5 classes`."""
    return f"for {arguments['num_classes']} classes "


def line_of(config: Config, parts: Sequence[str]) -> str:
    """`augmentation: cropped, mirrored at random`: these parts, and those that all images may go through."""
    mirrored = "mirrored at random" if config.flip == "yes" else "not mirrored"
    further = [f"{option(name)} {_words(getattr(config, name))}" for name in FURTHER if _is_on(getattr(config, name))]
    return f"augmentation: {', '.join([*parts, mirrored, *further])}"


def _is_on(value: Any) -> bool:
    return value != "none" and any(value if isinstance(value, tuple) else (value,))


def _words(value: Any) -> str:
    return " ".join(f"{part:g}" for part in value) if isinstance(value, tuple) else str(value)
