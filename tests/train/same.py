"""When two runs of the trainer are the same run."""

import csv
from pathlib import Path

from convert import store
from train.reporting import records

TABLES = ("metrics.csv", "confusion.csv", "per_class.csv", "mistakes.csv", "split.csv")


def rows(run: Path) -> list[dict[str, str]]:
    """metrics.csv, as it is written."""
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def steps(run: Path) -> list[int]:
    """The steps that there are checkpoints of."""
    return sorted(int(folder.name) for folder in (run / "checkpoints").glob("[0-9]*"))


def numbers(run: Path) -> list[dict]:
    """steps.jsonl, without how fast it went."""
    rows = records.lines(run / "steps.jsonl")
    return [
        {name: value for name, value in row.items() if name not in ("images_per_second", "waiting")} for row in rows
    ]


def assert_same_run(ours: Path, theirs: Path) -> None:
    """Parameters, statistics, averages, optimizer state, sums, the best checkpoint and all tables, to the last bit."""
    assert steps(ours) == steps(theirs)
    for place in [*(f"checkpoints/{step}" for step in steps(theirs)), "best"]:
        (a, said), (b, expected) = store.load(ours / place), store.load(theirs / place)
        assert a.keys() == b.keys() and said["train"] == expected["train"]
        for key in b:
            assert a[key].tobytes() == b[key].tobytes(), f"{place} {key}"
    for table in TABLES:
        assert (ours / table).exists() == (theirs / table).exists()
        if (theirs / table).exists():
            assert (ours / table).read_bytes() == (theirs / table).read_bytes(), table
    assert numbers(ours) == numbers(theirs)
