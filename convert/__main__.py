"""`python -m convert`."""

import atexit
import gc
import sys
import warnings
from collections.abc import Sequence

import tyro

from convert.diff import diff
from convert.inspect import inspect
from convert.to_flax import to_flax
from convert.to_torch import to_torch
from jaxzoo.errors import exit_on_usage_error


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one command. Exits with 0, with 2 after bad input, and `diff` with 1 when the two sides differ."""
    commands = {"to-flax": to_flax, "to-torch": to_torch, "diff": diff, "inspect": inspect}
    with warnings.catch_warnings(), exit_on_usage_error():
        warnings.showwarning = lambda message, *rest: print(f"warning: {message}", file=sys.stderr)
        code = tyro.extras.subcommand_cli_from_dict(
            commands, prog="python -m convert", description="PyTorch ↔ Flax: the same weights on both sides.", args=argv
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
