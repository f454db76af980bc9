"""Records the measured errors, and writes them as a table: `pytest tests/parity --full --parity-table FILE`."""

import ctypes
import gc
import math
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

import jax
import pytest

COLUMNS = ("L0", "L1", "L2", "L3", "L4 SGD", "L4 AdamW", "L5", "L6")

HEADER = """# Measured parity

Written by `python -m pytest tests/parity --full --parity-table docs/parity.md`; `tests/parity/ladder.py` defines the
levels.
L0 (structure) and L5 (round trip of a state_dict) are exact or fail. The others show the largest relative error that
was measured, max |ours - torch| / max |torch|, in float64 except for L6:

- L1: outputs in eval mode at the native size, of segmentation models at 305 × 97, of detectors of any size on two
  images of 128 × 160 (bound 1e-9),
- L2: outputs and running statistics in train mode at an odd size, like the next two (1e-9),
- L3: gradients of all parameters, each tensor by its own scale (1e-8),
- L4: parameters after five steps of an optimizer (1e-7),
- L6: outputs in float32 at the same size as L1 (1e-4, and four times torch's own distance from float64).

Networks marked * have more than 100 M parameters, or 43 M and segment: L0, L5 and a float32 forward run on them, the
rest on a shallow version.
"""

_measured: dict[str, dict[str, float]] = defaultdict(dict)
_large: set[str] = set()


@pytest.fixture
def level(request) -> str:
    optimizer = request.node.callspec.params.get("optimizer")
    names = {"sgd": " SGD", "adamw": " AdamW", None: ""}
    return request.node.originalname.split("_")[1].upper() + names[optimizer]


@pytest.fixture(autouse=True)
def _entry(request, record_property, level, name, large):
    """What the table needs to know of every test."""
    record_property("parity", (name, level, 0.0, large))


@pytest.fixture
def measured(record_property, level, name, large):
    """Asserts that an error is within its bound, and keeps it for the table."""

    def check(error: float, bound: float, where: str = "") -> None:
        record_property("parity", (name, level, error, large))
        assert error <= bound, f"{level} of {name}: {error:.1e} is over {bound:.0e} {where}"

    return check


@pytest.fixture(scope="module")
def programs(name):
    """What compiles asks for this, and has one model's programs forgotten before the next is built."""
    yield
    jax.clear_caches()
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc would keep a large model's memory
        trim(0)


def pytest_runtest_logreport(report):
    if report.when == "call":
        for key, value in report.user_properties:
            if key == "parity":
                name, level, error, large = value
                error = error if report.passed else math.inf
                _measured[name][level] = max(error, _measured[name].get(level, 0.0))
                if large:
                    _large.add(name)


def _cell(level: str, error: float | None) -> str:
    if error is None or error == math.inf:
        return "not run" if error is None else "failed"
    return "equal" if level in ("L0", "L5") else f"{error:.0e}"


def pytest_sessionfinish(session):
    path = session.config.getoption("parity_table")
    if path is None or hasattr(session.config, "workerinput"):
        return
    packages = ", ".join(f"{p} {version(p)}" for p in ("jax", "flax", "torch", "torchvision"))
    head = "\n".join(
        [HEADER, f"Measured on CPU with {packages}.\n", f"| model | {' | '.join(COLUMNS)} |", "|---" * 9 + "|"]
    )
    rows = {}
    if (path := Path(path)).exists() and path.read_text().startswith(head):  # models measured before, in the same way
        rows = {row.split(" ")[1].strip("*"): row for row in path.read_text()[len(head) :].split("\n") if row}
    for name, errors in _measured.items():
        cells = [_cell(level, errors.get(level)) for level in COLUMNS]
        rows[name] = f"| {name}{'*' if name in _large else ''} | {' | '.join(cells)} |"
    path.write_text("\n".join([head, *(rows[name] for name in sorted(rows))]) + "\n")
