"""`python -m jaxzoo`."""

import os
import sys
from collections.abc import Sequence

import tyro

from jaxzoo.errors import exit_on_usage_error
from jaxzoo.memory import keep_freed_memory


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one command. Exits with 0, with 2 after bad input, and `predict` with 1 when it left images out."""
    # XLA writes an alarming paragraph to stderr whenever it loads a program for the CPU from the cache.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from jaxzoo.commands.bench import bench
    from jaxzoo.commands.info import info
    from jaxzoo.commands.inspect import inspect
    from jaxzoo.commands.list import list
    from jaxzoo.commands.predict import predict

    keep_freed_memory()
    commands = {"list": list, "info": info, "predict": predict, "bench": bench, "inspect": inspect}
    with exit_on_usage_error():
        try:
            code = tyro.extras.subcommand_cli_from_dict(
                commands, prog="python -m jaxzoo", description="PyTorch's vision models for JAX.", args=argv
            )
        except KeyboardInterrupt:
            code = 130
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
