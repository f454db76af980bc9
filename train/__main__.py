"""`python -m train`, `python -m train data DATA` and `python -m train recipes`."""

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path and sys.path[0] != os.path.dirname(os.path.dirname(__file__)):
    # Python looks for modules in the working directory first, and would take a jaxzoo.py there for ours.
    del sys.path[0]

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None, prog: str = "python -m train") -> None:
    """Trains as the command line says. Exits with 0, with 2 after bad input, or with 128 + signal when interrupted."""
    # XLA writes an alarming paragraph to stderr whenever it loads a program for the CPU from the cache.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from jaxzoo.cache import keep_compiled_programs
    from jaxzoo.errors import exit_on_usage_error
    from jaxzoo.malloc import keep_freed_memory
    from train.config.command_line import parse

    keep_freed_memory()
    arguments = list(sys.argv[1:] if argv is None else argv)
    command, *rest = arguments or [""]
    with exit_on_usage_error():
        if command == "recipes":
            _recipes(rest, f"{prog} recipes")
            return
        if command == "data":
            _data(rest, f"{prog} data")
            return
        config = parse(arguments, prog)
        from train.loop import run

        keep_compiled_programs()
        try:
            sys.exit(run(config))
        except KeyboardInterrupt:  # before there was anything to save, or the second one, after saving
            sys.exit(130)


def _recipes(arguments: Sequence[str], prog: str) -> None:
    import rich
    import tyro

    from train.config.recipes import listing

    def recipes() -> None:
        """List the recipes that --recipe takes, and which models were published with them."""
        rich.print(listing())

    tyro.cli(recipes, prog=prog, args=arguments)


def _data(arguments: Sequence[str], prog: str) -> None:
    from jaxzoo.errors import UsageError
    from train.config.command_line import parse
    from train.setup.prepare import show_data

    about = """
    Print how many images each class of DATA has, and draw training images as the model will see them.

    DATA is what --data takes; all options of training may follow, and --out names the picture.
    """
    if {"-h", "--help"} & set(arguments):
        parse(["--help"], f"{prog} DATA", about)
    if not arguments or arguments[0].startswith("-"):
        raise UsageError(f"name the data: {prog} folder:PATH, with any options of training")
    show_data(parse(["--data", *arguments], f"{prog} DATA", about))


if __name__ == "__main__":
    main()
