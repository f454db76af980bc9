"""From what people type to the configuration of a run."""

import dataclasses
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxzoo.command_help import explained
from jaxzoo.errors import UsageError
from jaxzoo.home import expanded
from train.config import recipes
from train.config.check import check
from train.config.needs import check_options
from train.config.options import RESUMABLE, SECTIONS, UNCHANGED, Config, option
from train.config.provenance import read


def parse(arguments: Sequence[str] | None = None, prog: str = "python -m train", about: str = Config.__doc__) -> Config:
    """The configuration from a command line; with --resume, the run's own with the allowed changes.

    `prog` and `about` are what --help calls the command and says of it.

    Raises:
      UsageError: an option has an impossible value, or may not be changed when a run is continued.
    """
    arguments = expanded(sys.argv[1:] if arguments is None else arguments)
    asks = {"-h", "--help"} & set(arguments)
    given = {name: None if asks else _value_of(f"--{name}", arguments) for name in ("resume", "recipe", "model")}
    run = given["resume"]
    if run:
        stored = dataclasses.replace(read(Path(run)), resume=run)
    elif given["recipe"]:
        stored = Config(recipe=given["recipe"], **recipes.options(given["recipe"], given["model"] or Config.model))
    else:
        stored = Config()
    config = _parsed(arguments, stored, prog, about)
    named = {text.lstrip("-").split("=")[0].replace("-", "_") for text in arguments if text.startswith("--")}
    if config.recipe and not run:
        config = recipes.adapted(config, named)
        if config.cache_features:  # without the recipe's augmentation
            config = dataclasses.replace(config, **{name: UNCHANGED[name] for name in UNCHANGED.keys() - named})
    for field in dataclasses.fields(Config) if run else ():
        old, new = getattr(stored, field.name), getattr(config, field.name)
        if old != new and field.name not in RESUMABLE:
            raise UsageError(
                f"{run} was started with {option(field.name)} {_shown(old)}, and a run cannot change it to "
                f"{_shown(new)}; a new run can start from its weights: --weights {run}"
            )
    check(config)
    if not run:
        check_options(config, named)
    return config


# Not nested dataclasses in `Config` itself, since scripts write Config(model=..., lr=...). Nor tyro's subcommands for
# `data` and `recipes`, since options of training need none before them.
def sectioned(default: Config) -> type:
    """The options for tyro, each section under a title of its own in --help."""
    sections = [(kind.__name__.lower(), explained(kind, default)) for kind in SECTIONS]
    fields = [(name, kind, dataclasses.field(default=kind())) for name, kind in sections]
    return dataclasses.make_dataclass("Sectioned", fields, frozen=True)


def _parsed(arguments: Sequence[str], default: Config, prog: str, about: str) -> Config:
    import tyro

    parsed = tyro.cli(
        sectioned(default),
        args=arguments,
        prog=prog,
        description=inspect.cleandoc(about),
        config=(tyro.conf.OmitArgPrefixes,),
    )
    return Config(**{name: value for section in vars(parsed).values() for name, value in vars(section).items()})


def _value_of(option: str, arguments: Sequence[str]) -> str | None:
    for index, argument in enumerate(arguments):
        if argument == option and index + 1 < len(arguments):
            return arguments[index + 1]
        if argument.startswith(option + "="):
            return argument[len(option) + 1 :]
    return None


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
