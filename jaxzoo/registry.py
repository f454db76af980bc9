"""The list of models: every family file registers its builders here, and everything else walks this list."""

import dataclasses
import fnmatch
import functools
import importlib
import inspect
import numbers
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

from jaxzoo import figures
from jaxzoo.errors import UsageError, nearest
from jaxzoo.nn.dropout import Stream
from jaxzoo.preprocess import Preprocess

TASKS = ("classification", "segmentation")


@dataclasses.dataclass(frozen=True)
class Published:
    """What is known of published weights.

    `metrics` are those that the reference reports ("acc@1" in percent, for example), `arguments` what the builder is
    given so that the weights compute what they were trained for.
    """

    preprocess: Preprocess
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)


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


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """What is known of a model without building it.

    `twin` names the PyTorch reference as `package:builder`. `weights` are the published ones by name, the reference's
    `DEFAULT` first. `parts` says which other models a part of this one is: by their names, and for each how the keys of
    its state_dict begin there and here, as `{"resnet50": {"": "backbone."}}`.
    """

    name: str
    task: str
    builder: Callable[..., nnx.Module]
    twin: str
    paper: str
    input_size: int
    weights: Mapping[str, Published]
    parts: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)

    @property
    def preprocess(self) -> Preprocess:
        return next((w.preprocess for w in self.weights.values()), Preprocess(self.input_size))


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """A model's card, and with the default arguments its parameters and its multiply-adds per image of `input_size`."""

    name: str
    task: str
    parameters: int
    multiply_adds: int
    input_size: int
    preprocess: Preprocess
    weights: Mapping[str, Published]
    twin: str
    paper: str


_cards: dict[str, ModelCard] = {}


def register_model(
    *,
    paper: str,
    task: str = "classification",
    twin: str | None = None,
    input_size: int = 224,
    weights: Mapping[str, Published] | None = None,
    parts: Mapping[str, Mapping[str, str]] | None = None,
) -> Callable[[Callable], Callable]:
    """Decorator that enters a builder `name(*, rngs, **arguments) -> nnx.Module` under its own name.

    Args:
      paper: author, title and address of the paper.
      task: what the outputs mean; decides loss, metrics and the parity suite's treatment.
      twin: the PyTorch reference, `package:builder`; torchvision's builder of the same name unless given.
      input_size: height and width of the native input, in pixels.
      weights: published weights by name, the default first.
      parts: other models whose weights a part of this one can start from, see `ModelCard`.

    Raises:
      ValueError: the name is taken.
    """

    def register(builder: Callable) -> Callable:
        name = builder.__name__
        if name in _cards:
            raise ValueError(f"a model named {name!r} is registered already")
        twin_of_same_name = f"torchvision:{name}"
        _cards[name] = ModelCard(
            name, task, builder, twin or twin_of_same_name, paper, input_size, weights or {}, parts or {}
        )
        return builder

    return register


@functools.cache
def _import_families() -> None:
    for task in TASKS:
        package = importlib.import_module(f"jaxzoo.{task}")
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"jaxzoo.{task}.{module.name}")


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
    if task is not None and task not in TASKS:
        raise UsageError(f"unknown task {task!r}; the tasks are: {', '.join(TASKS)}")
    return sorted(n for n, c in _cards.items() if fnmatch.fnmatch(n, pattern) and task in (None, c.task))


def create_model(name: str, *, seed: int = 0, rngs: nnx.Rngs | None = None, **arguments) -> nnx.Module:
    """Builds a registered model, initialised as its reference initialises it, in eval mode.

    >>> model = create_model("resnet18", num_classes=10)
    >>> logits = model(images)  # (N, H, W, 3) normalised -> (N, 10)

    Args:
      name: a name from `list_models()`.
      seed: seeds parameters and dropout unless `rngs` is given.
      rngs: random streams `params` and `dropout`.
      **arguments: what the builder takes: `num_classes`, rates of dropout and stochastic depth, and so on.

    Raises:
      UsageError: unknown name, unknown argument or impossible number of classes.
    """
    builder = card(name).builder
    classes = arguments.get("num_classes", 1)
    if isinstance(classes, bool) or not isinstance(classes, numbers.Integral) or classes < 1:
        raise UsageError(f"num_classes is {classes!r}; it must be a positive whole number")
    known = argument_names(name)
    for argument in arguments:
        if argument not in known:
            raise UsageError(f"{name} takes no argument {argument!r}; it takes: {', '.join(known)}")
    model = builder(rngs=rngs or _streams(seed), **arguments)
    model.eval()
    return model


def _streams(seed: int) -> nnx.Rngs:
    rngs = nnx.Rngs()
    rngs.params, rngs.dropout = (Stream(jax.random.key(seed), tag=tag) for tag in ("params", "dropout"))
    return rngs


def argument_names(name: str) -> list[str]:
    """What a model's builder takes beside `rngs`, and its network where the builder passes `**arguments` on.

    Raises:
      UsageError: unknown name.
    """
    signature = inspect.signature(card(name).builder)
    names = [p.name for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    if len(names) < len(signature.parameters) and inspect.isclass(signature.return_annotation):
        names += list(inspect.signature(signature.return_annotation.__init__).parameters)
    return sorted(set(names) - {"self", "rngs"})


def model_info(name: str) -> ModelInfo:
    """Task, size, cost, input size, preprocessing, published weights, reference twin and paper.

    Parameters and multiply-adds are looked up for the zoo's own models, and counted for those that you registered.
    """
    c = card(name)
    size = figures.stored().get(name)
    if size is None:
        abstract = nnx.eval_shape(lambda: create_model(name))
        size = figures.measure(abstract, (1, c.input_size, c.input_size, 3))
    return ModelInfo(
        name, c.task, size.parameters, size.multiply_adds, c.input_size, c.preprocess, c.weights, c.twin, c.paper
    )
