"""`python -m jaxzoo bench` measures ours and torch's steps, and counts what they compute."""

import csv
import sys
from pathlib import Path

import jax
import pytest
import torch
from flax import nnx

from jaxzoo import UsageError, create_model, registry
from jaxzoo.commands.bench import bench
from jaxzoo.inspect import multiply_adds
from jaxzoo.nn import Conv


@pytest.fixture(autouse=True)
def own_settings(monkeypatch):
    monkeypatch.setenv("PJRT_NPROC", "1")  # restored afterwards; bench sets it


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_both_sides_are_measured(tmp_path, capsys, precision):
    file = tmp_path / "figures.csv"
    cached = jax.config.jax_enable_compilation_cache
    bench("lenet5", batch=(2,), size=33, threads=1, seconds=0.1, precision=precision, csv=file)
    assert "lenet5" in capsys.readouterr().out
    assert jax.config.jax_enable_compilation_cache == cached
    rows = list(csv.DictReader(file.open()))
    sides = ["jaxzoo", "torch NCHW", "torch NHWC"]
    assert [(row["mode"], row["side"]) for row in rows] == [(m, s) for m in ("inference", "training") for s in sides]
    macs = multiply_adds(create_model("lenet5"), (1, 33, 33, 3))[""]
    for row in rows:
        flops = 2 * macs * (3 if row["mode"] == "training" else 1)
        seconds = float(row["p50 ms"]) / 1000
        assert float(row["GFLOPs per image"]) == pytest.approx(flops / 1e9)
        assert float(row["images/s"]) == pytest.approx(2 / seconds)
        assert float(row["GFLOP/s"]) == pytest.approx(2 * flops / 1e9 / seconds)
        assert 0 < float(row["p10 ms"]) <= float(row["p50 ms"]) <= float(row["p90 ms"])
        assert bool(row["compile s"]) == (row["side"] == "jaxzoo")


class Pixels(nnx.Module):
    """Logits for every pixel, twice."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.conv = Conv(3, 21, 3, padding=1, rngs=rngs)

    def __call__(self, x):
        return {"out": self.conv(x), "aux": 2 * self.conv(x)}


class TorchPixels(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 21, 3, padding=1)

    def forward(self, x):
        return {"out": self.conv(x), "aux": 2 * self.conv(x)}


def test_networks_with_logits_for_every_pixel_are_measured_alike(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_cards", {name: registry.card(name) for name in registry.list_models()})

    @registry.register_model(paper="", task="segmentation", twin=f"{__name__}:TorchPixels")
    def pixels(*, rngs):
        return Pixels(rngs=rngs)

    bench("pixels", batch=(2,), size=33, threads=1, seconds=0.1, csv=tmp_path / "figures.csv")
    rows = list(csv.DictReader((tmp_path / "figures.csv").open()))
    assert [row["mode"] for row in rows] == ["inference"] * 3 + ["training"] * 3
    assert float(rows[0]["GFLOPs per image"]) == pytest.approx(2 * 2 * 33 * 33 * 27 * 21 / 1e9)


def test_where_a_batch_is_too_small_to_train_inference_is_measured(tmp_path, capsys):
    bench("resnet18", against="nothing", batch=(1,), size=32, threads=1, seconds=0.1, csv=tmp_path / "figures.csv")
    assert "training is left out: BatchNorm needs more than one value" in " ".join(capsys.readouterr().out.split())
    assert [row["mode"] for row in csv.DictReader((tmp_path / "figures.csv").open())] == ["inference"]


def test_a_model_can_be_measured_alone(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    bench("lenet5", against="nothing", batch=(2,), size=33, threads=1, seconds=0.1, csv=tmp_path / "figures.csv")
    assert [row["side"] for row in csv.DictReader((tmp_path / "figures.csv").open())] == ["jaxzoo"] * 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"model": "resnet19"}, "resnet19.*nearest"),
        ({"batch": (8, 0)}, "--batch"),
        ({"size": 0}, "--size"),
        ({"device": "gpu"}, "--device gpu"),
        ({"csv": Path("nowhere/figures.csv")}, "no folder nowhere"),
    ],
)
def test_impossible_requests_are_named(arguments, named):
    with pytest.raises(UsageError, match=named):
        bench(**{"model": "resnet18", **arguments})


def test_missing_torch_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UsageError, match="torch"):
        bench("resnet18")
