"""Errors that people cause and can mend.

`UsageError` is for what may come from a person who runs a command or a function of the zoo: names, files, options,
images, numbers of classes. Layers and functions that get an argument which no program should give them raise torch's
`ValueError`; a `UsageError` is one too.
"""

import contextlib
import dataclasses
import difflib
import io
import sys
import warnings
from collections.abc import Collection, Iterable, Iterator
from typing import Any


@dataclasses.dataclass(frozen=True)
class Remedy:
    """An argument of the function that failed, the value that mends it, and what that does."""

    argument: str
    value: Any
    effect: str


class UsageError(ValueError):
    """Bad input from a person. The message is one clear sentence that names the thing and the way out.

    A way out that is an argument is given beside it: Python's words for it are not those of a command line, and not
    every command has it.
    """

    def __init__(self, message: str, *remedies: Remedy):
        super().__init__(message)
        self.remedies = remedies

    def __str__(self) -> str:
        return self._with(f"{way.argument}={way.value!r} {way.effect}" for way in self.remedies)

    def on_command_line(self, options: Collection[str]) -> str:
        """The message for a command whose options have these names, spelt as in Python."""
        ways = [way for way in self.remedies if way.argument in options]
        flags = [(f"--{way.argument.replace('_', '-')}", "" if way.value is True else f" {way.value}") for way in ways]
        return self._with(f"{flag}{value} {way.effect}" for way, (flag, value) in zip(ways, flags, strict=True))

    def _with(self, ways: Iterable[str]) -> str:
        message = self.args[0]
        return ("\n" if "\n" in message else "; ").join([message, *ways])


def nearest(name: str, names: Iterable[str]) -> str:
    """`"; nearest: resnet50, resnet152"` for a message about an unknown name, or an empty string."""
    matches = difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)
    return f"; nearest: {', '.join(matches)}" if matches else ""


@contextlib.contextmanager
def exit_on_usage_error(options: Collection[str] = ()) -> Iterator[None]:
    """For command lines: a `UsageError` becomes one line on stderr and exit code 2, without a traceback.

    So does a device that has too little memory. Of what would help, only these `options` are named. Warnings are
    a line each, too. What cannot be printed, as names of files that are no text, is escaped.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *rest: print(f"warning: {message}", file=sys.stderr)
            yield
    except UsageError as error:
        print(f"error: {error.on_command_line(options)}", file=sys.stderr)
    except RuntimeError as error:  # JAX's is one of these
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print("error: the device has too little memory; smaller batches or smaller images help", file=sys.stderr)
    else:
        return
    raise SystemExit(2)
