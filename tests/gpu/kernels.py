"""Stage `kernels`: those that take longest in a training step, as JAX's profiler sees them."""

import collections
import gzip
import json
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import jax

from tests.gpu.child import Conditions
from tests.gpu.speed import our_side

STEPS, MOST = 5, 10


def names(dry_run: bool, *slowest: str) -> list[str]:
    return list(slowest[:1])


def run(name: str, conditions: Conditions) -> Iterator[dict]:
    side = our_side(name, conditions)
    side.warm_up(conditions.gpu)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            side.run(STEPS)
        file = next(Path(folder).rglob("*.trace.json.gz"))
        events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    origin = dict(re.findall(r"%?([\w.-]+) = .*?op_name=\"([^\"]+)\"", side.program()))
    spent, count, source = collections.Counter(), collections.Counter(), {}
    for event in computing(events):
        spent[event["name"]] += event["dur"]
        count[event["name"]] += 1
        operation = event.get("args", {}).get("hlo_op", event["name"])
        source.setdefault(event["name"], origin.get(operation, operation))
    total = spent.total()
    for kernel, microseconds in spent.most_common(MOST):
        yield {
            "kernel": kernel,
            "ms a step": microseconds / STEPS / 1000,
            "share": microseconds / total,
            "calls a step": count[kernel] / STEPS,
            "from": source[kernel],
        }


def computing(events: Iterable[dict]) -> list[dict]:
    """The events of a trace that are kernels: a GPU's on its streams, and on a CPU what carries an operation's name."""
    named = {
        (e["pid"], e.get("tid"), e["name"]): e["args"]["name"]
        for e in events
        if e.get("ph") == "M" and "name" in e["args"]
    }
    gpus = {pid for (pid, _, what), name in named.items() if what == "process_name" and "GPU" in name}
    streams = {
        (pid, tid)
        for (pid, tid, what), name in named.items()
        if what == "thread_name" and pid in gpus and name.startswith("Stream")
    }
    whole = [e for e in events if e.get("ph") == "X"]
    if streams:
        return [e for e in whole if (e["pid"], e["tid"]) in streams]
    return [e for e in whole if "hlo_op" in e.get("args", {})]
