"""Completion of `jaxzoo` in shells: tyro writes the script, from every command and option."""

import contextlib
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import tyro
from tyro.extras import SubcommandApp

from jaxzoo.command_help import explained
from jaxzoo.commands import PARTS, SUMMARIES, command
from jaxzoo.errors import UsageError

# Below the folder of a user's data, where bash (its package bash-completion) and fish look by themselves.
PLACES = {
    "bash": "bash-completion/completions/jaxzoo",
    "fish": "fish/vendor_completions.d/jaxzoo.fish",
    "zsh": "zsh/site-functions/_jaxzoo",
}


def commands(summaries: Mapping[str, str], constructor: Callable[[str], Callable | SubcommandApp]) -> SubcommandApp:
    """Commands under one roof, each parsed as its `constructor` asks."""
    app = SubcommandApp()
    for name, summary in summaries.items():
        app.command(constructor(name), name=name, help=summary)
    return app


def write(*arguments: str) -> None:
    """Has tyro do what one of its own options says, such as `--tyro-print-completion bash`, for all there is; exits."""
    commands(SUMMARIES, _in_full).cli(prog="jaxzoo", args=arguments, config=(tyro.conf.OmitArgPrefixes,))


def _in_full(name: str) -> Callable | SubcommandApp:
    if name == "train":
        from train.config.command_line import sectioned
        from train.config.options import Config

        return sectioned(Config())
    if name == "convert":
        from convert.__main__ import COMMANDS

        app = SubcommandApp()
        for part, function in COMMANDS.items():
            app.command(explained(function), name=part)
        return app
    if name in PARTS:
        return commands(PARTS[name], lambda part: explained(command(f"{name}.{part}")))
    return explained(command(name))


def _script(shell: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as script, contextlib.suppress(SystemExit):
        write("--tyro-print-completion", shell)
    # tyro separates candidates by lines, and would take the second line of a description for one.
    lines = script.getvalue().splitlines(keepends=True)
    return "".join(line.replace(r"\n", " ") if line.startswith("COMPLETION_SPEC = ") else line for line in lines)


def install(shell: str | None = None) -> None:
    """Writes the script of `shell`, or else of the one in $SHELL, to where that looks for it, and says so.

    Raises:
      UsageError: an unknown shell, or a place that cannot be written.
    """
    shell = shell or Path(os.environ.get("SHELL", "")).name
    if shell not in PLACES:
        raise UsageError(f"no completion for the shell {shell!r}; name one: --install-completion {'|'.join(PLACES)}")
    try:
        data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
        file = data / PLACES[shell]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_script(shell))
    except (OSError, RuntimeError) as error:  # no home, or none that can be written
        raise UsageError(f"completion cannot be installed: {error}; XDG_DATA_HOME names another folder") from None
    print(f"{file} is written; new shells complete jaxzoo's commands and options")
    if shell == "bash":
        print(f"without the package bash-completion, add to ~/.bashrc:  source {file}")
    if shell == "zsh":
        print(f"add to ~/.zshrc, before compinit:  fpath+=({file.parent})")
