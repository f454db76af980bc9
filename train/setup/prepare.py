"""From the configuration to what the loop works with: data, task, model, compiled steps."""

import dataclasses
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import convert.shapes
import convert.sources
import jaxzoo
import train.data
from convert.weights import Weights
from jaxzoo import nn
from jaxzoo.errors import UsageError
from jaxzoo.preprocess import Preprocess, from_dict, to_dict
from train import inspection
from train.config import needs, recipes
from train.config.options import Config, option, stages
from train.data import Data, Source, names_digest
from train.data.batches import EvaluationBatches, TrainingBatches
from train.data.relabelled import relabelled
from train.distributed import processes
from train.engine import step
from train.engine.network import flat
from train.engine.stages import Stages, dropout_rates
from train.optim.optimizers import learning_rate, optimizer, updates
from train.optim.parameter_groups import depths, parameter_kinds
from train.reporting.progress import say
from train.setup import defaults
from train.setup.continuing import check_classes, stored_in
from train.setup.models import model_of
from train.tasks import Task, of_model
from train.transfer import features, freeze

MOVED = "; if the images have moved, --data says where they are now"


@dataclasses.dataclass(frozen=True)
class Setup:
    """What does not change during a run. `batches` is None where nothing is trained. `manifest` is what checkpoints say
    of themselves; `ready(folder)` comes before the first batch, and may write into the run's folder."""

    config: Config
    data: Data
    task: Task
    batches: Stages | None
    held_out: EvaluationBatches
    schedule: optax.Schedule
    steps: step.Steps
    manifest: dict
    summary: str
    ready: Callable[[Path], None]


def prepare(config: Config, run: Path, *, continuing: bool = False) -> tuple[Setup, step.State]:
    """Opens the data, builds the model and its initial state; who continues from a checkpoint of `run` needs no
    --weights.

    Nothing is written. Raises UsageError.
    """
    kind, config = of_model(config.model), defaults.named(config)
    if not config.resume:  # whose options are those of the run
        check_means_something(config, kind.INAPPLICABLE_OPTIONS)
    plan = plan_as_begun(config, run) if continuing else plan_anew(config, kind)
    data, preprocess = plan.data, plan.preprocess
    model, arguments = model_of(config, plan.arguments, plan.weights, plan.backbone)
    asked, side = config, side_of(config, preprocess)
    config = defaults.filled(config, data, model, side)
    check_fits(config, model)
    learns = freeze.learning(config, model, arguments)
    heads = freeze.head_paths(config.model, arguments) if config.head_lr != 1 else ()
    task, *tasks = kind.tasks_of(config, data, preprocess)
    data = task.data or data
    if not (config.resume or config.eval_only):
        needs.check_run(run_of(asked, config, data, model, [name for name in heads if learns(f"{name}.kernel")]))
    ready, sources = lambda folder: None, (data.train, data.held_out)
    if config.cache_features and not config.eval_only:
        task, ready, sources = features.cached(config, data, task, model, arguments, continuing)
        tasks = [task]
    devices = devices_of(config.devices)
    batches = None if config.eval_only else training_batches(config, sources[0], tasks)
    per_epoch = batches.per_epoch if batches else 1
    schedule = learning_rate(config, per_epoch)
    steps, state = step.build(
        model,
        tasks,
        optimizer(config, schedule, parameter_kinds(model), depths(model), heads),
        schedule,
        batch_size=config.batch_size,
        per_epoch=per_epoch,
        seed=config.seed,
        dtype=jnp.dtype(config.precision),
        devices=devices,
        learns=learns,
        dropout=dropout_rates(config, model, len(tasks)),
        average=average_of(config, per_epoch),
        batch_norm=config.batch_norm,
        shard_params=config.shard_params,
        remat=config.remat,
        on_nan=config.on_nan,
    )
    held_out = validation_batches(config, sources[1], task, len(devices))
    manifest = manifest_of(config, plan, task, arguments, len(devices))
    size = f", {preprocess.size_text()}" if preprocess else ""
    machine = f"{size}, {config.precision}, {len(devices)} x {devices[0].device_kind}"
    summary = [model_line(config, model, learns) + machine, data_line(config, data)]
    if not config.eval_only:
        summary += filter(None, [kind.augmentation_line(asked, config, data, side), shapes_line(batches)])
    summary.append(recipes.summary(config) or f"{config.epochs} epochs, {config.optimizer} at {config.lr:g}")
    return Setup(config, data, task, batches, held_out, schedule, steps, manifest, "\n".join(summary), ready), state


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run is made of: its data, how inputs are prepared, the model's arguments, and where weights come from."""

    data: Data
    preprocess: Preprocess | None
    arguments: dict
    weights: Weights | None = None
    backbone: str | None = None


def plan_anew(config: Config, kind: ModuleType) -> Plan:
    """As options and weights say."""
    data = opened(config)
    weights = convert.sources.read_weights(config.model, config.weights) if config.weights else None
    if weights and weights.classes:
        data = relabelled(data, weights.classes, config.data, config.weights, evaluated=config.eval_only)
    preprocess = kind.preparation(config, data, weights)
    arguments = kind.model_arguments(config, data, preprocess, weights)
    return Plan(data, preprocess, arguments, weights, config.weights_backbone)


def plan_as_begun(config: Config, run: Path) -> Plan:
    """As the run was begun, whatever weights brought along."""
    data, stored = opened(config), stored_in(run)
    data = relabelled(data, stored["classes"], config.data, str(run), evaluated=config.eval_only)
    check_classes(stored["classes"], data.classes, run)
    preprocess = stored["preprocess"] and from_dict(stored["preprocess"])
    return Plan(data, preprocess, stored["arguments"])


def opened(config: Config) -> Data:
    """The data that `config` names, which the first process may have to download. Raises UsageError."""
    with processes.primary_first():
        try:
            data = data_of(config)
        except UsageError as error:
            raise UsageError(f"{error}{MOVED if config.resume else ''}") from None
    if not config.eval_only and not len(data.train):
        raise UsageError(f"{config.data} is a test set alone, with nothing to train on: --eval-only evaluates it")
    return data


def side_of(config: Config, preprocess: Preprocess | None) -> int | None:
    """The side of training images in pixels, where the model looks at images."""
    return config.train_size or (preprocess.side if preprocess else None)


def training_batches(config: Config, source: Source, tasks: Sequence[Task]) -> Stages:
    """The batches of the whole run, in this process."""
    first = TrainingBatches(
        source,
        tasks[0].training_example,
        config.batch_size,
        config.seed,
        repeats=config.repeats,
        buckets=tasks[0].training_buckets(source),
        **of_process(config),
    )
    return Stages([first, *(first.with_example(task.training_example) for task in tasks[1:])], config.epochs)


def validation_batches(config: Config, source: Source, task: Task, devices: int) -> EvaluationBatches:
    """Those of evaluation. Raises UsageError if devices cannot share them equally."""
    if (config.eval_batch_size or 0) % devices:
        raise UsageError(
            f"--eval-batch-size {config.eval_batch_size} cannot be shared equally among {devices} devices; take a "
            f"multiple of {devices}"
        )
    buckets = task.evaluation_buckets(source, config.batch_size, config.eval_batch_size, devices)
    return EvaluationBatches(source, buckets=buckets, **of_process(config))


def of_process(config: Config) -> dict[str, int | bool]:
    return {"process": jax.process_index(), "processes": jax.process_count(), "strict": config.strict_data}


def manifest_of(config: Config, plan: Plan, task: Task, arguments: dict, devices: int) -> dict:
    """What checkpoints say of themselves."""
    return {
        "model": config.model,
        "arguments": arguments,
        "classes": plan.data.classes,
        "preprocess": to_dict(task.preprocess) if task.preprocess else None,
        "source": plan.weights.source() if plan.weights else None,
        "jaxzoo": jaxzoo.__version__,
        "train": {
            "images": len(plan.data.train),
            "names": names_digest(plan.data),
            "batch_norm_parts": devices if config.batch_norm == "local" else 1,
        },
    }


def model_line(config: Config, model: nnx.Module, learns: Callable[[str], bool]) -> str:
    """`resnet18: 11.7 M parameters, 11.2 M of them frozen`"""
    sizes = {name: leaf.size for name, leaf in flat(nnx.state(model, nnx.Param)).items()}
    fixed = sum(size for name, size in sizes.items() if not learns(name))
    frozen = f", {fixed / 1e6:.1f} M of them frozen" if fixed else ""
    return f"{config.model}: {sum(sizes.values()) / 1e6:.1f} M parameters{frozen}"


def data_line(config: Config, data: Data) -> str:
    """What there is to learn from."""
    rest = config.eval_only and data.drawn and len(data.train)
    return f"{config.data}: {data.summary()}" + ("; --val-fraction 1 evaluates all" if rest else "")


def shapes_line(batches: Stages) -> str:
    """How often the step is compiled for images of several sizes."""
    count = sum(len(of.buckets) for of in batches.batches) if len(batches.batches[0].buckets) > 1 else 1
    return f"{count} shapes of batches, for each of which the step is compiled once" if count > 1 else ""


def show_data(config: Config) -> None:
    """Prints what the data of `config` holds, and draws images as its model would see them in training."""
    kind, config = of_model(config.model), defaults.named(config)
    data = data_of(config)
    preprocess = kind.preparation(config, data, None)
    model = convert.shapes.abstract(config.model, **kind.model_arguments(config, data, preprocess, None))
    asked, side = config, side_of(config, preprocess)
    config = defaults.filled(config, data, model, side)
    if line := kind.augmentation_line(asked, config, data, side):
        say(line)
    task = kind.tasks_of(config, data, preprocess)[-1]
    data = task.data or data
    name = re.sub(r"[^\w.-]+", "_", config.data)
    out = Path(config.out or f"{name}.png")
    inspection.show(data, task, config.data, out, seed=config.seed, repeats=config.repeats, strict=config.strict_data)


def data_of(config: Config) -> Data:
    """The data that `config` names. Raises UsageError."""
    task = jaxzoo.card(config.model).task
    return train.data.load(config.data, task, val_fraction=config.val_fraction, seed=config.seed)


def average_of(config: Config, per_epoch: int) -> step.Average | None:
    """Of the weights by --ema; a copy of them up to the first update after the warm-up, as torchvision's references
    have it."""
    if not config.ema:
        return None
    return step.Average(config.ema, start=config.accumulate * (updates(config, per_epoch)[1] + 1))


def run_of(asked: Config, config: Config, data: Data, model: nnx.Module, learning: Collection[str]) -> needs.Run:
    """What decides whether options do something; `learning` are the modules of the head that learn."""
    norms = any(isinstance(module, nn.BatchNorm) for _, module in nnx.iter_modules(model))
    outputs = 1
    if asked.aux_weight:
        model.train()
        graph, state = nnx.split(model)
        inputs = jaxzoo.card(config.model).example_inputs(2)
        outputs = len(jax.eval_shape(lambda state, x: nnx.merge(graph, state, copy=True)(x), state, inputs))
    steps = config.epochs * (len(data.train) // config.batch_size)
    of_files = config.data.partition(":")[0] in ("folder", "list")
    has_split = train.data.is_default_source(config.data) or (of_files and not data.drawn)
    return needs.Run(asked, config, has_split, steps, norms, outputs > 1, bool(learning))


def check_means_something(config: Config, foreign: Collection[str]) -> None:
    """Refuses options that mean nothing to what the model learns."""
    for field in dataclasses.fields(config):
        if field.name in foreign and getattr(config, field.name) != field.default:
            what = f"{option(field.name)} means nothing to {jaxzoo.card(config.model).task}"
            raise UsageError(f"{what}: {'take another recipe' if config.recipe else 'leave it out'}")


def check_fits(config: Config, model: nnx.Module) -> None:
    """Refuses options that mean nothing to this model, or to a run of so many epochs."""
    if config.dropout is not None and not any(
        type(module) in (nn.Dropout, nn.Dropout2d) for _, module in nnx.iter_modules(model)
    ):
        raise UsageError(f"{config.model} has no dropout: leave out --dropout")
    count = len(stages(config))
    if count > config.epochs:
        raise UsageError(f"--progressive has {count} stages, which --epochs {config.epochs} is too short for")


def devices_of(count: int | None) -> list[jax.Device]:
    """The first `count` devices of every process, or all, in the order of processes."""
    local = jax.local_devices()
    if count and count > len(local):
        raise UsageError(f"--devices is {count}, but there are {len(local)} ({local[0].device_kind})")
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    return [
        device for p in range(jax.process_count()) for device in [d for d in devices if d.process_index == p][:count]
    ]
