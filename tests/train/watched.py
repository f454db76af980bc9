"""`python -m tests.train.watched N OPTIONS` trains a small model in N processes, over the CPU's collectives.

The processes are forked when everything is imported, and write into the folder OUTPUT of the environment: what they say
to `said.0`, `said.1` …, and the indices of every training batch that they made to `indices.0` … The answer on stdout is
a list of their exit codes, and one of the seconds after which they ended.

Of the environment, XLA_FLAGS makes devices; TROUBLE is JSON with what concerns one process only, by its number:
`{"1": {"die_at": 7, "options": ["--lr=3"]}}` for SIGKILL when it has seen the result of its seventh step, "stop_at" for
SIGTERM, "late" for so many seconds that its failing takes, "options" for its own beside those of all. Arrays of 64
elements are large enough for --shard-params.
"""

import json
import os
import signal
import socket
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import matplotlib.backends.backend_agg  # noqa: F401
import orbax.checkpoint  # noqa: F401

import train.data.digits
import train.data.folder
import train.loop  # noqa: F401
from jaxzoo import register_model
from tests.train import pixels
from tests.train.launch import exit_code
from tests.train.tiny import tiny
from tests.train.trouble import at, die
from train import __main__ as command_line
from train import processes, step


def child(number: int, count: int, port: int, output: str) -> int:
    """One of the processes; returns its exit code."""
    said = os.open(f"{output}/said.{number}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(said, stream)
    step.SHARDED_FROM, put_rows = 64, step.put_rows
    indices = open(f"{output}/indices.{number}", "w")  # noqa: SIM115 ends with the process

    def recorded(batch, sharding):
        if "mask" not in batch:
            print(*batch["indices"], file=indices, flush=True)
        return put_rows(batch, sharding)

    step.put_rows = recorded
    trouble = json.loads(os.environ.get("TROUBLE", "{}")).get(str(number), {})
    at(trouble.get("die_at"), die)
    at(trouble.get("stop_at"), lambda: os.kill(os.getpid(), signal.SIGTERM))
    fail = processes._fail

    def fail_late(error):
        time.sleep(trouble.get("late", 0))
        fail(error)

    processes._fail = fail_late
    together = [f"--coordinator=localhost:{port}", f"--num-processes={count}", f"--process-id={number}"]
    sys.argv = ["train", *sys.argv[2:], *trouble.get("options", []), *(together if count > 1 else [])]
    register_model(paper="none", input_size=32)(tiny)
    pixels.register()
    return exit_code(command_line.main)


def main() -> None:
    count, output = int(sys.argv[1]), os.environ["OUTPUT"]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    start, children, ends = time.monotonic(), [], {}
    for number in range(count):
        pid = os.fork()
        if not pid:
            sys.exit(child(number, count, port, output))
        children.append(pid)
    while len(ends) < count:
        pid, status = os.wait()
        ends[pid] = os.waitstatus_to_exitcode(status), time.monotonic() - start
    print(json.dumps(list(zip(*(ends[pid] for pid in children), strict=True))))


if __name__ == "__main__":
    main()
