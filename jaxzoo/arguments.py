"""What people type, before it is parsed."""

import os
import re
from collections.abc import Iterable

_WITH_HOME = re.compile(r"((?:--[\w-]+=)?(?:[a-z]+:)?)(~.*)", re.DOTALL)


def home_expanded(arguments: Iterable[str]) -> list[str]:
    """Arguments with `~` as the home folder where a shell leaves it alone: `--out=~/run`, `'~/run'`, `folder:~/photos`.

    `~` stays where nobody knows what it stands for.
    """
    found = ((argument, _WITH_HOME.fullmatch(argument)) for argument in arguments)
    return [match[1] + os.path.expanduser(match[2]) if match else argument for argument, match in found]
