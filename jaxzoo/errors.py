"""Errors that people cause and can mend."""

import contextlib
import difflib
import io
import sys
from collections.abc import Iterable, Iterator


class UsageError(ValueError):
    """Bad input from a person. The message is one clear sentence that names the thing and the way out."""


def nearest(name: str, names: Iterable[str]) -> str:
    """`"; nearest: resnet50, resnet152"` for a message about an unknown name, or an empty string."""
    matches = difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)
    return f"; nearest: {', '.join(matches)}" if matches else ""


@contextlib.contextmanager
def exit_on_usage_error() -> Iterator[None]:
    """For command lines: a `UsageError` becomes one line on stderr and exit code 2, without a traceback.

    So does a device that has too little memory. What cannot be printed, as names of files that are no text, is escaped.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
    except RuntimeError as error:  # JAX's is one of these
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print("error: the device has too little memory; smaller batches or smaller images help", file=sys.stderr)
    else:
        return
    raise SystemExit(2)
