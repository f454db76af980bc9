"""The options of `python -m train`: one frozen dataclass, which command line, --help and config.yaml are made of."""

import dataclasses
import json
import math
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from jaxzoo.errors import UsageError

# What may differ when a run is continued: nothing that changes the numbers, but for the number of epochs.
RESUMABLE = ("epochs", "save_every", "keep", "workers", "devices", "eval_only", "resume")


@dataclasses.dataclass(frozen=True)
class Config:
    """Train an image model.

    With nothing but --model it learns scikit-learn's handwritten digits, which come with jaxzoo. Everything a run
    produces goes into one folder, named at the start; Ctrl-C saves, and --resume continues as if nothing had happened.
    """

    model: str = "swin_t"
    """Name of the model; `python -m jaxzoo list` has them all."""
    data: str = "digits"
    """`digits`; `folder:PATH` with one folder of images per class (or train/ and val/ that hold such folders);
    `tfds:NAME` for a prepared tensorflow-datasets data set."""
    out: str | None = None
    """The run's folder, which must not exist. Default: runs/MODEL-DATA-TIME."""

    epochs: int = 7
    """How often the training images are gone through."""
    batch_size: int = 64
    """Images per step, over all devices together."""
    image_size: int | None = None
    """Side of the square the model sees, in pixels. Default: 32 for digits, else what the model was published with."""
    flip: Literal["auto", "yes", "no"] = "auto"
    """Mirror half of the training images, at random; auto: yes, but not for digits."""
    crop_area: float | None = None
    """Training crops cover at least this part of an image, at a random place and aspect ratio; 1 takes the
    evaluation's centre crop instead. Default: 0.35, and 1 for digits."""
    shift: int | None = None
    """Training images are moved by up to so many pixels each way. Default: 0, and 2 for digits."""
    val_fraction: float = 0.2
    """Part of every class that is held out when the data has no split of its own."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    """Which optimizer. SGD with momentum wants a larger --lr, about 0.05."""
    lr: float = 1e-3
    """Peak learning rate."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """How the learning rate goes on after the warm-up; cosine falls to 0 at the last step."""
    warmup_epochs: float = 1.0
    """Epochs over which the learning rate rises from 0; at most half of the run."""
    weight_decay: float = 0.05
    """Decoupled for AdamW, L2 for SGD; only on the kernels of convolutions and linear layers."""
    momentum: float = 0.9
    """Momentum of SGD."""
    label_smoothing: float = 0.1
    """Part of the target spread evenly over all classes."""
    clip_norm: float = 0.0
    """Gradients are scaled down to this global norm; 0 leaves them alone."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the model computes in. Parameters, optimizer and loss stay float32."""
    model_args: tuple[str, ...] = ()
    """Arguments of the model as NAME=VALUE, such as dropout=0.2 stochastic_depth_prob=0.1."""

    weights: str | None = None
    """Start from these weights: a .pth, .pt or .safetensors file, a converted folder, a run, or a torchvision name
    such as IMAGENET1K_V1. A head for another number of classes starts fresh, and that is said."""
    resume: str | None = None
    """Continue this run folder, bit for bit. Its config.yaml holds the options; --epochs, --save-every, --keep,
    --workers and --devices may be given anew."""
    eval_only: bool = False
    """Only print the metrics on the held-out images, of --weights or --resume; writes nothing."""
    seed: int = 0
    """Decides initial parameters, order of images, augmentation, dropout and the held-out split."""

    save_every: int = 0
    """Save a checkpoint every so many steps, besides the one at the end of each epoch; 0 for none."""
    keep: int = 2
    """How many of the newest checkpoints to keep, besides best/."""
    workers: int = min(16, os.cpu_count() or 1)
    """Threads that read and resize images. Results do not depend on it."""
    devices: int | None = None
    """How many local devices to share each batch among. Default: all."""


def parse(arguments: Sequence[str] | None = None) -> Config:
    """The configuration from a command line; with --resume, the run's own with the allowed changes.

    Raises:
      UsageError: an option has an impossible value, or may not be changed when a run is continued.
    """
    import tyro

    arguments = list(sys.argv[1:] if arguments is None else arguments)
    run = None if {"-h", "--help"} & set(arguments) else _value_of("--resume", arguments)
    stored = dataclasses.replace(read(Path(run)), resume=run) if run else Config()
    config = tyro.cli(Config, args=arguments, default=stored, prog="python -m train")
    for field in dataclasses.fields(Config) if run else ():
        old, new = getattr(stored, field.name), getattr(config, field.name)
        if old != new and field.name not in RESUMABLE:
            raise UsageError(
                f"{run} was started with {_option(field.name)} {_shown(old)}, and a run cannot change it to "
                f"{_shown(new)}; a new run can start from its weights: --weights {run}"
            )
    check(config)
    return config


def check(config: Config) -> None:
    """Refuses impossible values, one at a time, in words."""
    for name in ("epochs", "batch_size", "image_size", "workers", "devices", "keep", "shift", "save_every", "seed"):
        value, least = getattr(config, name), 0 if name in ("shift", "save_every", "seed") else 1
        if value is not None and value < least:
            raise UsageError(f"{_option(name)} is {value}; it must be a whole number of at least {least}")
    if config.seed >= 2**32:
        raise UsageError(f"--seed is {config.seed}; it must be below 2^32")
    for name in ("lr", "weight_decay", "clip_norm", "warmup_epochs"):
        value = getattr(config, name)
        if not 0 <= value < math.inf or (name == "lr" and value == 0):
            least = "above 0" if name == "lr" else "of at least 0"
            raise UsageError(f"{_option(name)} is {value}; it must be a number {least}")
    for name in ("momentum", "label_smoothing", "crop_area", "val_fraction"):
        value = getattr(config, name)
        if value is not None and not 0 <= value <= 1:
            raise UsageError(f"{_option(name)} is {value}; it must be between 0 and 1")
        if (name == "val_fraction" and value in (0, 1)) or (name == "crop_area" and value == 0):
            raise UsageError(f"{_option(name)} is {value}, which leaves no image to look at")
    if config.eval_only and not (config.weights or config.resume):
        raise UsageError("--eval-only needs weights to evaluate: add --weights FILE or --resume RUN")
    model_arguments(config)


def model_arguments(config: Config) -> dict[str, Any]:
    """`("dropout=0.2",)` as `{"dropout": 0.2}`; numbers, true and false are understood."""
    arguments = {}
    for text in config.model_args:
        name, equals, value = text.partition("=")
        if not (name.isidentifier() and equals and value):
            raise UsageError(f"--model-args takes NAME=VALUE, such as dropout=0.2, not {text!r}")
        try:
            arguments[name] = json.loads(value)
        except ValueError:
            arguments[name] = value
    if "num_classes" in arguments:
        raise UsageError("--model-args num_classes is not needed: the data decides it")
    return arguments


def read(run: Path) -> Config:
    """The configuration that a run folder was started with. Raises UsageError if it is no run folder."""
    file = run / "config.yaml"
    if not file.is_file():
        raise UsageError(f"{run} is no run to continue: there is no {file}")
    try:
        values = yaml.safe_load(file.read_text())
        values["model_args"] = tuple(values["model_args"])
        return Config(**values)
    except (yaml.YAMLError, TypeError, KeyError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is not as `python -m train` wrote it: {error}") from None


def write(config: Config, run: Path) -> None:
    """Writes config.yaml, at once or not at all."""
    values = dataclasses.asdict(config) | {"resume": None, "eval_only": False, "model_args": list(config.model_args)}
    partial = run / ".config.yaml.partial"
    partial.write_text(yaml.safe_dump(values, sort_keys=False))
    partial.replace(run / "config.yaml")


def run_folder(config: Config) -> Path:
    """Where the run goes: --resume, --out, or a new name under runs/."""
    data = re.sub(r"[^\w.-]+", "_", config.data.removeprefix("tfds:").rstrip("/").split("/")[-1])
    return Path(config.resume or config.out or f"runs/{config.model}-{data}-{time.strftime('%Y%m%d-%H%M%S')}")


def _value_of(option: str, arguments: Sequence[str]) -> str | None:
    for index, argument in enumerate(arguments):
        if argument == option and index + 1 < len(arguments):
            return arguments[index + 1]
        if argument.startswith(option + "="):
            return argument[len(option) + 1 :]
    return None


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _shown(value: Any) -> str:
    return " ".join(value) if isinstance(value, tuple) else str(value)
