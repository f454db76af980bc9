"""From the configuration to what the loop works with: data, task, model, compiled steps."""

import dataclasses
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import convert.weights
import jaxzoo
import train.data
from convert.weights import Weights
from jaxzoo.errors import UsageError
from jaxzoo.preprocess import Preprocess
from train import defaults, step
from train.config import Config, model_arguments
from train.data import Data
from train.data.batches import EvaluationBatches, TrainingBatches
from train.optimizer import learning_rate, optimizer
from train.progress import say
from train.tasks import Task
from train.tasks.classification import Classification


@dataclasses.dataclass(frozen=True)
class Setup:
    """What does not change during a run. `manifest` is what checkpoints say of themselves."""

    config: Config
    task: Task
    batches: TrainingBatches
    held_out: EvaluationBatches
    schedule: optax.Schedule
    steps: step.Steps
    manifest: dict
    summary: str


def prepare(config: Config, *, continuing: bool = False) -> tuple[Setup, step.State]:
    """Opens the data, builds the model and its initial state; who continues from a checkpoint needs no --weights.

    Nothing is written. Raises UsageError.
    """
    jaxzoo.card(config.model)  # an unknown name is refused before anything slow
    data = train.data.load(config.data, val_fraction=config.val_fraction, seed=config.seed)
    weights = convert.weights.find(config.model, config.weights) if config.weights and not continuing else None
    preprocess = preprocessing(config, data, weights)
    arguments = arguments_of(config, data, preprocess)
    model = model_of(config, arguments, weights)
    config = defaults.filled(config, data, model)
    task = task_of(config, data, preprocess)
    batches = TrainingBatches(data.train, task.training_example, config.batch_size, config.seed)
    held_out = EvaluationBatches(data.held_out, task.evaluation_example, config.batch_size)
    schedule = learning_rate(config, batches.per_epoch)
    devices = local_devices(config.devices)
    steps, state = step.build(
        model,
        task,
        optimizer(config, schedule),
        schedule,
        example=held_out(0),
        per_epoch=batches.per_epoch,
        seed=config.seed,
        dtype=jnp.dtype(config.precision),
        devices=devices,
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
    count = sum(leaf.size for leaf in state["params"].values())
    summary = (
        f"{config.model}: {count / 1e6:.1f} M parameters, {preprocess.crop} x {preprocess.crop} pixels, "
        f"{config.precision}, {len(devices)} x {devices[0].device_kind}\n"
        f"{config.data}: {len(data.classes)} classes, {len(data.train)} training images, {len(data.held_out)} held out"
    )
    return Setup(config, task, batches, held_out, schedule, steps, manifest, summary), state


def preprocessing(config: Config, data: Data, weights: Weights | None) -> Preprocess:
    """The eval transform: what the weights, or else the model, were published with, at the size of this run.

    At another size than the published one, resize and crop keep their proportion.
    """
    base = jaxzoo.card(config.model).preprocess
    if weights and weights.preprocess:
        base = Preprocess(**weights.preprocess)
    side = config.image_size or data.image_size or base.crop
    return dataclasses.replace(base, crop=side, resize=side) if data.image_size else base.at(side)


def arguments_of(config: Config, data: Data, preprocess: Preprocess) -> dict:
    """What the model is built with: --model-args, the number of classes, the image size where it must know that."""
    sized = "image_size" in jaxzoo.registry.argument_names(config.model)
    size = {"image_size": preprocess.crop} if sized else {}
    return size | model_arguments(config) | {"num_classes": len(data.classes)}


def task_of(config: Config, data: Data, preprocess: Preprocess) -> Task:
    """The task of the model's card."""
    return Classification(
        data.classes,
        preprocess,
        crop_area=config.crop_area,
        shift=config.shift,
        flip=config.flip == "yes",
        label_smoothing=config.label_smoothing,
        dtype=jnp.dtype(config.precision),
    )


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


def local_devices(count: int | None) -> list[jax.Device]:
    """The first `count` devices of this machine, or all."""
    devices = jax.local_devices()
    if count and count > len(devices):
        raise UsageError(f"--devices is {count}, but there are {len(devices)} ({devices[0].device_kind})")
    return devices[:count]


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
