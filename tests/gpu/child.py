"""A process of `python -m tests.gpu` that does some items of a stage: `python -m tests.gpu.child STAGE NAME…`."""

import argparse
import dataclasses
import faulthandler
import json
import time
import traceback
from importlib import import_module
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Conditions:
    """Of all measurements."""

    gpu: bool
    batch: int
    dry_run: bool


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("stage")
    parser.add_argument("names", nargs="+")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--dry-run", action="store_true")
    given = parser.parse_args()

    def write(**row: object) -> None:
        with open(given.out / "results.jsonl", "a") as file:
            file.write(json.dumps({"stage": given.stage, "name": name} | row) + "\n")

    for name in given.names:
        begin = time.monotonic()
        faulthandler.dump_traceback_later(
            given.limit, exit=True
        )  # a thread of its own, which a hanging one cannot stop
        try:
            import jax

            gpu = jax.default_backend() == "gpu"
            conditions = Conditions(gpu, 2 if given.dry_run else given.batch, given.dry_run)
            for row in import_module(f"tests.gpu.{given.stage}").run(name, conditions):
                write(**row)
        except Exception as error:
            traceback.print_exc()
            write(problem=f"{type(error).__name__}: {error}"[:300])
            return  # another process does the rest: what a device has met with may trouble all that follows
        write(seconds=round(time.monotonic() - begin, 1))
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
