"""Runs of the trainer with a small model, each in processes of their own that are there at once.

`python -m tests.train.launch` imports everything that training needs and then forks for every run that it is asked for.
A line of its input is a request, `{"seconds": 300, "processes": [{"arguments": [...], "environment": {...}, "output":
file}, ...]}`, and a line of its output the answer, `{"codes": [...], "seconds": [...]}`, in the order of the processes.
Those that take longer than `seconds` get SIGKILL.

Six models are known there: `tiny`; `blocks`, which takes images of any size; `pixels`, which segments; `boxes` and
`masks`, which detect; and `distance` of `tests.train.test_a_task_of_ones_own`.

The environment of a process can ask for trouble: see `tests.train.trouble`.
"""

import atexit
import contextlib
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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax

ROOT = Path(__file__).parents[2]
# What a run imports, some of it only on its way.
IMPORTED = ("grain", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "orbax.checkpoint", "tyro")
IMPORTED += ("tensorboardX", "train.data.sources.digits", "train.data.sources.folder", "train.loop")


# Compiles in two thirds of the time; networks this small run as fast.
HASTE = "--xla_backend_optimization_level=0"
LIMIT = 300  # seconds after which a run counts as hung


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
            start_new_session=True,  # a group of processes, which ends as one
        )
        self.code, self.seconds = 0, 0.0
        atexit.register(self.close)

    def __call__(self, *options: object, after: float | None = None, **environment: object) -> str:
        """Runs `python -m train OPTIONS`, kills it `after` so many seconds, and gives what it printed."""
        (said,), (self.code,), (self.seconds,) = self.together([(options, environment)], after or LIMIT)
        assert after or self.seconds < LIMIT, f"hung for {LIMIT} s: {said}"
        return said

    def together(
        self, processes: Sequence[tuple[Sequence, Mapping[str, object]]], seconds: float = LIMIT
    ) -> tuple[list[str], list[int], list[float]]:
        """Runs processes with options and environment each; gives what they printed, their exit codes, and when."""
        with contextlib.ExitStack() as stack:
            outputs = [stack.enter_context(tempfile.NamedTemporaryFile("r")) for _ in processes]
            requests = [
                {
                    "arguments": list(map(str, options)),
                    "environment": {name: str(value) for name, value in environment.items()}
                    | {"XLA_FLAGS": f"{HASTE} {environment.get('XLA_FLAGS', '')}"},
                    "output": output.name,
                }
                for (options, environment), output in zip(processes, outputs, strict=True)
            ]
            self.server.stdin.write(json.dumps({"seconds": seconds, "processes": requests}) + "\n")
            self.server.stdin.flush()
            answer = json.loads(self.server.stdout.readline())
            return [output.read() for output in outputs], answer["codes"], answer["seconds"]

    def close(self) -> None:
        self.server.stdin.close()
        try:
            self.server.wait(10)
        except subprocess.TimeoutExpired:  # in the middle of a run that nobody waits for any more
            os.killpg(self.server.pid, signal.SIGKILL)
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
    from tests.train import blocks, boxes, pixels, test_a_task_of_ones_own, tiny, trouble
    from train import __main__ as command_line

    for builder in (tiny.tiny, blocks.blocks):
        jaxzoo.register_model(paper="none", input_size=32)(builder)
    pixels.register()
    boxes.register()
    test_a_task_of_ones_own.register()
    jaxzoo.list_models()
    answers = os.fdopen(os.dup(1), "w")
    for text in sys.stdin:
        request, children = json.loads(text), []
        for process in request["processes"]:
            child = os.fork()
            if not child:
                return run(process, command_line.main, trouble.ask_for)
            children.append(child)
        codes, seconds = zip(*wait(children, request["seconds"]), strict=True)
        answers.write(json.dumps({"codes": codes, "seconds": seconds}) + "\n")
        answers.flush()
    return None


def wait(children: Sequence[int], seconds: float) -> list[tuple[int, float]]:
    """Exit codes of processes, and after how many seconds they came; those that take longer get SIGKILL."""
    start, ends = time.monotonic(), {}
    while len(ends) < len(children):
        child, status = os.waitpid(-1, os.WNOHANG)
        if child:
            ends[child] = os.waitstatus_to_exitcode(status), time.monotonic() - start
        elif time.monotonic() - start > seconds:
            for child in set(children) - ends.keys():
                os.kill(child, signal.SIGKILL)
                ends[child] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), time.monotonic() - start
        else:
            time.sleep(0.002)
    return [ends[child] for child in children]


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
