"""Recipes: options under a name. recipes.yaml holds how torchvision trained its models, and one for fine-tuning."""

import dataclasses
import functools
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from jaxzoo.errors import UsageError, nearest
from train.config.options import Config

if TYPE_CHECKING:
    from rich.table import Table


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One entry of recipes.yaml.

    `models` are those trained this way, by the name of the weights that came of it. `but` has what differs for single
    models; `differs` says in words what the source does and the options do not.
    """

    options: Mapping[str, Any]
    sources: tuple[str, ...]
    models: Mapping[str, tuple[str, ...]]
    but: Mapping[str, Mapping[str, Any]]
    differs: str = ""


@functools.cache
def recipes() -> dict[str, Recipe]:
    """All recipes by name."""
    return {
        name: Recipe(
            _tuples(entry["options"]),
            tuple(entry["sources"]),
            _tuples(entry["models"]),
            {model: _tuples(values) for model, values in entry.get("but", {}).items()},
            entry.get("differs", ""),
        )
        for name, entry in _file()["recipes"].items()
    }


def published(model: str) -> str:
    """The name of the recipe that a model's newest published weights come from.

    Raises:
      UsageError: none is published; says why, and what there is.
    """
    found = [
        (weights, name)
        for name, recipe in recipes().items()
        for weights, models in recipe.models.items()
        if model in models
    ]
    if found:
        return max(found)[1]
    reasons = [reason for reason, models in _file()["without"].items() if model in models]
    reason = reasons[0] if reasons else "only torchvision's models have one"
    raise UsageError(f"there is no published recipe for {model}: {reason}; take one of: {', '.join(recipes())}")


def options(recipe: str | None, model: str) -> dict[str, Any]:
    """What a recipe gives to options of `Config` for a model.

    Args:
      recipe: a name from `recipes`, which may be of another model; "published"; or None, which gives nothing.
      model: a model's name.

    Raises:
      UsageError: there is no such recipe, or none is published for this model.
    """
    if recipe is None:
        return {}
    name = published(model) if recipe == "published" else recipe
    if name not in recipes():
        known = ", ".join(["published", *recipes()])
        raise UsageError(f"there is no recipe {name!r}{nearest(name, recipes())}; the recipes are: {known}")
    return {**recipes()[name].options, **recipes()[name].but.get(model, {})}


def adapted(config: Config, given: Collection[str]) -> Config:
    """`config` for its own batch size and number of epochs, where these are not its recipe's.

    The learning rate, and the one that the schedule ends at, grow with the images per update (linearly, as
    torchvision's references say). An average of weights keeps the part of the run that it looks back on. Options in
    `given`, which the user gave, stay as they are.
    """
    own = options(config.recipe, config.model)
    if not own:
        return config
    larger = config.batch_size * config.accumulate / own["batch_size"]
    longer = (config.epochs or own["epochs"]) / own["epochs"]
    values = {
        "lr": own["lr"] * larger,
        "lr_min": own["lr_min"] * larger,
        "ema": max(0.0, 1 - (1 - own["ema"]) * larger / longer) if own["ema"] else 0.0,  # per update
    }
    changed = (larger, longer) != (1, 1)
    return dataclasses.replace(
        config, **{name: value for name, value in values.items() if changed and name not in given}
    )


def summary(config: Config) -> str:
    """Which recipe a run follows and how its learning rate came about, for the run's first lines; "" without one."""
    own = options(config.recipe, config.model)
    if not own:
        return ""
    name = published(config.model) if config.recipe == "published" else config.recipe
    images = config.batch_size * config.accumulate
    line = f"recipe {name}: lr {own['lr']:g} for {own['batch_size']} images per update"
    if (images, config.lr) != (own["batch_size"], own["lr"]):
        line += f", here {config.lr:g} for {images}"
    differs = recipes()[name].differs
    return f"{line}; {own['epochs']} epochs" + (f"; unlike here: {differs}" if differs else "")


def listing() -> "Table":
    """All recipes as a rich table: `rich.print(listing())`."""
    from rich import box
    from rich.table import Column, Table

    numbers = [Column(title, no_wrap=True) for title in ("optimizer", "lr", "batch", "epochs", "schedule")]
    table = Table(
        Column("recipe", no_wrap=True),
        *numbers,
        "published for",
        box=box.SIMPLE_HEAD,
        caption="sources: train/config/recipes.yaml",
    )
    for name, recipe in recipes().items():
        own = recipe.options
        models = ", ".join(model for models in recipe.models.values() for model in models)
        row = (own["optimizer"], f"{own['lr']:g}", str(own["batch_size"]), str(own["epochs"]), own["schedule"])
        table.add_row(name, *row, models or "any")
    return table


@functools.cache
def _file() -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_name("recipes.yaml").read_text())


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
