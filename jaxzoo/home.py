"""The home folder of whoever runs a command, which may be missing or read-only, as in a container."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from jaxzoo.errors import UsageError

_TILDE = re.compile(r"((?:--[\w-]+=)?(?:\w+:)?)(~.*)", re.DOTALL)


def expanded(arguments: Sequence[str]) -> list[str]:
    """A command line in which `~` means the home folder, also where shells leave it alone.

    >>> expanded(["--out=~/run", "--data", "folder:~/photos", "~anna/a.png"])
    ['--out=/home/me/run', '--data', 'folder:/home/me/photos', '/home/anna/a.png']
    """
    matches = [(_TILDE.fullmatch(argument), argument) for argument in arguments]
    return [match[1] + os.path.expanduser(match[2]) if match else argument for match, argument in matches]


def check_home(folder: Path | str, variable: str) -> None:
    """Raises UsageError if `folder`, a library's for downloads, wants a home folder where there is none: the library
    would make one that is called ~. An environment `variable` names another."""
    if str(folder).startswith("~"):
        raise UsageError(f"there is no home folder to keep downloads in; set {variable} to a folder for them")


def cache_folder(name: str) -> Path | None:
    """~/.cache/jaxzoo/NAME, or below XDG_CACHE_HOME, made if need be; None where there is no home or no writing."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "jaxzoo", name)
        folder.mkdir(parents=True, exist_ok=True)
    except (RuntimeError, OSError):
        return None
    return folder if os.access(folder, os.W_OK) else None
