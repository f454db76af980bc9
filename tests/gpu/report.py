"""Tables of what `python -m tests.gpu` found, as docs/benchmarks.md takes them."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

Row = Mapping[str, object]

# Of every table, the columns: title, key of a row, format.
SPEED = (
    ("model", "name", ""),
    ("batch", "batch", ""),
    ("jaxzoo images/s", "images/s", ",.0f"),
    ("torch images/s", "torch images/s", ",.0f"),
    ("× torch", "× torch", ".2f"),
    ("torch's layout", "layout", ""),
    ("peak MiB", "peak MiB", ",.0f"),
    ("torch's", "torch peak MiB", ",.0f"),
)
VARIANTS = (
    ("variant and model", "name", ""),
    ("ms as it is", "as it is ms", ".2f"),
    ("ms otherwise", "otherwise ms", ".2f"),
    ("times as fast", "as fast", ".3f"),
    ("MiB as it is", "as it is MiB", ",.0f"),
    ("MiB otherwise", "otherwise MiB", ",.0f"),
)
KERNELS = (
    ("kernel", "kernel", ".60"),
    ("ms a step", "ms a step", ".3f"),
    ("share", "share", ".1%"),
    ("calls a step", "calls a step", "g"),
    ("from", "from", ".120"),
)
PARITY = (
    ("model", "name", ""),
    ("size", "size", ""),
    ("jaxzoo", "error", ".1e"),
    ("torch", "torch error", ".1e"),
    ("within the bound", "within", ""),
)
PRECISION = (
    ("model", "name", ""),
    ("steps", "steps", ""),
    ("first loss", "first loss", ".3f"),
    ("last in float32", "last loss in float32", ".3f"),
    ("last in bfloat16", "last loss in bfloat16", ".3f"),
    ("largest distance, of the first", "largest distance", ".1%"),
    ("within the bound", "within", ""),
)


def speeds(rows: Iterable[Row]) -> list[dict]:
    """Our rows of the stage `speed` with the figures of torch in its faster layout; the slowest beside torch first."""
    sides = defaultdict(list)
    for row in rows:
        if row["stage"] == "speed" and "side" in row:
            sides[row["name"]].append(row)
    both = []
    for measured in sides.values():
        own, *others = sorted(measured, key=lambda row: (row["side"] != "jaxzoo", -row["images/s"]))
        if own["side"] == "jaxzoo" and others:
            best = others[0]
            beside = {"torch images/s": best["images/s"], "torch peak MiB": best["peak MiB"]}
            beside |= {"× torch": own["images/s"] / best["images/s"], "layout": best["side"].split()[1].strip(",")}
            both.append(own | beside)
    return sorted(both, key=lambda row: row["× torch"])


def write_report(out: Path, machine: Row, rows: Sequence[Row]) -> str:
    """Writes report.json and report.md, and returns the latter's text."""
    (out / "report.json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))
    versions = ", ".join(f"{name} {machine[name]}" for name in ("jax", "flax", "optax", "torch", "torchvision"))
    of = defaultdict(list)
    for row in rows:
        of[row["stage"]].append(row)
    done = {(row["stage"], row["name"]) for row in rows if "seconds" in row}
    failed = [row for row in rows if "problem" in row and (row["stage"], row["name"]) not in done]
    profiled = ", ".join(sorted({row["name"] for row in of["kernels"]}))
    text = "\n\n".join(
        (
            f"{machine['date']}, {machine['card']}, {versions}",
            "Training in bfloat16 with parameters in float32, torch compiled and in its faster layout, medians:",
            table(SPEED, speeds(rows)),
            "A training step as it is, and with a part of it otherwise:",
            table(VARIANTS, of["variants"]),
            f"The kernels that take longest in a training step of {profiled}:",
            table(KERNELS, of["kernels"]),
            "Outputs in float32 with the highest precision, error by torch's float64:",
            table(PARITY, of["parity"]),
            "Training in bfloat16 beside float32, losses averaged over ten steps:",
            table(PRECISION, of["precision"]),
            *(f"Not measured: {row['stage']} {row['name']}: {row['problem']}" for row in failed),
        )
    )
    (out / "report.md").write_text(text + "\n")
    return text


def table(columns: Sequence[tuple[str, str, str]], rows: Iterable[Row]) -> str:
    """Rows that have what the columns ask for, in Markdown."""
    titles, keys, formats = zip(*columns, strict=True)
    lines = [titles, ["---"] * len(titles)]
    for row in rows:
        if all(key in row for key in keys):
            cells = zip((row[key] for key in keys), formats, strict=True)
            lines.append(["" if value is None else format(value, how).replace("|", "/") for value, how in cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
