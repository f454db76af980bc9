"""What --help says of a command: tyro's text, but each default in words, and no `{None}|` before what can be given."""

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

NAMES = {str: "STR", int: "INT", float: "FLOAT", Path: "PATH", bool: "{True,False}"}


def explained(command: Callable, default: Any = None) -> Callable:
    """A function, or a dataclass with the values of `default`, whose annotations hold what its docstrings say.

    An argument's text may end with "Default: the model's own.", which the help has in place of the value. (tyro alone
    shows both, and breaks lines within sentences.)
    """
    import docstring_parser  # as tyro does

    texts = {part.arg_name: part.description for part in docstring_parser.parse_from_object(command).params}
    hints = typing.get_type_hints(command, include_extras=True)
    hints |= {name: _annotated(hints[name], " ".join(text.split())) for name, text in texts.items()}
    if dataclasses.is_dataclass(command):
        names = [field.name for field in dataclasses.fields(command)]
        fields = [(name, hints[name], dataclasses.field(default=getattr(default, name))) for name in names]
        return dataclasses.make_dataclass(command.__name__, fields, frozen=True)

    @functools.wraps(command)
    def annotated(*args: Any, **kwargs: Any) -> Any:
        return command(*args, **kwargs)

    del annotated.__wrapped__  # which tyro would look at instead
    signature, annotated.__annotations__ = inspect.signature(command), hints
    parameters = [one.replace(annotation=hints[name]) for name, one in signature.parameters.items()]
    annotated.__signature__ = signature.replace(parameters=parameters)
    return annotated


def _annotated(hint: Any, text: str) -> Any:
    import tyro

    text, _, usual = text.partition(" Default: ")
    parts = [part for part in typing.get_args(hint) if part is not types.NoneType]
    optional = typing.get_origin(hint) in (types.UnionType, typing.Union) and len(parts) == 1

    def shown(value: str) -> str:
        return f"(default: {usual.rstrip('.') or ('none' if value in ('None', '') else value)})"

    return Annotated[
        hint,
        tyro.conf.arg(help=text, help_behavior_hint=shown, metavar=_metavar(parts[0]) if optional else None),
    ]


def _metavar(hint: Any) -> str:
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return f"{{{','.join(parts)}}}"
    return " ".join(NAMES[part] for part in parts or [hint])
