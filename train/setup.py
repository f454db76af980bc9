"""From the configuration to what the loop works with: data, task, model, compiled steps."""

import dataclasses
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import convert.shapes
import convert.weights
import jaxzoo
import train.data
from convert.weights import Weights
from jaxzoo.errors import UsageError
from jaxzoo.preprocess import Preprocess
from train import config as configuration
from train import defaults, processes, recipes, step, transfer
from train.config import Config, model_arguments
from train.data import Data, Source, inspection
from train.data.batches import EvaluationBatches, TrainingBatches
from train.optimizer import learning_rate, optimizer
from train.parameters import depths, parameter_kinds
from train.progress import progress, say
from train.progressive import Stages, dropout_rates, strengths
from train.tasks import Task
from train.tasks.classification import Classification


@dataclasses.dataclass(frozen=True)
class Setup:
    """What does not change during a run. `manifest` is what checkpoints say of themselves; `ready` comes before the
    first batch, and may write into the run's folder."""

    config: Config
    data: Data
    task: Task
    batches: Stages
    held_out: EvaluationBatches
    schedule: optax.Schedule
    steps: step.Steps
    manifest: dict
    summary: str
    ready: Callable[[], None]


def prepare(config: Config, folder: Path, *, continuing: bool = False) -> tuple[Setup, step.State]:
    """Opens the data, builds the model and its initial state; who continues from a checkpoint needs no --weights.

    Nothing is written. Raises UsageError.
    """
    jaxzoo.card(config.model)  # an unknown name is refused before anything slow
    with processes.one_after_the_other():  # the first may have to download
        data = train.data.load(config.data, val_fraction=config.val_fraction, seed=config.seed)
    weights = convert.weights.find(config.model, config.weights) if config.weights and not continuing else None
    preprocess = preprocessing(config, data, weights)
    arguments = arguments_of(config, data, preprocess)
    model = model_of(config, arguments, weights)
    config = defaults.filled(config, data, model)
    learns = transfer.learning(config, model, arguments)
    task, *tasks = tasks_of(config, data, preprocess)
    ready, sources = lambda: None, (data.train, data.held_out)
    if config.cache_features:
        task, ready, sources = on_features(config, folder, data, task, model, arguments)
        tasks = [task]
    of_process = {"process": jax.process_index(), "processes": jax.process_count(), "strict": config.strict_data}
    one = TrainingBatches(
        sources[0], tasks[0].training_example, config.batch_size, config.seed, repeats=config.repeats, **of_process
    )
    batches = Stages([one, *(one.with_example(other.training_example) for other in tasks[1:])], config.epochs)
    held_out = EvaluationBatches(sources[1], task.evaluation_example, config.batch_size, **of_process)
    schedule = learning_rate(config, batches.per_epoch)
    devices = devices_of(config.devices)
    steps, state = step.build(
        model,
        tasks,
        optimizer(config, schedule, parameter_kinds(model), depths(model)),
        schedule,
        example=blank_batch(task, config.batch_size // jax.process_count()),
        per_epoch=batches.per_epoch,
        seed=config.seed,
        dtype=jnp.dtype(config.precision),
        devices=devices,
        learns=learns,
        dropout=dropout_rates(config, model, len(tasks)),
        average=average_of(config, batches.per_epoch),
        batch_norm=config.batch_norm,
        shard_params=config.shard_params,
        remat=config.remat,
        on_nan=config.on_nan,
    )
    manifest = {
        "model": config.model,
        "arguments": arguments,
        "classes": data.classes,
        "preprocess": dataclasses.asdict(preprocess),
        "source": weights.source() if weights else None,
        "jaxzoo": jaxzoo.__version__,
        "train": {"images": len(data.train)},
    }
    count, fixed = (
        sum(leaf.size for name, leaf in step.flat(nnx.state(model, nnx.Param)).items() if learns(name) is wanted)
        for wanted in (True, False)
    )
    summary = (
        f"{config.model}: {(count + fixed) / 1e6:.1f} M parameters"
        + (f", {fixed / 1e6:.1f} M of them frozen" if fixed else "")
        + f", {preprocess.crop} x {preprocess.crop} pixels, "
        f"{config.precision}, {len(devices)} x {devices[0].device_kind}\n"
        f"{config.data}: {len(data.classes)} classes, "
        f"{len(data.train)} training images, {len(data.held_out)} held out\n"
        + (recipes.summary(config) or f"{config.epochs} epochs, {config.optimizer} at {config.lr:g}")
    )
    return Setup(config, data, task, batches, held_out, schedule, steps, manifest, summary, ready), state


def show_data(config: Config) -> None:
    """Prints what the data of `config` holds, and draws images as its model would see them in training."""
    data = train.data.load(config.data, val_fraction=config.val_fraction, seed=config.seed)
    preprocess = preprocessing(config, data, None)
    config = defaults.filled(
        config, data, convert.shapes.abstract(config.model, **arguments_of(config, data, preprocess))
    )
    task = tasks_of(config, data, preprocess)[-1]
    name = re.sub(r"[^\w.-]+", "_", config.data)
    out = Path(config.out or f"{name}.png")
    inspection.show(data, task, config.data, out, seed=config.seed, repeats=config.repeats, strict=config.strict_data)


def average_of(config: Config, per_epoch: int) -> step.Average | None:
    """Of the weights by --ema; a copy of them during the warm-up, as torchvision's references have it."""
    if not config.ema:
        return None
    return step.Average(config.ema, config.accumulate, max(1, round(config.warmup_epochs * per_epoch)))


def tasks_of(config: Config, data: Data, preprocess: Preprocess) -> list[Task]:
    """The task of the model's card: as it evaluates, and then for each stage of training."""
    sizes = configuration.stages(config) or [config.train_size or preprocess.crop]
    augmentation = configuration.Augmentation(
        **{field.name: getattr(config, field.name) for field in dataclasses.fields(configuration.Augmentation)}
    )

    def task(size: int, strength: float) -> Task:
        return Classification(
            data.classes,
            dataclasses.replace(preprocess, crop=size, resize=size) if data.image_size else preprocess.at(size),
            augmentation=dataclasses.replace(augmentation, ra_magnitude=round(config.ra_magnitude * strength)),
            label_smoothing=config.label_smoothing,
            dtype=jnp.dtype(config.precision),
        )

    return [task(preprocess.crop, 1), *map(task, sizes, strengths(len(sizes)))]


def on_features(
    config: Config, folder: Path, data: Data, task: Classification, model: nnx.Module, arguments: dict
) -> tuple[Task, Callable[[], None], tuple[Source, Source]]:
    """The task on what a frozen backbone makes of the images, how to compute that, and the sources that have it."""
    if jax.process_count() > 1:
        raise UsageError("--cache-features works in one process; leave it out, or train in one")
    head = transfer.head_paths(config.model, arguments)[-1]
    features_of, shape = transfer.backbone(model, task, head)
    sources = tuple(
        transfer.Features(images, folder / "features" / f"{name}.npy")
        for name, images in (("train", data.train), ("held_out", data.held_out))
    )
    sizes = {"batch_size": config.batch_size, "workers": config.workers, "strict": config.strict_data}

    def ready() -> None:
        total = sum(map(len, sources))
        if all(source.path.exists() for source in sources):
            return
        with progress(0, total, "image", "computing features") as bar:
            done = 0
            for source in sources:
                source.write(features_of, task, **sizes, tell=lambda n, _, done=done: bar.update(done + n, total, ""))
                done += len(source)

    on = transfer.OnFeatures(
        head,
        shape,
        data.held_out,
        classes=data.classes,
        preprocess=task.preprocess,
        label_smoothing=config.label_smoothing,
        dtype=task.dtype,
    )
    return on, ready, sources


def blank_batch(task: Task, rows: int) -> dict:
    """The shapes of a batch, with so many rows."""
    example = {name: jnp.zeros((rows, *value.shape), value.dtype) for name, value in task.blank().items()}
    return example | {
        "mask": jnp.ones(rows, bool),
        "indices": jnp.zeros(rows, jnp.int32),
        "stop": jnp.zeros(rows, bool),
    }


def preprocessing(config: Config, data: Data, weights: Weights | None) -> Preprocess:
    """The eval transform: what the weights, or else the model, were published with, at the size of this run.

    At another size than the published one, resize and crop keep their proportion.
    """
    base = jaxzoo.card(config.model).preprocess
    if weights and weights.preprocess:
        base = Preprocess(**weights.preprocess)
    side = config.image_size or (configuration.stages(config) or [data.image_size or base.crop])[-1]
    return dataclasses.replace(base, crop=side, resize=side) if data.image_size else base.at(side)


def arguments_of(config: Config, data: Data, preprocess: Preprocess) -> dict:
    """What the model is built with: --model-args, --drop-path, the classes, the image size where it must know that."""
    names = jaxzoo.registry.argument_names(config.model)
    size = {"image_size": preprocess.crop} if "image_size" in names else {}
    if size and config.progressive:
        raise UsageError(f"{config.model} is built for one image size: it cannot train with --progressive")
    if config.drop_path is not None and "stochastic_depth_prob" not in names:
        raise UsageError(f"{config.model} has no stochastic depth: leave out --drop-path")
    depth = {} if config.drop_path is None else {"stochastic_depth_prob": config.drop_path}
    return size | depth | model_arguments(config) | {"num_classes": len(data.classes)}


def model_of(config: Config, arguments: dict, weights: Weights | None) -> nnx.Module:
    """The model with these weights, or with fresh parameters by --seed; so is a head that does not fit, and named."""
    if not weights:
        try:
            return jaxzoo.create_model(config.model, seed=config.seed, **arguments)
        except (TypeError, ValueError) as error:
            if isinstance(error, UsageError) or not config.model_args:
                raise
            raise UsageError(f"{config.model} cannot be built with {' '.join(config.model_args)}: {error}") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said below
        model, arguments, skipped = convert.weights.fit(
            config.model, weights, head="strict" if config.eval_only else "skip", **arguments
        )
    convert.load_state_dict(model, weights.tensors, skip=skipped)
    convert.weights.fill_fresh(model, config.model, arguments, config.seed)
    fresh = f"; for {arguments['num_classes']} classes these start fresh: {', '.join(skipped)}" if skipped else ""
    say(f"weights of {weights.path}{fresh}")
    return model


def devices_of(count: int | None) -> list[jax.Device]:
    """The first `count` devices of every process, or all, in the order of processes."""
    local = jax.local_devices()
    if count and count > len(local):
        raise UsageError(f"--devices is {count}, but there are {len(local)} ({local[0].device_kind})")
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    return [
        device for p in range(jax.process_count()) for device in [d for d in devices if d.process_index == p][:count]
    ]


def check_manifest(found: dict, expected: dict, run: Path) -> None:
    """Raises UsageError if a checkpoint is of another model or of other classes than the run that wants to continue."""
    if found["model"] != expected["model"]:
        raise UsageError(f"{run} holds checkpoints of {found['model']}, but its config.yaml says {expected['model']}")
    if (then := found["classes"]) != (now := expected["classes"]):
        gone, new = [c for c in then if c not in now], [c for c in now if c not in then]
        parts = [f"{', '.join(names[:3])} {what}" for names, what in ((gone, "gone"), (new, "new")) if names]
        what = "; ".join(parts) or "another order"
        raise UsageError(f"{run} was trained on other classes than its data has now: {what}")
    if (then := found["train"]["images"]) != (now := expected["train"]["images"]):
        say(f"the data had {then} training images and has {now} now: this continues, but not as if never stopped")
