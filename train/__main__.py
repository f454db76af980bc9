"""`python -m train`, `python -m train data DATA` and `python -m train recipes`."""

import os
import sys


def main() -> None:
    """Trains as the command line says. Exits with 0, with 2 after bad input, or with 128 + signal when interrupted."""
    # XLA writes an alarming paragraph to stderr whenever it loads a program for the CPU from the cache.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from jaxzoo.cache import keep_compiled_programs
    from jaxzoo.errors import UsageError, exit_on_usage_error
    from jaxzoo.memory import keep_freed_memory
    from train.command_line import parse

    keep_freed_memory()
    command, *rest = sys.argv[1:] or [""]
    with exit_on_usage_error():
        if command == "recipes":
            import rich

            from train.recipes import listing

            rich.print(listing())
            return
        if command == "data":
            if not rest or rest[0].startswith("-"):
                raise UsageError("name the data: python -m train data folder:PATH, with any options of training")
            config = parse(["--data", *rest])
            from train.setup import show_data

            show_data(config)
            return
        config = parse()
        from train.loop import run

        keep_compiled_programs()
        try:
            sys.exit(run(config))
        except KeyboardInterrupt:  # before there was anything to save, or the second one
            sys.exit(130)


if __name__ == "__main__":
    main()
