"""`jaxzoo`, which is `python -m jaxzoo` too."""

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path and sys.path[0] != os.path.dirname(os.path.dirname(__file__)):
    # Python looks for modules in the working directory first, and would take a convert.py there for ours.
    del sys.path[0]

from collections.abc import Sequence
from inspect import signature

from jaxzoo.commands import COMMANDS, PARTS, SUMMARIES, command
from jaxzoo.errors import exit_on_usage_error
from jaxzoo.home import expanded
from jaxzoo.malloc import keep_freed_memory

DESCRIPTION = "PyTorch's vision models for JAX. `jaxzoo --install-completion` teaches your shell to complete all this."


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one command. Exits with 0, with 2 after bad input, and `predict` with 1 when it left images out."""
    # XLA writes an alarming paragraph to stderr whenever it loads a program for the CPU from the cache.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    name, *rest = expanded(sys.argv[1:] if argv is None else argv) or ["--help"]
    if name == "train":
        from train.__main__ import main as train

        return train(rest, prog="jaxzoo train")
    if name == "convert":
        from convert.__main__ import main as convert

        return convert(rest, prog="jaxzoo convert")
    options = ()
    if name in PARTS and rest and rest[0] in PARTS[name]:
        name, *rest = f"{name}.{rest[0]}", *rest[1:]
    if name in COMMANDS:
        keep_freed_memory()
        options = signature(command(name)).parameters
    with exit_on_usage_error(options):
        try:
            code = _run(name, rest)
        except KeyboardInterrupt:
            code = 130
    if code:
        sys.exit(code)


def _run(name: str, rest: Sequence[str]) -> int | None:
    import tyro

    from jaxzoo.command_help import explained
    from jaxzoo.commands import completion

    if name == "--install-completion":
        return completion.install(*rest[:1])
    if name.startswith("--tyro-"):
        return completion.write(name, *rest)
    if name in COMMANDS:
        return tyro.cli(explained(command(name)), prog=f"jaxzoo {name.replace('.', ' ')}", args=rest)
    # --help, or a mistake
    if name in PARTS:
        nothing = completion.commands(PARTS[name], lambda part: lambda: None)
        return nothing.cli(prog=f"jaxzoo {name}", description=SUMMARIES[name], args=rest or ["--help"])
    nothing = completion.commands(SUMMARIES, lambda name: lambda: None)
    return nothing.cli(prog="jaxzoo", description=DESCRIPTION, args=[name, *rest])


if __name__ == "__main__":
    main()
