"""From the configuration to what the loop works with: data, task, model, compiled steps."""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Collection
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import convert.fitting
import convert.loading
import convert.shapes
import convert.sources
import convert.store
import jaxzoo
import train.data
import train.tasks
from convert.differences import listed
from convert.weights import Weights
from jaxzoo import nn
from jaxzoo.errors import UsageError
from jaxzoo.inspect.intercept import program
from jaxzoo.preprocess import Preprocess
from train import inspection
from train.config import defaults, needs, recipes
from train.config.options import Config, model_arguments, option, stages
from train.data import Data, names_digest
from train.data.batches import EvaluationBatches, TrainingBatches
from train.data.relabelled import relabelled
from train.distributed import processes
from train.engine import step
from train.engine.network import flat
from train.engine.stages import Stages, dropout_rates
from train.optim.optimizers import learning_rate, optimizer, updates
from train.optim.parameter_groups import depths, parameter_kinds
from train.reporting.progress import say
from train.tasks import Task
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
    kind, config = train.tasks.of_model(config.model), defaults.named(config)
    if not config.resume:  # whose options are those of the run
        check_means_something(config, kind.INAPPLICABLE_OPTIONS)
    with processes.primary_first():  # the first may have to download
        try:
            data = data_of(config)
        except UsageError as error:
            raise UsageError(f"{error}{MOVED if config.resume else ''}") from None
    if not config.eval_only and not len(data.train):
        raise UsageError(f"{config.data} is a test set alone, with nothing to train on: --eval-only evaluates it")
    weights, backbone = None, config.weights_backbone
    if continuing:  # as it was begun, whatever weights brought along
        backbone = None
        stored = stored_in(run)
        data = relabelled(data, stored["classes"], config.data, str(run), evaluated=config.eval_only)
        check_classes(stored["classes"], data.classes, run)
        preprocess, arguments = Preprocess(**stored["preprocess"]), stored["arguments"]
    else:
        weights = convert.sources.read_weights(config.model, config.weights) if config.weights else None
        if weights and weights.classes:
            data = relabelled(data, weights.classes, config.data, config.weights, evaluated=config.eval_only)
        preprocess = preprocessing(config, data, weights)
        arguments = arguments_of(config, data, preprocess)
        if has_one_output(config, data, weights, arguments):
            arguments |= {"num_classes": 1}
    model, arguments = model_of(config, arguments, weights, backbone)
    side = config.train_size or preprocess.crop
    asked, config = config, defaults.filled(config, data, model, side)
    check_fits(config, model)
    learns = freeze.learning(config, model, arguments)
    heads = freeze.head_paths(config.model, arguments) if config.head_lr != 1 else ()
    task, *tasks = kind.tasks_of(config, data, preprocess)
    if not (config.resume or config.eval_only):
        needs.check_run(run_of(asked, config, data, model, [name for name in heads if learns(f"{name}.kernel")]))
    ready, sources = lambda folder: None, (data.train, data.held_out)
    if config.cache_features and not config.eval_only:
        task, ready, sources = features.cached(config, data, task, model, arguments, continuing)
        tasks = [task]
    of_process = {"process": jax.process_index(), "processes": jax.process_count(), "strict": config.strict_data}
    batches, per_epoch = None, 1
    if not config.eval_only:
        one = TrainingBatches(
            sources[0],
            tasks[0].training_example,
            config.batch_size,
            config.seed,
            repeats=config.repeats,
            buckets=tasks[0].training_buckets(sources[0]),
            **of_process,
        )
        batches = Stages([one, *(one.with_example(other.training_example) for other in tasks[1:])], config.epochs)
        per_epoch = batches.per_epoch
    devices = devices_of(config.devices)
    if (config.eval_batch_size or 0) % len(devices):
        raise UsageError(
            f"--eval-batch-size {config.eval_batch_size} cannot be shared equally among {len(devices)} devices; take a "
            f"multiple of {len(devices)}"
        )
    buckets = task.evaluation_buckets(sources[1], config.batch_size, config.eval_batch_size, len(devices))
    held_out = EvaluationBatches(sources[1], buckets=buckets, **of_process)
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
    manifest = {
        "model": config.model,
        "arguments": arguments,
        "classes": data.classes,
        "preprocess": dataclasses.asdict(task.preprocess),
        "source": weights.source() if weights else None,
        "jaxzoo": jaxzoo.__version__,
        "train": {
            "images": len(data.train),
            "names": names_digest(data),
            "batch_norm_parts": len(devices) if config.batch_norm == "local" else 1,
        },
    }
    count, fixed = (
        sum(leaf.size for name, leaf in flat(nnx.state(model, nnx.Param)).items() if learns(name) is wanted)
        for wanted in (True, False)
    )
    summary = (
        f"{config.model}: {(count + fixed) / 1e6:.1f} M parameters"
        + (f", {fixed / 1e6:.1f} M of them frozen" if fixed else "")
        + f", {preprocess.crop} x {preprocess.crop} pixels, "
        f"{config.precision}, {len(devices)} x {devices[0].device_kind}\n"
        f"{config.data}: {len(data.classes)} classes, "
        f"{len(data.train)} training images, {len(data.held_out)} held out"
        + ("; --val-fraction 1 evaluates all" if config.eval_only and data.drawn and len(data.train) else "")
        + "\n"
        + ("" if config.eval_only else f"{defaults.augmentation_line(asked, config, data, side)}\n")
        + (recipes.summary(config) or f"{config.epochs} epochs, {config.optimizer} at {config.lr:g}")
    )
    return Setup(config, data, task, batches, held_out, schedule, steps, manifest, summary, ready), state


def stored_in(folder: Path) -> dict:
    """What the checkpoints of a run say of themselves: the first that can be read, since all say the same of the model.

    Raises:
      UsageError: none can.
    """
    places = [*(folder / "checkpoints").glob("[0-9]*"), folder / "best"]
    for place in places:
        with contextlib.suppress(UsageError):
            return convert.store.read_manifest(place)
    raise UsageError(f"no checkpoint of {folder} can be read")


def show_data(config: Config) -> None:
    """Prints what the data of `config` holds, and draws images as its model would see them in training."""
    kind, config = train.tasks.of_model(config.model), defaults.named(config)
    data = data_of(config)
    preprocess = preprocessing(config, data, None)
    model = convert.shapes.abstract(config.model, **arguments_of(config, data, preprocess))
    side = config.train_size or preprocess.crop
    asked, config = config, defaults.filled(config, data, model, side)
    say(defaults.augmentation_line(asked, config, data, side))
    task = kind.tasks_of(config, data, preprocess)[-1]
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


def preprocessing(config: Config, data: Data, weights: Weights | None) -> Preprocess:
    """The eval transform: what the weights, or else the model, were published with, at the size of this run.

    At another size than the published one, resize and crop keep their proportion.
    """
    base = jaxzoo.card(config.model).preprocess
    if weights and weights.preprocess:
        base = Preprocess(**weights.preprocess)
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
            model = convert.shapes.abstract(config.model, **known, **model_arguments(config))
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


def arguments_of(config: Config, data: Data, preprocess: Preprocess) -> dict:
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
    own = model_arguments(config)
    if "num_classes" in own and len(data.classes) != 2:
        raise UsageError(
            f"--model-args num_classes=1 is for two classes, which a sigmoid tells apart; {config.data} has "
            f"{len(data.classes)}: leave it out"
        )
    return {"num_classes": len(data.classes)} | size | depth | stride | auxiliary | own


def run_of(asked: Config, config: Config, data: Data, model: nnx.Module, learning: Collection[str]) -> needs.Run:
    """What decides whether options do something; `learning` are the modules of the head that learn."""
    norms = any(isinstance(module, nn.BatchNorm) for _, module in nnx.iter_modules(model))
    outputs = 1
    if asked.aux_weight:
        model.train()
        graph, state = nnx.split(model)
        side = jaxzoo.card(config.model).preprocess.crop
        images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
        outputs = len(jax.eval_shape(lambda state, x: nnx.merge(graph, state, copy=True)(x), state, images))
    steps = config.epochs * (len(data.train) // config.batch_size)
    return needs.Run(asked, config, data, steps, norms, outputs > 1, bool(learning))


def has_one_output(config: Config, data: Data, weights: Weights | None, arguments: dict) -> bool:
    """Whether these weights tell two classes apart by a single output."""
    if not weights or len(data.classes) != 2:
        return False
    others = {name: value for name, value in arguments.items() if name != "num_classes"}
    shapes = {key: array.shape for key, array in weights.tensors.items()}
    return convert.fitting.infer_arguments(config.model, shapes, weights.arguments, others)[0].get("num_classes") == 1


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


def model_of(config: Config, arguments: dict, weights: Weights | None, backbone: str | None) -> tuple[nnx.Module, dict]:
    """The model with these weights, or with fresh parameters by --seed, but for those of a `backbone`; a head that does
    not fit is fresh and named.

    Also the arguments that it was built with, in which weights may have a say.
    """
    if not weights:
        try:
            model = jaxzoo.create_model(config.model, seed=config.seed, **arguments)
        except (TypeError, ValueError) as error:
            if isinstance(error, UsageError) or not config.model_args:
                raise
            raise UsageError(f"{config.model} cannot be built with {' '.join(config.model_args)}: {error}") from error
        if backbone:
            say(convert.loading.load_part(model, config.model, backbone))
        return model, arguments
    head = "strict" if config.eval_only else "skip"
    try:
        fit = convert.fitting.fit_weights(config.model, weights, head=head, **arguments)
    except UsageError as error:
        if config.eval_only and any(way.argument == "head" for way in error.remedies):
            raise UsageError(f"{error.args[0]}; without --eval-only a fresh head is trained") from None
        raise
    convert.load_state_dict(fit.model, fit.tensors, skip=fit.fresh)
    convert.loading.fill_fresh(fit.model, config.model, fit.arguments, config.seed)
    fresh = ""
    if fit.fresh:
        heads = freeze.head_paths(config.model, fit.arguments)
        freeze.start_at_zero(fit.model, [path for path in heads if f"{path}.weight" in fit.fresh])
        fresh = f"; for {fit.arguments['num_classes']} classes these start fresh: {listed(fit.fresh, 8)}"
    for note in fit.notes:
        say(note)
    say(f"weights of {weights.path}{fresh}")
    return fit.model, fit.arguments


def devices_of(count: int | None) -> list[jax.Device]:
    """The first `count` devices of every process, or all, in the order of processes."""
    local = jax.local_devices()
    if count and count > len(local):
        raise UsageError(f"--devices is {count}, but there are {len(local)} ({local[0].device_kind})")
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    return [
        device for p in range(jax.process_count()) for device in [d for d in devices if d.process_index == p][:count]
    ]


def check_classes(then: list[str], now: list[str], run: Path) -> None:
    """Raises UsageError if the data of a run that wants to continue has other classes than it had."""
    if then != now:
        gone, new = [c for c in then if c not in now], [c for c in now if c not in then]
        parts = [f"{', '.join(names[:3])} {what}" for names, what in ((gone, "gone"), (new, "new")) if names]
        raise UsageError(f"{run} was trained on other classes than its data has now: {'; '.join(parts)}")


def check_manifest(found: dict, expected: dict, run: Path, moved_to: str | None = None) -> None:
    """Compares a checkpoint with the run that wants to continue, whose images lie somewhere else, if so.

    Raises:
      UsageError: it is one of another model; or they have moved, and are no longer the same.
    """
    if found["model"] != expected["model"]:
        raise UsageError(f"{run} holds checkpoints of {found['model']}, but its config.yaml says {expected['model']}")
    then, now, local = found["train"], expected["train"], "batch_norm_parts"
    if local in then and then[local] != now[local]:  # older checkpoints do not say
        devices = f"--batch-norm local had {then[local]} devices to share a batch among, and has {now[local]} now"
        say(f"{devices}: this continues, but not as if never stopped")
    if then["images"] == now["images"] and then.get("names", now["names"]) == now["names"]:
        return
    counts = then["images"], now["images"]
    what = "had {} training images and has {} now".format(*counts) if counts[0] != counts[1] else "has other images now"
    if moved_to:
        raise UsageError(
            f"{run} cannot be continued with {moved_to}, which are not its images: the data {what}; a new run can "
            f"start from its weights, --weights {run}"
        )
    say(f"the data {what}: this continues, but not as if never stopped")
