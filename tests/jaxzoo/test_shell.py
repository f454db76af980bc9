"""The command `jaxzoo`: one roof over all commands, and completion of them."""

import re
import subprocess
import sys

import pytest

from convert.__main__ import main as convert
from jaxzoo import list_models
from jaxzoo.__main__ import main
from jaxzoo.commands import COMMANDS, SUMMARIES, command, tasks
from jaxzoo.commands.tasks import Handler
from jaxzoo.registry import TASKS
from train.__main__ import main as train


def test_help_names_every_command_and_waits_for_no_package():
    code = "import sys; from jaxzoo.__main__ import main\ntry: main([])\nfinally: print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(f"• {name} " in said for name in SUMMARIES)
    assert not {"jax", "flax", "numpy", "train", "convert"} & set(said.splitlines()[-1].split())  # 0.25 s in all


def test_every_command_is_there():
    for name in COMMANDS - {"train", "convert"}:
        assert command(name).__name__ == name.rpartition(".")[2].replace("-", "_")


@pytest.mark.parametrize(("name", "program"), [("train", train), ("convert", convert)])
def test_train_and_convert_are_the_same_under_this_roof(name, program, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit):
        program(["--help"])
    alone = capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([name, "--help"])
    assert capsys.readouterr().out == alone.replace(f"python -m {name}", f"jaxzoo {name}", 1)


def test_train_gets_its_options_as_they_are(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["train", "--epochs", "0"])
    assert exit.value.code == 2 and "--epochs is 0" in capsys.readouterr().err
    main(["train", "recipes"])
    assert "finetune" in capsys.readouterr().out


def test_an_unknown_command_is_answered_with_all_that_there_are(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["lst"])
    assert exit.value.code == 2 and "predict, list, info" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["inspect"], ["inspect", "--help"], ["inspect", "kam"]])
def test_a_command_of_several_parts_names_them(arguments, capsys):
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == (2 if "kam" in arguments else 0)
    assert "receptive-field" in "".join(capsys.readouterr())


ASK = """
source "$0"
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
"$(complete -p jaxzoo | cut -d' ' -f3)"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """What bash reads."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(folder))
        patch.setenv("SHELL", "/usr/bin/bash")
        main(["--install-completion"])
    return folder / "bash-completion" / "completions" / "jaxzoo"


@pytest.mark.xdist_group("completion")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("", "-h --help bench convert generate info inspect list predict reconstruct train"),
        ("pre", "predict"),
        ("inspect receptive-field lenet5 --la", "--layer"),
        ("train --epochs 3 --lr-", "--lr-gamma --lr-min --lr-power --lr-step --lr-steps"),
        ("train --optimizer a", "adamw"),
        ("convert to-", "to-flax to-torch"),
        ("inspect c", "cam"),
        ("convert to-flax --ma", "--match"),
        ("predict cat.jpg --tem", "--temperature"),
    ],
)
def test_bash_completes_commands_options_and_values(script, typed, offered):
    words = ["jaxzoo", *re.split(" ", typed)]
    said = subprocess.run(["bash", "-c", ASK, script, *words], capture_output=True, text=True, check=True)
    assert sorted(said.stdout.split()) == sorted(offered.split()) and not said.stderr


@pytest.mark.xdist_group("completion")
def test_only_names_of_options_are_completed(script):
    said = subprocess.run(
        ["bash", "-c", ASK, script, "jaxzoo", "train", ""], capture_output=True, text=True, check=True
    )
    assert all(re.fullmatch(r"-h|--[a-z0-9-]+", line) for line in said.stdout.splitlines())


@pytest.mark.parametrize("shell", ["fish", "zsh"])
def test_other_shells_get_theirs(shell, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    main(["--install-completion", shell])
    (file,) = tmp_path.rglob("*jaxzoo*")
    assert str(file) in capsys.readouterr().out and "--cache-features" in file.read_text()


def test_where_completion_cannot_be_installed_it_says_so(monkeypatch, capsys):
    monkeypatch.setenv("XDG_DATA_HOME", "/proc")
    for shell, sentence in (("tcsh", "no completion for the shell 'tcsh'"), ("bash", "XDG_DATA_HOME names another")):
        with pytest.raises(SystemExit) as exit:
            main(["--install-completion", shell])
        assert exit.value.code == 2 and sentence in capsys.readouterr().err


@pytest.mark.parametrize("task", TASKS)
def test_each_task_has_what_the_commands_ask_for(task):
    handler = tasks.of_model(list_models(task=task)[0])
    asked = {*Handler.__annotations__, *(name for name in vars(Handler) if not name.startswith("_"))}
    predicting, inspecting = {"Prediction", "check", "predict"}, {"view", "class_names", "targets"}
    assert asked == predicting | inspecting | {"described", "example_labels"}
    assert asked - set(vars(handler)) in (set(), inspecting)
