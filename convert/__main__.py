"""`python -m convert`."""

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path and sys.path[0] != os.path.dirname(os.path.dirname(__file__)):
    # Python looks for modules in the working directory first, and would take a jaxzoo.py there for ours.
    del sys.path[0]

import atexit
import gc
from collections.abc import Sequence
from inspect import signature

import tyro

from convert.diff import diff
from convert.identify import identify
from convert.to_flax import to_flax
from convert.to_torch import to_torch
from jaxzoo.command_help import explained
from jaxzoo.errors import exit_on_usage_error
from jaxzoo.home import expanded

COMMANDS = {"to-flax": to_flax, "to-torch": to_torch, "diff": diff, "inspect": identify}


def main(argv: Sequence[str] | None = None, prog: str = "python -m convert") -> None:
    """Runs one command. Exits with 0, with 2 after bad input, and `diff` with 1 when the two sides differ."""
    chosen = next((word for word in (sys.argv[1:] if argv is None else argv) if word in COMMANDS), None)
    with exit_on_usage_error(signature(COMMANDS[chosen]).parameters if chosen else ()):
        code = tyro.extras.subcommand_cli_from_dict(
            {name: explained(command) for name, command in COMMANDS.items()},
            prog=prog,
            description="PyTorch ↔ Flax: the same weights on both sides.",
            args=expanded(sys.argv[1:] if argv is None else argv),
        )
    if code:
        sys.exit(code)


def _leave_quickly() -> None:
    """Skips the search for garbage on exit, a fifth of a command's time; triton's bindings complain without it."""
    if "triton" not in sys.modules:
        gc.freeze()


if __name__ == "__main__":
    atexit.register(_leave_quickly)
    main()
