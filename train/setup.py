"""From the configuration to what the loop works with: data, task, model, compiled steps."""

import dataclasses
import inspect
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import convert
import jaxzoo
import train.data
from convert import store
from jaxzoo.errors import UsageError
from jaxzoo.preprocess import Preprocess
from train import step
from train.config import Config, model_arguments
from train.data import Data
from train.data.batches import EvaluationBatches, TrainingBatches
from train.optimizer import learning_rate, optimizer
from train.tasks import Task
from train.tasks.classification import Classification


@dataclasses.dataclass(frozen=True)
class Setup:
    """All that follows from the configuration alone. `manifest` is what checkpoints say of themselves."""

    task: Task
    batches: TrainingBatches
    held_out: EvaluationBatches
    schedule: optax.Schedule
    steps: step.Steps
    manifest: dict
    summary: str


def prepare(config: Config) -> Setup:
    """Opens the data, builds the model and the steps. Nothing is written, no step compiled. Raises UsageError."""
    jaxzoo.card(config.model)  # an unknown name is refused before anything slow
    data = train.data.load(config.data, val_fraction=config.val_fraction, seed=config.seed)
    preprocess = preprocessing(config, data)
    arguments = arguments_of(config, data, preprocess)
    task = task_of(config, data, preprocess)
    batches = TrainingBatches(data.train, task.training_example, config.batch_size, config.seed)
    held_out = EvaluationBatches(data.held_out, task.evaluation_example, config.batch_size)
    schedule = learning_rate(config, batches.per_epoch)
    devices = local_devices(config.devices)
    model = model_of(config, arguments)
    steps = step.build(
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
        "source": None,
        "jaxzoo": jaxzoo.__version__,
    }
    count = sum(leaf.size for leaf in steps.initial["params"].values())
    summary = (
        f"{config.model}: {count / 1e6:.1f} M parameters, {preprocess.crop} x {preprocess.crop} pixels, "
        f"{config.precision}, {len(devices)} x {devices[0].device_kind}\n"
        f"{config.data}: {len(data.train)} images to train on, {len(data.held_out)} held out, {len(data.classes)} classes"
    )
    return Setup(task, batches, held_out, schedule, steps, manifest, summary)


def preprocessing(config: Config, data: Data) -> Preprocess:
    """The eval transform: what the weights, or else the model, were published with, at the size of this run.

    At another size than the published one, resize and crop keep their proportion.
    """
    card = jaxzoo.card(config.model)
    base = card.weights.get(config.weights, card.preprocess)
    if config.weights and (Path(config.weights) / store.MANIFEST).is_file():
        stored = store.read_manifest(config.weights).get("preprocess")
        base = Preprocess(**stored) if stored else base
    side = config.image_size or data.image_size or base.crop
    resize = side if data.image_size else round(side * (base.resize or base.crop) / base.crop)
    return dataclasses.replace(base, crop=side, resize=resize)


def arguments_of(config: Config, data: Data, preprocess: Preprocess) -> dict:
    """What the model is built with: --model-args, the number of classes, and the image size where a model must know it."""
    sized = "image_size" in inspect.signature(jaxzoo.card(config.model).builder).parameters
    size = {"image_size": preprocess.crop} if sized else {}
    return size | model_arguments(config) | {"num_classes": len(data.classes)}


def task_of(config: Config, data: Data, preprocess: Preprocess) -> Task:
    """The task of the model's card."""
    return Classification(
        data.classes,
        preprocess,
        crop_area=config.crop_area or (0.35 if data.photographs else 1.0),
        flip=data.photographs if config.flip is None else config.flip,
        label_smoothing=config.label_smoothing,
        dtype=jnp.dtype(config.precision),
    )


def model_of(config: Config, arguments: dict) -> nnx.Module:
    """The model with the parameters of --weights, or fresh ones by --seed."""
    if config.weights and not config.resume:
        head = "strict" if config.eval_only else "skip"
        return convert.load(config.model, config.weights, head=head, **arguments)
    return jaxzoo.create_model(config.model, seed=config.seed, **arguments)


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
        raise UsageError(f"{run} was trained on other classes than its data has now: {'; '.join(parts) or 'another order'}")
