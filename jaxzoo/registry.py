"""The list of models: every family file registers its builders here, and everything else walks this list."""

import dataclasses
import fnmatch
import functools
import importlib
import inspect
import numbers
import pkgutil
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxzoo.errors import UsageError, nearest
from jaxzoo.nn.dropout import Stream
from jaxzoo.preprocess import Preparation, Preprocess

TASKS = ("classification", "segmentation", "detection", "reconstruction")
FOLDERS = {"reconstruction": "generative"}  # of tasks whose models lie under another name
UNITS = dict.fromkeys(("acc@1", "acc@5", "miou", "pixel_acc", "box_map", "box_map@50", "mask_map", "kp_map"), "%")
"""Of published metrics, which bear torchvision's names."""
STREAMS = ("params", "dropout", "sampling")  # of random numbers; sampling chooses what a loss is computed of


@dataclasses.dataclass(frozen=True)
class Published:
    """Published weights of a model.

    `metrics` are those that the reference reports of the images `data`, the one that people compare first, in the units
    that `UNITS` gives; `arguments` are those of the builder with which the weights were trained.
    """

    preprocess: Preparation
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data: str = "ImageNet-1K"

    def described(self) -> str:
        """The metrics in words: "acc@1 69.758 %, acc@5 89.078 % on ImageNet-1K"."""
        metrics = ", ".join(f"{name} {value} {UNITS.get(name, '')}".strip() for name, value in self.metrics.items())
        return f"{metrics} on {self.data}" if metrics else ""


def imagenet(
    acc1: float,
    acc5: float,
    crop: int = 224,
    resize: int = 256,
    interpolation: str = "bilinear",
    **arguments,
) -> Published:
    """Published weights with their accuracy on ImageNet-1K's validation images, in percent; see `Preprocess`."""
    return Published(Preprocess(crop, resize, interpolation), {"acc@1": acc1, "acc@5": acc5}, arguments)


def one_image(batch: int, size: int, in_channels: int = 3) -> jax.ShapeDtypeStruct:
    """The input of most networks: images (batch, size, size, in_channels) of float32."""
    return jax.ShapeDtypeStruct((batch, size, size, in_channels), jnp.float32)


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """The facts about a model that can be told without building it; `register_model` explains the fields."""

    name: str
    task: str
    builder: Callable[..., nnx.Module]
    twin: str
    paper: str
    input_size: int
    weights: Mapping[str, Published]
    parts: Mapping[str, Mapping[str, str]]
    head: Sequence[str] | None
    auxiliary: Sequence[str]
    timm: str | None
    tables: Sequence[str]
    inputs: Callable[..., Any]
    cam_layer: str | None
    preparation: Preparation | None

    @property
    def preprocess(self) -> Preparation:
        usual = self.preparation or Preprocess(self.input_size)
        return next((w.preprocess for w in self.weights.values()), usual)

    def example_inputs(self, batch: int = 1, size: int | None = None, **arguments) -> Any:
        """The network's input as shapes and dtypes, a pytree; of most models one image array.

        Args:
          batch: number of examples.
          size: height and width in pixels; the native ones unless given.
          **arguments: further ones of the card's `inputs`, such as `in_channels`.
        """
        return self.inputs(batch, self.input_size if size is None else size, **arguments)


_cards: dict[str, ModelCard] = {}


def register_model(
    *,
    paper: str,
    task: str = "classification",
    twin: str | None = None,
    input_size: int = 224,
    weights: Mapping[str, Published] | None = None,
    parts: Mapping[str, Mapping[str, str]] | None = None,
    head: Sequence[str] | None = None,
    auxiliary: Sequence[str] = (),
    timm: str | None = None,
    tables: Sequence[str] = (),
    inputs: Callable[..., Any] = one_image,
    cam_layer: str | None = None,
    preparation: Preparation | None = None,
) -> Callable[[Callable], Callable]:
    """Decorator that enters a builder `name(*, rngs, **arguments) -> Network` under its own name.

    `create_model` passes on the arguments that the builder names. If it takes `**arguments` too and its annotation
    names the class that it returns, also those arguments of the class that have defaults; the builder gives the others.

    Args:
      paper: author, title and address of the paper.
      task: the meaning of the outputs: one of `TASKS`, or the dotted path of a module of yours with the members that
        `train.tasks` and `jaxzoo.commands.tasks` list.
      twin: the PyTorch reference, `package:builder`; torchvision's builder of the same name unless given.
      input_size: height and width of the native input, in pixels.
      weights: published weights by name, the reference's default first.
      parts: other models whose weights a part of this one can start from: by their names, and for each how the keys of
        its state_dict begin there and here, as `{"resnet50": {"": "backbone."}}`.
      head: dotted paths of the modules whose sizes depend on the number of classes, the main one first, those of
        auxiliary heads too. A path stands for all that is inside. Found by building the model twice unless given.
      auxiliary: modules that only training runs, and that the argument `aux_logits` or `aux_loss` asks for.
      timm: timm's model that computes the same under other names.
      tables: the names that weights of other projects bear, as tables of `convert.dialects`: `("timm.SWIN",)`.
      inputs: `inputs(batch, size)` gives the network's input as a pytree of `jax.ShapeDtypeStruct`.
      cam_layer: the layer for class activation maps, where `jaxzoo.inspect.cam_layer` does not find a good one.
      preparation: of its inputs, where no published weights say it: ImageNet's, unless given.

    Raises:
      UsageError: the name is taken, or the task unknown.
    """
    _check_task(task)

    def register(builder: Callable) -> Callable:
        name = builder.__name__
        if not builder.__module__.startswith("jaxzoo."):
            _import_families()  # so that a name of the zoo is known to be taken
        if name in _cards:
            raise UsageError(f"a model named {name!r} is registered already; rename the function that builds yours")
        _cards[name] = ModelCard(
            name=name,
            task=task,
            builder=builder,
            twin=twin or f"torchvision:{name}",
            paper=paper,
            input_size=input_size,
            weights=weights or {},
            parts=parts or {},
            head=head,
            auxiliary=auxiliary,
            timm=timm,
            tables=tables,
            inputs=inputs,
            cam_layer=cam_layer,
            preparation=preparation,
        )
        return builder

    return register


def _check_task(task: str) -> None:
    if task not in TASKS and "." not in task:
        raise UsageError(
            f"unknown task {task!r}{nearest(task, TASKS)}; the tasks are {', '.join(TASKS)}, "
            "and yours go by the dotted path of their module"
        )


@functools.cache
def _import_families() -> None:
    for task in TASKS:
        package = importlib.import_module(f"jaxzoo.{FOLDERS.get(task, task)}")
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{module.name}")


def card(name: str) -> ModelCard:
    """The card of a registered model. Raises `UsageError` with the nearest names when there is none."""
    _import_families()
    if name not in _cards:
        known = nearest(name, _cards)
        raise UsageError(f"unknown model {name!r}{known}; jaxzoo.list_models() names all of them")
    return _cards[name]


def list_models(pattern: str = "*", *, task: str | None = None) -> list[str]:
    """Sorted names of the registered models that match a shell-style pattern, of one task or of all.

    >>> list_models("resnet*")
    ['resnet101', 'resnet152', 'resnet18', 'resnet34', 'resnet50']
    """
    _import_families()
    if task is not None:
        _check_task(task)
    return sorted(n for n, c in _cards.items() if fnmatch.fnmatch(n, pattern) and task in (None, c.task))


def create_model(name: str, *, seed: int = 0, rngs: nnx.Rngs | None = None, **arguments) -> nnx.Module:
    """Builds a registered model, initialised as its reference initialises it, in eval mode.

    `train()` switches it to train mode, in which the classes' own constructors start, as torch's do.

    >>> model = create_model("resnet18", num_classes=10)
    >>> logits = model(images)  # (N, H, W, 3) normalised -> (N, 10)
    >>> features = create_model("resnet18", num_classes=0, in_channels=1)(gray)  # (N, H, W, 1) -> (N, 512)

    Args:
      name: a name from `list_models()`.
      seed: seeds parameters and dropout unless `rngs` is given.
      rngs: random streams `params`, `dropout` and `sampling`.
      **arguments: those of the builder: `num_classes`, of which 0 leaves out the classifier and returns its input,
        `in_channels` of the images (also as `in_chans`, its name in timm), rates of dropout and so on.

    Raises:
      UsageError: unknown name, unknown argument or impossible number of classes or channels.
    """
    c = card(name)
    if "in_chans" in arguments:
        arguments = {"in_channels": arguments["in_chans"]} | {k: v for k, v in arguments.items() if k != "in_chans"}
    if arguments.get("num_classes") == 0 and c.task != "classification":
        raise UsageError(
            f"{name} is for {c.task}: num_classes=0 is for classification, jaxzoo.feature_extractor gives its maps"
        )
    _check_whole("num_classes", arguments, least=0)
    _check_whole("in_channels", arguments, least=1)
    known = argument_names(name)
    for argument in arguments:
        if argument not in known:
            raise UsageError(f"{name} takes no argument {argument!r}; it takes: {', '.join(known)}")
    model = c.builder(rngs=rngs or _streams(seed), **arguments)
    model.eval()
    return model


def _check_whole(argument: str, arguments: Mapping[str, Any], least: int) -> None:
    value = arguments.get(argument, least)
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise UsageError(f"{argument} is {value!r}; it must be a whole number ≥ {least}")


def _streams(seed: int) -> nnx.Rngs:
    rngs = nnx.Rngs()
    for tag in STREAMS:
        setattr(rngs, tag, Stream(jax.random.key(seed), tag=tag))
    return rngs


def argument_names(name: str) -> list[str]:
    """The arguments of `create_model` for a model, beside its name, `seed` and `rngs`; see `register_model`.

    Raises:
      UsageError: unknown name.
    """
    return sorted(argument_defaults(name))


def argument_defaults(name: str) -> dict[str, Any]:
    """What each argument of `argument_names` is unless given, `inspect.Parameter.empty` where it must be."""
    builder = card(name).builder
    parameters = inspect.signature(builder).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.kind is not p.VAR_KEYWORD}
    if len(defaults) < len(parameters) and (network := _returned(builder)):
        for base in network.__mro__:
            inherited = inspect.signature(base.__init__).parameters.values()
            defaults = {p.name: p.default for p in inherited if p.default is not p.empty} | defaults
            if all(p.kind is not p.VAR_KEYWORD for p in inherited):
                break  # others pass on what they do not know
    return {argument: default for argument, default in defaults.items() if argument != "rngs"}


def _returned(builder: Callable) -> type | None:
    """The class in a function's return annotation, which may be a string; None where there is none."""
    try:
        returned = typing.get_type_hints(builder, localns=dict(inspect.getclosurevars(builder).nonlocals)).get("return")
    except (NameError, TypeError):  # imported for type checkers only; no function but a class
        return None
    return returned if inspect.isclass(returned) else None
