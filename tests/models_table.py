"""Writes docs/models.md and jaxzoo/model_sizes.json from the registry: `python -m tests.models_table [NAME...]`.

New models are measured, and those that are named; the others are known (`tests/jaxzoo/test_model_size.py` checks them).
"""

import dataclasses
import json
import math
import sys
from pathlib import Path

import jax
from flax import nnx

import jaxzoo
from convert.heads import auxiliary
from convert.shapes import abstract
from jaxzoo.inspect.model_info import ModelInfo, measure
from jaxzoo.model_size import ModelSize, digits, stored

HEADER = """# Models

Written by `python -m tests.models_table`. Names, arguments, behaviour and initialisation are those of the reference.
`python -m jaxzoo list`, `python -m jaxzoo info NAME` and `jaxzoo.model_info(NAME)` say the same and more. GMACs are the
billions of multiply-adds for one image of the input size; masks and keypoints count for as many boxes as a detector can
return, where torchvision's figures are of an image in which few are found. `convert.load(NAME, WEIGHTS)` downloads
weights; the default ones stand first, and beside each what its publisher reports in percent: top-1 accuracy on
ImageNet-1K, or mean IoU on COCO's images of Pascal VOC's classes. How exactly each model agrees with its reference is
in [parity.md](parity.md).
"""

COLUMNS = """| model | parameters | GMACs | input | weights | reference | paper |
|---|---|---|---|---|---|---|"""


def measured(name: str) -> ModelSize:
    """Of a model with its default arguments, without numbers."""
    size = measure(abstract(name), jaxzoo.card(name).example_inputs())
    argument, _ = auxiliary(name)
    if argument is None:
        return size
    models = [abstract(name, **{argument: wanted}) for wanted in (False, True)]
    without, having = (sum(math.prod(x.shape) for x in jax.tree.leaves(nnx.state(m, nnx.Param))) for m in models)
    return dataclasses.replace(size, auxiliary=having - without)


def main() -> None:
    names, known = jaxzoo.list_models(), stored()
    anew = set(sys.argv[1:]) | set(names) - set(known)
    rows = {name: _row_of(measured(name) if name in anew else known[name]) for name in names}
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
    Path("jaxzoo/model_sizes.json").write_text(f"{{\n{lines}\n}}\n")
    stored.cache_clear()
    parts = [HEADER]
    for task in jaxzoo.registry.TASKS:
        parts += [f"## {task.capitalize()}\n", COLUMNS]
        parts += [_row(jaxzoo.model_info(name)) for name in jaxzoo.list_models(task=task)]
        parts.append("")
    Path("docs/models.md").write_text("\n".join(parts))


def _row_of(size: ModelSize) -> dict[str, int]:
    return {name: number for name, number in dataclasses.asdict(size).items() if number}


def _row(info: ModelInfo) -> str:
    weights = (f"{name} {next(iter(w.metrics.values()), '')}".strip() for name, w in info.weights.items())
    size = f"{digits(info.parameters / 1e6)} M | {digits(info.multiply_adds / 1e9)} | {info.input_size}"
    return f"| {info.name} | {size} | {', '.join(weights)} | {info.twin} | {info.paper} |"


if __name__ == "__main__":
    main()
