"""Runs of the trainer with a small model, each in a process of its own that is there at once.

`python -m tests.train.launch` imports everything that training needs and then forks for every run that it is asked for:
one request per line of its input, `{"arguments": [...], "environment": {...}, "output": file, "seconds": 1.5}`, one
answer per line of its output, `{"code": ..., "seconds": ...}`. A run that takes longer than `seconds` gets SIGKILL.

Three models are known there: `tiny`; `blocks`, which takes images of any size; and `pixels`, which segments. The
environment of a run can ask for trouble: see `tests.train.trouble`.
"""

import atexit
import functools
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import jax

ROOT = Path(__file__).parents[2]
# What a run imports, some of it only on its way.
IMPORTED = ("grain", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "orbax.checkpoint", "tyro")
IMPORTED += ("tensorboardX", "train.data.digits", "train.data.folder", "train.loop")


class Launcher:
    """Starts runs, one after the other; `code` and `seconds` are those of the last one."""

    def __init__(self):
        ours = {
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
            "OPENBLAS_NUM_THREADS": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        self.server = subprocess.Popen(
            [sys.executable, "-m", "tests.train.launch"],
            env={**os.environ, **ours},
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.code, self.seconds = 0, 0.0
        atexit.register(self.close)

    def __call__(self, *options: object, after: float | None = None, **environment: object) -> str:
        """Runs `python -m train OPTIONS`, kills it `after` so many seconds, and gives what it printed."""
        with tempfile.NamedTemporaryFile("r") as output:
            request = {
                "arguments": list(map(str, options)),
                "environment": {name: str(value) for name, value in environment.items()},
                "output": output.name,
                "seconds": after,
            }
            self.server.stdin.write(json.dumps(request) + "\n")
            self.server.stdin.flush()
            answer = json.loads(self.server.stdout.readline())
            self.code, self.seconds = answer["code"], answer["seconds"]
            return output.read()

    def close(self) -> None:
        self.server.stdin.close()
        self.server.wait()


launcher = functools.cache(Launcher)


def train(*options: object, code: int = 0, **environment: object) -> str:
    """Runs `python -m train OPTIONS` and gives what it printed. Tracebacks and other exit codes fail."""
    said = launcher()(*options, **environment)
    assert launcher().code == code, f"exit code {launcher().code}: {said}"
    assert "Traceback" not in said, said
    return said


def serve() -> int | None:
    """Forks for every request. Returns in every forked process too, with its run's exit code."""
    for name in IMPORTED:
        importlib.import_module(name)
    import jaxzoo
    from tests.train import blocks, pixels, tiny, trouble
    from train import __main__ as command_line

    for builder in (tiny.tiny, blocks.blocks):
        jaxzoo.register_model(paper="none", input_size=32)(builder)
    pixels.register()
    jaxzoo.list_models()
    answers = os.fdopen(os.dup(1), "w")
    for text in sys.stdin:
        request, start = json.loads(text), time.monotonic()
        child = os.fork()
        if not child:
            return run(request, command_line.main, trouble.ask_for)
        status = wait(child, request["seconds"])
        answer = {"code": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - start}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    return None


def wait(child: int, seconds: float | None) -> int:
    """The status of a process, which gets SIGKILL when it takes longer than that."""
    if seconds is not None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return status
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def run(request: dict, main: Callable[[], None], prepare: Callable[[], None]) -> int:
    """One run, in the forked process. Returns the exit code."""
    os.environ.update(request["environment"])
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.argv = ["python -m train", *request["arguments"]]

    def prepared() -> None:
        prepare()
        main()

    return exit_code(prepared)


def exit_code(main: Callable[[], None]) -> int:
    """That of a program that does this."""
    try:
        main()
    except SystemExit as end:
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(serve())
