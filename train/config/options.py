"""The options of `python -m train`: frozen dataclasses, which command line, --help and config.yaml are made of."""

import dataclasses
import json
import os
import re
from typing import Any, Literal

from jaxzoo.errors import UsageError


def cores() -> int:
    """How many CPU cores this process may use, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclasses.dataclass(frozen=True)
class Run:
    model: str = "swin_t"
    """Model to train, such as resnet50; `python -m jaxzoo list` shows all."""
    data: str | None = None
    """Images to train on. Classification: `folder:PATH` (one folder of images per class, or train/ and val/ with such
    folders), `list:FILE.csv` (columns path and label), `tfds:NAME[:TRAIN[,VALIDATION]]` (tensorflow-datasets, such as
    tfds:cifar10), or `digits`, which comes with jaxzoo. Segmentation: `voc:PATH`, `coco:PATH`, `pairs:PATH` (images/
    and masks/), `tfds:NAME`, or `scenes`, which comes with jaxzoo. Detection: `coco:PATH`, `voc:PATH`, `yolo:PATH`,
    `list:FILE.csv` (columns path, x1, y1, x2, y2, label), `tfds:NAME`, or `scenes`. Reconstruction: as for
    classification.
    Default: digits; scenes for segmentation and detection."""
    recipe: str | None = None
    """Set of options to start from: `published` (how torchvision trained this model), `finetune` (for pretrained
    weights), or a name from `python -m train recipes`. Options that you give beside it win.
    Default: options that suit the network and the data."""
    epochs: int | None = None
    """Number of training epochs. Default: 10 with --weights; else 9 for digits (100 for
    reconstruction), 15 for scenes (6 for detection), 30 for other data."""
    batch_size: int | None = None
    """Images per step, over all devices and processes together. Default: 64; 16 for segmentation and
    detection."""
    eval_batch_size: int | None = None
    """Images per batch in validation. Default: the training batch size; for segmentation fewer where images are much
    larger than the training crops."""
    weights: str | None = None
    """Pretrained weights of the whole model: a .pth, .pt or .safetensors file, a converted folder, a run's folder, or
    the name of published ones such as IMAGENET1K_V1. A head for another number of classes is initialised afresh."""
    weights_backbone: str | None = None
    """Pretrained weights of another model for a part of this one, such as a ResNet-50's for the backbone of
    fcn_resnet50, or those of fcn32s for fcn16s; given like --weights. The rest is initialised at random."""
    resume: str | None = None
    """Continue the run in this folder, with the options of its config.yaml; only --epochs and options about the machine
    and the records may be changed."""
    eval_only: bool = False
    """Only evaluate --weights or --resume on the validation images and print the metrics; nothing is written."""
    seed: int = 0
    """Seed of the initial parameters, the order of images, augmentation, dropout and the validation split."""
    model_args: tuple[str, ...] = ()
    """Arguments of the model as NAME=VALUE, such as dropout=0.2 stochastic_depth_prob=0.1; num_classes=1 trains two
    classes with one logit and a sigmoid."""
    out: str | None = None
    """Folder to write the run into; it must not exist. Default: runs/MODEL-DATA-TIME."""


@dataclasses.dataclass(frozen=True)
class Images:
    image_size: int | None = None
    """Side of the square images that the model is given, in pixels. Default: the size that the model was published
    with; 32 for digits."""
    train_size: int | None = None
    """Side of the training images, where it differs from --image-size; usually smaller (FixRes). Default: as
    --image-size."""
    progressive: str | None = None
    """Progressive resizing as FROM:TO:STAGES, such as 128:224:4: training grows from 128 to 224 pixels in four equal
    stages, with dropout and RandAugment's magnitude growing too (EfficientNetV2)."""
    val_fraction: float = 0.2
    """Fraction of every class to hold out for validation, when the data has no split of its own; 1 with --eval-only
    evaluates all images."""
    strict_data: bool = False
    """Stop at an image that cannot be read, or at annotations of objects that cannot be used, instead of naming them
    once and training on other images in their place, or without the annotations."""
    workers: int = min(16, cores())
    """Threads that read and augment images; the results do not depend on it."""


@dataclasses.dataclass(frozen=True)
class Augmentation:
    flip: Literal["auto", "yes", "no"] = "auto"
    """Flip training images horizontally with probability 0.5; auto means yes, except for digits and for small images
    whose classes are named by letters or numbers."""
    crop_area: float | None = None
    """Smallest part of the image's area that a random resized crop may take, such as 0.08; 1 takes the centre crop of
    evaluation. Default: 0.08; 0.35 with fewer than 10,000 images; 1 for digits and images under 64 pixels."""
    shift: int | None = None
    """Move training images by up to this many pixels in each direction, as padding and random cropping do. Default: 0;
    2 for digits; a sixteenth of the image size for images under 64 pixels."""
    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Strength of random changes of brightness, contrast, saturation and hue, as in torchvision's ColorJitter; such as
    0.4 0.4 0.4 0.1."""
    auto_augment: Literal["none", "autoaugment", "randaugment", "trivialaugment"] = "none"
    """Augmentation policy: AutoAugment's for ImageNet, RandAugment, or TrivialAugmentWide."""
    ra_ops: int = 2
    """Number of operations that RandAugment applies in sequence."""
    ra_magnitude: int = 9
    """Magnitude of RandAugment's operations, 0 to 30."""
    random_erase: float = 0.0
    """Probability of erasing a random rectangle of a training image (random erasing); such as 0.1."""
    mixup: float = 0.0
    """Mixup's alpha, such as 0.2; 0 is off."""
    cutmix: float = 0.0
    """CutMix's alpha, such as 1.0; 0 is off. With --mixup as well, each batch uses one of the two at random."""
    repeats: int = 1
    """Repeated augmentation: each image comes this many times in a row, differently augmented; an epoch keeps its
    length."""


@dataclasses.dataclass(frozen=True)
class Optimization:
    optimizer: Literal["adamw", "sgd", "sgd_nesterov", "rmsprop", "rmsprop_tf", "lamb"] = "adamw"
    """Optimizer; rmsprop_tf adds epsilon inside the square root, as TensorFlow does."""
    lr: float | None = None
    """Peak learning rate. Default: 1e-3 for AdamW and LAMB, 0.05 for SGD, 0.01 for RMSprop; times 0.3 with --weights
    for networks with batch normalisation, 0.1 for others; a third for networks without normalisation. For
    reconstruction 1e-3, and 3e-3 for digits."""
    schedule: Literal["cosine", "constant", "step", "multistep", "poly", "one_cycle"] = "cosine"
    """Learning rate schedule after the warm-up."""
    lr_min: float = 0.0
    """Final learning rate of the schedules cosine, poly and one_cycle."""
    lr_step: float = 30
    """Epochs between two decays of the schedule step."""
    lr_steps: tuple[float, ...] = ()
    """Epochs, counted from the start of the run, after which the schedule multistep decays, such as 16 22."""
    lr_gamma: float = 0.1
    """Factor of each decay of the schedules step and multistep."""
    lr_power: float = 0.9
    """Exponent of the schedule poly."""
    warmup_epochs: float = 1.0
    """Epochs of linear warm-up of the learning rate; at most half of the run."""
    warmup_start: float = 0.0
    """Learning rate at the start of the warm-up, as a fraction of the peak."""
    weight_decay: float = 0.05
    """Weight decay: decoupled for AdamW and LAMB, L2 for SGD and RMSprop."""
    no_decay: tuple[Literal["norms", "biases", "tables"], ...] = ("norms", "biases", "tables")
    """Parameters without weight decay: normalisation layers, biases, and tables of position and class embeddings."""
    layer_decay: float = 1.0
    """Layer-wise learning rate decay: each layer learns at this times the rate of the next one, such as 0.75; 1 is
    off."""
    momentum: float = 0.9
    """Momentum of SGD and RMSprop."""
    accumulate: int = 1
    """Gradient accumulation: steps per optimizer update. BatchNorm still sees one step's images at a time."""
    clip_norm: float | None = None
    """Clip gradients to this global norm, such as 1.0; 0 is off. Default: 0; 1 for networks without normalisation."""
    head_lr: float | None = None
    """Learning rate of the head as a multiple of the backbone's. Default: 1; 10 with --weights-backbone."""
    label_smoothing: float | None = None
    """Label smoothing. Default: 0.1; 0 for segmentation."""
    dropout: float | None = None
    """Rate of all dropout layers. Default: the model's own."""
    drop_path: float | None = None
    """Stochastic depth: probability of skipping the last residual block, growing linearly from the first to it.
    Default: the model's own."""
    ema: float = 0.0
    """Decay of an exponential moving average of the weights, such as 0.9999, which is evaluated and saved beside them;
    0 is off."""
    patience: int = 0
    """Early stopping: epochs without a better validation metric after which the run ends; 0 is off."""


@dataclasses.dataclass(frozen=True)
class Transfer:
    freeze: tuple[str, ...] = ()
    """Parts of the model to freeze, batch statistics too: `backbone` (all but the head), or paths such as
    features.0,features.1."""
    train_only: tuple[str, ...] = ()
    """The only parts of the model to train, the others frozen: `head`, or paths. Default: all."""
    freeze_batch_norm: bool = False
    """Freeze batch normalisation: statistics, scales and offsets."""
    cache_features: bool = False
    """Linear probing from features: run the frozen backbone once per image, keep its output on disk, and train the head
    on that, without augmentation."""


@dataclasses.dataclass(frozen=True)
class Segmentation:
    scale: tuple[float, float] | None = None
    """Range of the random factor by which training images and masks are resized before cropping. Default: 0.5 to 2;
    0.8 to 1.25 for scenes."""
    output_stride: int | None = None
    """Ratio of the image's size to that of the backbone's features: 8, 16 or 32. Default: the model's own."""
    aux_weight: float | None = None
    """Weight of the loss of the auxiliary heads; 0 leaves them out. Default: the model's own, mostly 0.5."""
    eval_scales: tuple[float, ...] = (1.0,)
    """Multi-scale test-time augmentation: average the predictions over the image resized by these factors, such as 0.5
    1 1.5."""
    eval_flip: bool = False
    """Also average over horizontally flipped images (test-time augmentation)."""


@dataclasses.dataclass(frozen=True)
class Detection:
    data_augmentation: Literal["auto", "none", "hflip", "lsj", "multiscale", "ssd", "ssdlite"] = "auto"
    """What training makes of images and their boxes, as in torchvision's references: mirrored (hflip, which is part of
    all of them); large-scale jitter (lsj); shorter sides of several lengths (multiscale); colours, zooming out and
    crops that keep some object (ssd); such crops alone (ssdlite). auto means hflip, and for scenes
    none."""
    trainable_backbone_layers: int | None = None
    """Stages of the backbone to train, counted from its end; the others are frozen. Default: with pretrained weights
    those that torchvision trains (3 of 5, 4 in SSD); all of them otherwise."""


@dataclasses.dataclass(frozen=True)
class Machine:
    precision: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the forward and backward pass; parameters, optimizer state and loss are float32 in either case."""
    remat: bool = False
    """Recompute activations in the backward pass instead of keeping them (gradient checkpointing): less memory, about a
    third more time."""
    devices: int | None = None
    """Number of this machine's devices to divide each batch over. Default: all."""
    batch_norm: Literal["sync", "local"] = "sync"
    """Batch statistics over the whole batch (sync), or over each device's part, as in PyTorch's
    DistributedDataParallel (local)."""
    shard_params: bool = False
    """Shard parameters and optimizer state over the devices (FSDP), for models too large for one."""
    distributed: Literal["no", "auto"] = "no"
    """auto: this is one of several processes that Slurm, Open MPI, Kubernetes or a Cloud TPU pod started."""
    coordinator: str | None = None
    """Address of process 0 as HOST:PORT, for processes started by hand."""
    num_processes: int | None = None
    """Number of processes, with --coordinator."""
    process_id: int | None = None
    """Index of this process, from 0, with --coordinator."""


@dataclasses.dataclass(frozen=True)
class Records:
    save_every: int = 0
    """Steps between checkpoints, besides the one after each epoch; 0 is none."""
    keep: int = 2
    """Number of newest checkpoints to keep, besides best/."""
    on_nan: Literal["stop", "skip"] = "stop"
    """If the loss or the gradients are not finite: stop and save the last good state, or skip that step."""
    tensorboard: bool = False
    """Write TensorBoard events: metrics, images, class activation maps, histograms of weights and gradients."""
    log_every: int | None = None
    """Steps between two lines of steps.jsonl and points of TensorBoard. Default: 50, fewer in runs under 2,500 steps,
    so that there are 50 lines."""


SECTIONS = (Run, Images, Augmentation, Optimization, Transfer, Segmentation, Detection, Machine, Records)


@dataclasses.dataclass(frozen=True)
class Config(*reversed(SECTIONS)):
    """Train an image model.

    With --model alone it trains on scikit-learn's handwritten digits, which come with jaxzoo. Everything that a run
    writes goes into one folder, which is named at the start; Ctrl-C saves, and --resume continues exactly.
    """


# What may differ when a run is continued: nothing that changes the numbers, but for the number of epochs; and with
# --batch-norm local other devices, which `check_manifest` says.
RESUMABLE = {
    *("epochs", "patience", "eval_only", "resume"),
    "data",  # which may have moved
    *("eval_batch_size", "workers", "devices"),  # metrics do not depend on the batches that they are counted in
    *("distributed", "coordinator", "num_processes", "process_id"),
    *(field.name for field in dataclasses.fields(Records)),
}

# What leaves training images as they are, for --cache-features.
UNCHANGED = {
    **{"train_size": None, "progressive": None, "flip": "no", "crop_area": 1.0, "shift": 0},
    **{"color_jitter": (0.0, 0.0, 0.0, 0.0), "auto_augment": "none", "random_erase": 0.0, "mixup": 0.0, "cutmix": 0.0},
}


def option(name: str) -> str:
    """`--lr-min` for `lr_min`."""
    return "--" + name.replace("_", "-")


def stages(config: Config) -> list[int]:
    """Image sizes of `--progressive 128:224:4`: four from 128 to 224, even steps in whole pixels; none without it.

    Raises:
      UsageError: --progressive is not of this form.
    """
    if not config.progressive:
        return []
    match = re.fullmatch(r"(\d+):(\d+):(\d+)", config.progressive)
    first, last, count = map(int, match.groups()) if match else (0, 0, 0)
    if not (0 < first < last and 2 <= count <= last - first + 1):
        raise UsageError(f"--progressive takes FROM:TO:STAGES, such as 128:224:4, not {config.progressive}")
    return [round(first + (last - first) * stage / (count - 1)) for stage in range(count)]


def model_arguments(config: Config) -> dict[str, Any]:
    """`("dropout=0.2",)` as `{"dropout": 0.2}`; numbers, true and false are understood. Raises UsageError."""
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
