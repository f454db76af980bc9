"""`python -m tests.gpu --dry-run`: every stage, with what a plain machine with a GPU has."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxzoo import registry
from jaxzoo.nn import attention
from tests.gpu.__main__ import LIMITS, STAGES, Work, main
from tests.gpu.report import speeds
from tests.gpu.variants import VARIANTS, names

pytestmark = pytest.mark.xdist_group("gpu")

MISSING = ("grain", "tyro", "tensorflow_datasets", "array_record", "tensorboardX", "pytorchcv")
AS_MISSING = f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {MISSING}:
            raise ImportError(f"{{name}} is missing here")

sys.meta_path.insert(0, Missing())
"""


def test_all_stages_run_with_what_is_there(tmp_path, monkeypatch, capsys):
    (tmp_path / "sitecustomize.py").write_text(AS_MISSING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    out = tmp_path / "out"
    main(["--dry-run", "--minutes", "60", "--out", str(out)])
    rows = json.loads((out / "report.json").read_text())["rows"]
    assert not [row for row in rows if "problem" in row], (out / "log.txt").read_text()
    assert {row["stage"] for row in rows if "seconds" in row} == {"machine", *STAGES}
    assert [row["side"] for row in rows if "side" in row] == ["jaxzoo", "torch NCHW", "torch NHWC"]
    kernels = [row for row in rows if "kernel" in row]
    assert 0 < len(kernels) <= 10 and 0 < sum(row["share"] for row in kernels) < 1.001
    assert {row["name"] for row in rows if "as fast" in row} == {f"{variant}:tiny" for variant in VARIANTS}
    assert all(row["within"] for row in rows if "within" in row)
    report = (out / "report.md").read_text()
    assert report in capsys.readouterr().out
    for line in ("| tiny | 2 |", "| attention by cuDNN:tiny |", "| lenet5 | 32 |", "| lenet5 | 22 |"):
        assert line in report


def test_who_hangs_or_fails_costs_its_own_time_only(tmp_path, monkeypatch):
    work = Work(tmp_path, minutes=60, batch=2, dry_run=False, compiled=str(tmp_path))
    monkeypatch.setitem(LIMITS, "machine", (1, 1))  # second
    work.do("machine", ["first", "second"])
    monkeypatch.setitem(LIMITS, "machine", (60, 1))
    work.do("machine", ["machine"])
    problems = [(row["name"], row["problem"]) for row in work.rows()]
    assert [name for name, _ in problems] == ["first", "second", "machine"]
    assert "perhaps after 1 s" in problems[0][1] and "have to find a GPU" in problems[2][1]
    monkeypatch.setitem(LIMITS, "machine", (60, 0))
    work.do("machine", ["late"])
    assert work.rows()[-1]["problem"] == "there was no time left"


def test_torchs_better_layout_counts_and_the_slowest_comes_first():
    speed = {"a": (100, 50, 80), "b": (100, 200, 150), "unfinished": (1,)}
    sides = ("jaxzoo", "torch NCHW, compiled", "torch NHWC, compiled")
    rows = [
        {"stage": "speed", "name": name, "side": side, "images/s": value, "peak MiB": 1}
        for name, values in speed.items()
        for side, value in zip(sides, values, strict=False)
    ]
    found = [(row["name"], row["× torch"], row["layout"]) for row in speeds(rows)]
    assert found == [("b", 0.5, "NCHW"), ("a", 1.25, "NHWC")]


def test_variants_are_tried_where_they_matter_and_with_the_slowest_first():
    assert names(False, "vit_b_16", "resnet50")[0].endswith(":vit_b_16")
    assert "BatchNorm's gradient by XLA:resnet50" in names(False, "vit_b_16", "resnet50")
    assert "attention by cuDNN:vit_b_16" in names(False, "resnet50")


def test_every_variant_changes_the_program(monkeypatch):
    monkeypatch.setattr(registry, "_cards", {name: registry.card(name) for name in registry.list_models()})
    from tests.gpu.tiny import Tiny  # which registers itself

    graph, params, rest = nnx.split(Tiny(rngs=nnx.Rngs(0)), nnx.Param, ...)

    def program() -> str:
        def loss(params, x):
            return nnx.merge(graph, params, rest, copy=True)(x).sum()

        text = str(jax.make_jaxpr(jax.grad(loss))(params, jnp.zeros((2, 32, 32, 3))))
        return re.sub(r" at 0x[0-9a-f]+", "", text)

    plain = program()
    assert plain == program()
    for name, variant in VARIANTS.items():
        with variant.change():
            assert (program() == plain) == bool(variant.options), name


def test_fused_attention_computes_the_same():
    q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 5, 2, 8), jnp.float32)  # an odd length
    with VARIANTS["attention by cuDNN"].change():
        fused = attention.attend(q, k, v)
    np.testing.assert_allclose(fused, attention.attend(q, k, v), atol=1e-6)
