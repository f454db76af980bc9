"""The options of `python -m train`: frozen dataclasses, which command line, --help and config.yaml are made of."""

import dataclasses
import json
import math
import os
import platform
import re
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import yaml

import jaxzoo
from jaxzoo.errors import UsageError
from jaxzoo.images import as_text
from train.data import located as located_data


def cores() -> int:
    """How many CPU cores this process may use, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclasses.dataclass(frozen=True)
class Run:
    model: str = "swin_t"
    """Name of the model; `python -m jaxzoo list` has them all."""
    data: str | None = None
    """`digits`; `folder:PATH` with one folder of images per class (or train/ and val/ that hold such folders);
    `list:FILE.csv` with lines of path and label; `tfds:NAME`, `tfds:NAME:SPLIT` or `tfds:NAME:TRAIN,HELD_OUT` for a
    tensorflow-datasets data set. For segmentation `scenes`, composed of the digits; `voc:PATH`; `pairs:PATH` with
    images/ and masks/; `coco:PATH`; or `tfds:NAME`. Default: digits, or scenes."""
    recipe: str | None = None
    """`published`: how torchvision trained this model; `finetune`: for pretrained weights; or one of
    `python -m train recipes`. Options given beside it win. Default: settings by kind of network and data."""
    epochs: int | None = None
    """How often the training images are gone through. Default: 10 with --weights, else 7 for digits, 15 for scenes, 30
    for other data."""
    batch_size: int | None = None
    """Images per step, over all devices and processes together. Default: 64, and 16 for segmentation."""
    eval_batch_size: int | None = None
    """Held-out images at a time; much larger ones among them get batches of fewer. Default: as many as in training, and
    for segmentation fewer where they are many times larger than its crops."""
    weights: str | None = None
    """Start from these weights: a .pth, .pt or .safetensors file, a converted folder, a run, or a torchvision name
    such as IMAGENET1K_V1. A head for another number of classes starts fresh, and that is said."""
    weights_backbone: str | None = None
    """Start a part of the model from these weights of another, such as the backbone from a ResNet-50's, or fcn16s from
    those of fcn32s; given as for --weights. The rest starts fresh."""
    resume: str | None = None
    """Continue this run folder, bit for bit. Its config.yaml holds the options; --epochs and what concerns only the
    machine or the records may be given anew."""
    eval_only: bool = False
    """Only print the metrics on the held-out images, of --weights or --resume; writes nothing. The data may be a test
    set alone."""
    seed: int = 0
    """Decides initial parameters, order of images, augmentation, dropout and the held-out split."""
    model_args: tuple[str, ...] = ()
    """Arguments of the model as NAME=VALUE, such as dropout=0.2 stochastic_depth_prob=0.1; num_classes=1 tells two
    classes apart by one output and a sigmoid."""
    out: str | None = None
    """The run's folder, which must not exist. Default: runs/MODEL-DATA-TIME."""


@dataclasses.dataclass(frozen=True)
class Images:
    image_size: int | None = None
    """Side of the square the model sees, in pixels. Default: 32 for digits, else what the model was published with."""
    train_size: int | None = None
    """Side of training images where it is another, usually smaller than that of evaluation (FixRes)."""
    progressive: str | None = None
    """FROM:TO:STAGES, such as 128:224:4: the image size grows in so many equal stages, and dropout and the magnitude
    of RandAugment with it (EfficientNetV2)."""
    val_fraction: float = 0.2
    """Part of every class that is held out when the data has no split of its own; 1 with --eval-only is all of it."""
    strict_data: bool = False
    """An image that cannot be read stops the run; otherwise it is named once, counted and replaced by another."""
    workers: int = min(16, cores())
    """Threads that read and augment images. Results do not depend on it."""


@dataclasses.dataclass(frozen=True)
class Augmentation:
    flip: Literal["auto", "yes", "no"] = "auto"
    """Mirror half of the training images, at random; auto: yes, but not for digits, nor for small pictures whose
    classes are called by numbers or letters."""
    crop_area: float | None = None
    """Training crops cover at least this part of an image, at a random place and aspect ratio; 1 takes the
    evaluation's centre crop instead. Default: 0.08, with fewer than 10,000 images 0.35, and 1 for digits and for
    pictures smaller than 64 pixels."""
    shift: int | None = None
    """Training images are moved by up to so many pixels each way. Default: 0, 2 for digits, and a sixteenth of the
    image size for pictures smaller than 64 pixels."""
    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """By how much brightness, contrast, saturation and hue change at most, as in torchvision's ColorJitter."""
    auto_augment: Literal["none", "autoaugment", "randaugment", "trivialaugment"] = "none"
    """A policy of random operations: AutoAugment's for ImageNet, RandAugment, or TrivialAugmentWide."""
    ra_ops: int = 2
    """Operations that RandAugment applies one after the other."""
    ra_magnitude: int = 9
    """Strength of RandAugment's operations, 0 to 30."""
    random_erase: float = 0.0
    """Probability that a random rectangle of a training image becomes the mean colour."""
    mixup: float = 0.0
    """Mix pairs of training images and their labels; the parameter of the Beta distribution, 0 for none."""
    cutmix: float = 0.0
    """Paste rectangles of other training images; the parameter of the Beta distribution, 0 for none. With --mixup too,
    every batch draws one of them."""
    repeats: int = 1
    """Every image comes so many times in a row of its epoch, differently augmented, and an epoch has as many images
    as without (repeated augmentation)."""


@dataclasses.dataclass(frozen=True)
class Optimization:
    optimizer: Literal["adamw", "sgd", "sgd_nesterov", "rmsprop", "rmsprop_tf", "lamb"] = "adamw"
    """Which optimizer; rmsprop_tf adds epsilon inside the root, as TensorFlow does."""
    lr: float | None = None
    """Peak learning rate. Default: 1e-3 for AdamW and LAMB, 0.05 for SGD, 0.01 for RMSprop; with --weights 0.3
    of that for networks with batch normalisation, else a tenth; a third for networks without normalisation."""
    schedule: Literal["cosine", "constant", "step", "poly", "one_cycle"] = "cosine"
    """How the learning rate goes on after the warm-up; cosine, poly and one_cycle end at --lr-min."""
    lr_min: float = 0.0
    """The learning rate that the schedule ends at."""
    lr_step: float = 30
    """Epochs after which schedule step multiplies the rate by --lr-gamma, every time."""
    lr_gamma: float = 0.1
    """Factor of schedule step."""
    lr_power: float = 0.9
    """Exponent of schedule poly."""
    warmup_epochs: float = 1.0
    """Epochs over which the learning rate rises; at most half of the run."""
    warmup_start: float = 0.0
    """Part of the peak rate that the warm-up begins with."""
    weight_decay: float = 0.05
    """Decoupled for AdamW and LAMB, L2 for SGD and RMSprop."""
    no_decay: tuple[Literal["norms", "biases", "tables"], ...] = ("norms", "biases", "tables")
    """Parameters without weight decay: of normalisation layers, biases, and tables of positions and tokens."""
    layer_decay: float = 1.0
    """Every layer before the head learns at so many times the rate of the one after it; 1 for all alike."""
    momentum: float = 0.9
    """Momentum of SGD and RMSprop."""
    accumulate: int = 1
    """Steps whose gradients are averaged into one update. BatchNorm's statistics are still those of each step."""
    clip_norm: float | None = None
    """Gradients are scaled down to this global norm; 0 leaves them alone. Default: 0, and 1 for networks without
    normalisation."""
    head_lr: float | None = None
    """The head learns at so many times the rate of the backbone. Default: 1, and 10 with --weights-backbone."""
    label_smoothing: float | None = None
    """Part of the target spread evenly over all classes. Default: 0.1, and 0 for segmentation."""
    dropout: float | None = None
    """Rate of all dropout layers. Default: the model's own."""
    drop_path: float | None = None
    """Stochastic depth: the probability that the last residual block is left out; earlier ones less. Default: the
    model's own."""
    ema: float = 0.0
    """Decay per step of an average of the weights, such as 0.9999, evaluated and saved beside them; 0 for none."""
    patience: int = 0
    """End when the held-out metric has not improved for so many epochs; 0 for never."""


@dataclasses.dataclass(frozen=True)
class Transfer:
    freeze: tuple[str, ...] = ()
    """Parts that do not learn and keep their batch statistics: `backbone` is all but the head, or paths such as
    features.0,features.1."""
    train_only: tuple[str, ...] = ()
    """The only parts that learn: `head`, or paths."""
    freeze_batch_norm: bool = False
    """Batch normalisation keeps its statistics, scales and offsets."""
    cache_features: bool = False
    """Compute what the frozen backbone makes of every image once, keep it on disk, and train the head on that; without
    augmentation."""


@dataclasses.dataclass(frozen=True)
class Segmentation:
    scale: tuple[float, float] | None = None
    """Training images and masks are enlarged by a random factor in this range before they are cropped. Default: 0.5 to
    2, and 0.8 to 1.25 for scenes."""
    output_stride: int | None = None
    """How many times smaller than the image the features are: 8, 16 or 32. Default: the model's own."""
    aux_weight: float | None = None
    """Weight of the loss of auxiliary heads; 0 leaves them out. Default: the model's own, 0.5 for most."""
    eval_scales: tuple[float, ...] = (1.0,)
    """Held-out images are looked at in these sizes, times their own, and what the model sees is averaged."""
    eval_flip: bool = False
    """And mirrored too."""


@dataclasses.dataclass(frozen=True)
class Machine:
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the model computes in. Parameters, optimizer and loss stay float32."""
    remat: bool = False
    """Compute activations again for the gradients instead of keeping them: less memory, about a third more time."""
    devices: int | None = None
    """How many local devices to share each batch among. Default: all."""
    batch_norm: Literal["sync", "local"] = "sync"
    """Batch statistics of the whole batch, or of each device's own part, as in torch's DistributedDataParallel."""
    shard_params: bool = False
    """Divide parameters and optimizer state among the devices, for models that do not fit one."""
    distributed: Literal["no", "auto"] = "no"
    """auto: one of many processes, as Slurm, Open MPI, Kubernetes or a Cloud TPU pod started it."""
    coordinator: str | None = None
    """HOST:PORT of process 0, when processes are started by hand."""
    num_processes: int | None = None
    """How many processes there are, with --coordinator."""
    process_id: int | None = None
    """Which of them this is, from 0, with --coordinator."""


@dataclasses.dataclass(frozen=True)
class Records:
    save_every: int = 0
    """Save a checkpoint every so many steps, besides the one at the end of each epoch; 0 for none."""
    keep: int = 2
    """How many of the newest checkpoints to keep, besides best/."""
    on_nan: Literal["stop", "skip"] = "stop"
    """When loss or gradients are not finite: save the last good state and stop, or leave that step out and go on."""
    tensorboard: bool = False
    """Write TensorBoard events: numbers, pictures, histograms of weights and gradients."""
    log_every: int = 50
    """Steps between lines of steps.jsonl and TensorBoard's numbers."""


GROUPS = (Run, Images, Augmentation, Optimization, Transfer, Segmentation, Machine, Records)

# What may differ when a run is continued: nothing that changes the numbers, but for the number of epochs; and with
# --batch-norm local other devices, which `check_manifest` says.
RESUMABLE = (
    "data",  # which may have moved
    "eval_batch_size",  # in whose batches all is counted alike
    *("epochs", "patience", "workers", "devices", "eval_only", "resume", "distributed", "coordinator", "num_processes"),
    *("process_id", *(field.name for field in dataclasses.fields(Records))),
)


# What leaves training images as they are, for --cache-features.
UNCHANGED = {
    **{"train_size": None, "progressive": None, "flip": "no", "crop_area": 1.0, "shift": 0},
    **{"color_jitter": (0.0, 0.0, 0.0, 0.0), "auto_augment": "none", "random_erase": 0.0, "mixup": 0.0, "cutmix": 0.0},
}


@dataclasses.dataclass(frozen=True)
class Config(*reversed(GROUPS)):
    """Train an image model.

    With nothing but --model it learns scikit-learn's handwritten digits, which come with jaxzoo. Everything a run
    produces goes into one folder, named at the start; Ctrl-C saves, and --resume continues as if nothing had happened.
    """


_ABOUT, _AFTER = "about", " after step "  # names in config.yaml that are no options
_MATTERS = ("jaxzoo", "commit", "jax", "jaxlib", "flax", "optax", "numpy", "pillow")

_COUNTS_FROM_0 = ("shift", "save_every", "seed", "patience", "ra_magnitude", "process_id")
_COUNTS_FROM_1 = (
    *(
        "epochs",
        "batch_size",
        "eval_batch_size",
        "image_size",
        "train_size",
        "workers",
        "devices",
        "num_processes",
        "keep",
        "log_every",
    ),
    *("ra_ops", "repeats", "accumulate"),
)
_NUMBERS = (
    *("lr", "lr_min", "lr_step", "lr_gamma", "lr_power", "warmup_epochs"),
    *("weight_decay", "clip_norm", "mixup", "cutmix", "head_lr", "aux_weight"),
)
_PARTS = (
    *("momentum", "label_smoothing", "crop_area", "val_fraction", "warmup_start"),
    *("random_erase", "layer_decay", "dropout", "drop_path", "ema"),
)


def check(config: Config) -> None:
    """Refuses impossible values, one at a time, in words."""
    for name in _COUNTS_FROM_0 + _COUNTS_FROM_1:
        value, least = getattr(config, name), int(name in _COUNTS_FROM_1)
        if value is not None and value < least:
            raise UsageError(f"{option(name)} is {value}; it must be a whole number of at least {least}")
    if config.seed >= 2**32:
        raise UsageError(f"--seed is {config.seed}; it must be below 2^32")
    for name in _NUMBERS:
        value, positive = getattr(config, name), name in ("lr", "lr_step", "head_lr")
        if value is not None and (not 0 <= value < math.inf or (positive and value == 0)):
            raise UsageError(
                f"{option(name)} is {value}; it must be a number {'above 0' if positive else 'of at least 0'}"
            )
    for name in _PARTS:
        value = getattr(config, name)
        if value is not None and not 0 <= value <= 1:
            raise UsageError(f"{option(name)} is {value}; it must be between 0 and 1")
        if (name == "val_fraction" and (value == 0 or (value == 1 and not config.eval_only))) or (
            name == "crop_area" and value == 0
        ):
            raise UsageError(f"{option(name)} is {value}, which leaves no image to look at")
        if (name in ("ema", "dropout", "drop_path") and value == 1) or (name == "layer_decay" and value == 0):
            raise UsageError(f"{option(name)} is {value}, which leaves nothing to learn from")
    if config.out and as_text(config.out) != config.out:
        raise UsageError(f"--out is {config.out}; checkpoints need a folder whose name is UTF-8: take another")
    if config.ra_magnitude > 30:
        raise UsageError(f"--ra-magnitude is {config.ra_magnitude}; the strongest is 30")
    if not (all(0 <= part < math.inf for part in config.color_jitter) and config.color_jitter[3] <= 0.5):
        raise UsageError("--color-jitter takes brightness, contrast and saturation of at least 0, and hue up to 0.5")
    if config.progressive and (config.train_size or config.image_size):
        raise UsageError("--progressive names the image sizes, the last one for evaluation too: leave out the others")
    for name in ("scale", "eval_scales"):
        if not all(0 < factor < math.inf for factor in getattr(config, name) or (1,)):
            raise UsageError(f"{option(name)} takes numbers above 0")
    if config.scale and config.scale[0] > config.scale[1]:
        raise UsageError(f"--scale takes the smaller factor first, not {config.scale[0]} {config.scale[1]}")
    if config.weights and config.weights_backbone:
        raise UsageError("--weights are those of the whole model, its backbone too: leave out --weights-backbone")
    if config.eval_only and not (config.weights or config.resume):
        raise UsageError("--eval-only needs weights to evaluate: add --weights FILE or --resume RUN")
    if config.freeze and config.train_only:
        raise UsageError("--freeze and --train-only say the same thing in two ways; give one of them")
    if config.cache_features and (config.freeze or config.train_only not in ((), ("head",))):
        raise UsageError("--cache-features trains the head alone: leave out --freeze and --train-only")
    for name, off in UNCHANGED.items() if config.cache_features else ():
        if getattr(config, name) not in (off, getattr(Config, name)):
            raise UsageError(f"--cache-features sees every image once, as it is: leave out {option(name)}")
    by_hand = (config.coordinator, config.num_processes, config.process_id)
    if any(part is not None for part in by_hand) and (None in by_hand or config.distributed == "auto"):
        raise UsageError(
            "processes started by hand need --coordinator, --num-processes and --process-id; "
            "--distributed auto finds all three by itself"
        )
    stages(config)
    model_arguments(config)


def stages(config: Config) -> list[int]:
    """Image sizes of `--progressive 128:224:4`: four from 128 to 224, even steps in whole pixels; none without it."""
    if not config.progressive:
        return []
    match = re.fullmatch(r"(\d+):(\d+):(\d+)", config.progressive)
    first, last, count = map(int, match.groups()) if match else (0, 0, 0)
    if not (0 < first < last and 2 <= count <= last - first + 1):
        raise UsageError(f"--progressive takes FROM:TO:STAGES, such as 128:224:4, not {config.progressive}")
    return [round(first + (last - first) * stage / (count - 1)) for stage in range(count)]


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
    if arguments.get("num_classes", 1) != 1:
        raise UsageError(
            "--model-args num_classes is 1, for two classes and a sigmoid, or left out: the data decides it"
        )
    return arguments


def head_alone(config: Config) -> bool:
    """Whether nothing but the head learns."""
    return config.cache_features or config.train_only == ("head",) or "backbone" in config.freeze


def read(run: Path) -> Config:
    """The configuration that a run folder was started with. Raises UsageError if it is no run folder."""
    file = run / "config.yaml"
    if not file.is_file():
        raise UsageError(f"{run} is no run to continue: there is no {file}")
    try:
        values = yaml.safe_load(file.read_text())
        values = {name: value for name, value in values.items() if not name.startswith(_ABOUT)}
        return Config(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
    except (yaml.YAMLError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is not as `python -m train` wrote it: {error}") from None


def write(config: Config, run: Path, step: int = 0) -> None:
    """Writes config.yaml, at once or not at all: all options, and what the run was made with.

    That is `about` for its start, and `about after step N` each time that it was continued.
    """
    values = dataclasses.asdict(config) | {"resume": None, "eval_only": False}
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    made = {before: about for before, about in made_with(run).items() if before < step} | {step: provenance()}
    told = {_ABOUT + (f"{_AFTER}{before}" if before else ""): about for before, about in made.items()}
    partial = run / ".config.yaml.partial"
    partial.write_text(yaml.safe_dump(values | told, sort_keys=False))
    partial.replace(run / "config.yaml")


def made_with(run: Path) -> dict[int, dict[str, str]]:
    """The provenance of a run by the step after which it was started or continued; empty for a new one."""
    file = run / "config.yaml"
    values = yaml.safe_load(file.read_text()) if file.exists() else {}
    return {int(n[len(_ABOUT + _AFTER) :] or 0): about for n, about in values.items() if n.startswith(_ABOUT)}


def changed_since(run: Path) -> list[str]:
    """What may change the numbers of a run, among what it was made with until now; in words."""
    made, now = made_with(run), provenance()
    then = made[max(made)] if made else now
    return [
        f"{name} {now[name]} instead of {then[name]}" for name in _MATTERS if then.get(name, now[name]) != now[name]
    ]


def provenance() -> dict[str, str]:
    """Versions, the git commit of the code if it is a checkout, and the devices."""
    import jax

    here = Path(__file__).parents[2]
    git = subprocess.run(["git", "-C", here, "describe", "--always", "--dirty"], capture_output=True, text=True)
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "pillow")
    return {
        "jaxzoo": jaxzoo.__version__,
        "commit": git.stdout.strip() if (here / ".git").exists() and git.returncode == 0 else "none",
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "processes": str(jax.process_count()),
    }


def located(config: Config) -> Config:
    """`config` with absolute paths, which mean the same to who continues the run from another folder."""
    paths = {"data": located_data(config.data, jaxzoo.card(config.model).task)}
    for name in ("weights", "weights_backbone"):
        weights = getattr(config, name)
        if weights and Path(weights.partition("#")[0]).exists():  # otherwise the name of published ones
            paths[name] = str(Path(weights).absolute())
    return dataclasses.replace(config, **paths)


def make_folder(config: Config) -> Path:
    """Makes the folder of a new run, --out or one under runs/ that is named by the time. Raises UsageError.

    Of two runs that begin in the same second the second one's name ends in -2.
    """
    data = re.sub(r"[^\w.-]+", "_", (config.data or "").removeprefix("tfds:").rstrip("/").split("/")[-1])
    name = config.out or f"runs/{config.model}-{data}-{time.strftime('%Y%m%d-%H%M%S')}"
    for folder in (Path(name), *(Path(f"{name}-{number}") for number in range(2, 1000))):
        try:
            folder.mkdir(parents=True)
            return folder
        except OSError as error:
            if folder.exists() and not config.out:
                continue
            raise UsageError(f"cannot make the folder {folder}: {error.strerror}; give another --out") from None
    raise UsageError(f"{name} and many like it exist already; give --out")


def option(name: str) -> str:
    """`--lr-min` for `lr_min`."""
    return "--" + name.replace("_", "-")
