"""Measures on an NVIDIA GPU, in order of worth: `python -m tests.gpu --minutes 12 --out DIR`.

    parity      float32 against torch, the smallest model of each family whose reference is there
    precision   a short training in bfloat16, whose loss has to follow float32's
    warm        what torch.compile makes of the models of `speed`, kept for it
    speed       images/s of a training step against torch.compile, in both of torch's memory layouts
    kernels     of the model that is slowest beside torch, the kernels that take longest
    variants    parts of models as written here and as XLA or cuDNN would have them

Every result is a line of DIR/results.jsonl at once; at the end DIR/report.md has tables and DIR/report.json all of it.
A second call with the same DIR goes on where the first one stopped. What hangs or crashes costs its own time only: each
stage runs in processes of its own, whose output is in DIR/log.txt. It needs neither grain nor tyro nor
tensorflow-datasets. `--dry-run` walks through all stages with a tiny network, on a CPU too.
"""

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

from tests.gpu.report import speeds, write_report

ROOT = Path(__file__).parents[2]
STAGES = ("parity", "precision", "warm", "speed", "kernels", "variants")
# Seconds that one item of a stage may take, and the part of all time that is over when the stage has to be.
LIMITS = {"machine": (60, 1), "parity": (60, 0.35), "precision": (120, 0.35), "warm": (200, 0.35)}
LIMITS |= {"speed": (150, 0.8), "kernels": (90, 0.88), "variants": (120, 1)}


@dataclasses.dataclass(frozen=True)
class Work:
    """Where results go, and until when."""

    out: Path
    minutes: float
    batch: int
    dry_run: bool
    compiled: str  # folder of what JAX and torch have compiled
    begin: float = dataclasses.field(default_factory=time.monotonic)

    def rows(self) -> list[dict]:
        file = self.out / "results.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def left(self, stage: str) -> float:
        return 60 * self.minutes * LIMITS[stage][1] - (time.monotonic() - self.begin)

    def do(self, stage: str, names: Sequence[str]) -> None:
        """Has child processes do these items of a stage, one after the other; who dies is followed by another."""
        known = self.rows()
        waiting = [name for name in names if not any(ended(row, stage, name) and "seconds" in row for row in known)]
        while waiting:
            ending = self._child(stage, waiting) if self.left(stage) > 10 else "there was no time left"
            new = self.rows()[len(known) :]
            waiting = [name for name in waiting if not any(ended(row, stage, name) for row in new)]
            if waiting and ending:
                self.write(stage=stage, name=waiting.pop(0), problem=ending)

    def _child(self, stage: str, names: Sequence[str]) -> str:
        """How the process ended, or nothing where it ended well."""
        limit = min(LIMITS[stage][0], self.left(stage))
        command = [sys.executable, "-m", "tests.gpu.child", stage, *names, "--out", self.out, "--batch", self.batch]
        command += ["--limit", int(limit), *(["--dry-run"] if self.dry_run else [])]
        environment = os.environ | {
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # torch, and others, need memory too
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "JAX_COMPILATION_CACHE_DIR": f"{self.compiled}/jax",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none",  # which would outlast other autotuning
            "TORCHINDUCTOR_CACHE_DIR": f"{self.compiled}/torch",
        }
        with open(self.out / "log.txt", "a") as log:
            child = subprocess.Popen(
                [*map(str, command)], cwd=ROOT, stdout=log, stderr=log, env=environment, start_new_session=True
            )
            try:
                code = child.wait(timeout=max(self.left(stage), 1))
            except subprocess.TimeoutExpired:
                return "there was no time left"
            finally:
                if child.poll() is None:
                    os.killpg(child.pid, signal.SIGKILL)  # torch's compilers too
                    child.wait()
        return f"the process ended with {code}, perhaps after {limit:.0f} s; see log.txt" if code else ""

    def write(self, **row: object) -> None:
        with open(self.out / "results.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")


def ended(row: Mapping, stage: str, name: str) -> bool:
    """Whether a row is the last one of an item."""
    return (row["stage"], row["name"]) == (stage, name) and ("seconds" in row or "problem" in row)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        "python -m tests.gpu", None, __doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=12, help="for everything")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--batch", type=int, default=128, help="images of a training step that is timed")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--dry-run", action="store_true", help="everything in tiny, on whatever there is")
    given = parser.parse_args(argv)
    out = given.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as compiled:
        work = Work(out, given.minutes, given.batch, given.dry_run, compiled)
        work.do("machine", ["machine"])
        machine = next((row for row in work.rows() if row["stage"] == "machine" and "card" in row), None)
        if not machine:
            sys.exit(f"error: {work.rows()[-1]['problem']}")
        everything(work, set(given.stages))
    print(write_report(out, machine, work.rows()))


def everything(work: Work, stages: set[str]) -> None:
    """All stages: first, at the same time, what takes no times."""

    def names(stage: str, *beside: str) -> list[str]:
        return import_module(f"tests.gpu.{stage}").names(work.dry_run, *beside) if stage in stages else []

    hands = 1 if work.dry_run else 4  # as many batches as 80 GB hold
    together = [(stage, names(stage)) for stage in ("parity", "precision", "warm")]
    with ThreadPoolExecutor(hands) as pool:
        parts = [(stage, items[hand::hands]) for stage, items in together for hand in range(hands)]
        for done in [pool.submit(work.do, stage, items) for stage, items in parts]:
            done.result()
    for name in names("speed"):
        work.do("speed", [name])  # memory that one leaves behind is not the next one's
    slowest = [row["name"] for row in speeds(work.rows())]
    for stage in ("kernels", "variants"):
        work.do(stage, names(stage, *slowest))


if __name__ == "__main__":
    main()
