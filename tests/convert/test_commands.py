"""The command line, from one end to the other."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import convert
from convert.__main__ import main

NAME = "mobilenet_v3_small"


def fails(capsys, *arguments: object) -> str:
    """Runs a command that must end with exit code 2 and one line on stderr; returns the line."""
    with pytest.raises(SystemExit) as exit:
        main([str(a) for a in arguments])
    line = capsys.readouterr().err
    assert exit.value.code == 2
    assert line.startswith("error: ") and line.count("\n") == 1
    return line


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_go_there_and_back_with_every_bit(tmp_path, twin, dtype):
    state = {key: t.to(dtype) if t.is_floating_point() else t for key, t in twin.state_dict().items()}
    torch.save({"model": {f"module.{key}": t for key, t in state.items()}}, tmp_path / "in.pth")
    main(["to-flax", "--model", NAME, "--weights", str(tmp_path / "in.pth"), "--out", str(tmp_path / "flax")])
    for out, load in ("out.pth", torch.load), ("out.safetensors", load_file):
        main(["to-torch", "--from", str(tmp_path / "flax"), "--out", str(tmp_path / out)])
        back = load(tmp_path / out)
        assert back.keys() == state.keys()
        assert all(back[key].dtype == t.dtype and torch.equal(back[key], t) for key, t in state.items())


def test_the_manifest_says_what_it_is(tmp_path, weights):
    main(["to-flax", "--model", NAME, "--weights", weights, "--out", str(tmp_path / "flax")])
    manifest = json.loads((tmp_path / "flax" / "manifest.json").read_text())
    assert manifest["model"] == NAME
    assert manifest["arguments"] == {"num_classes": 7}
    assert manifest["preprocess"]["crop"] == 224
    assert manifest["source"]["path"] == weights
    assert len(manifest["source"]["sha256"]) == 64
    assert convert.load(NAME, tmp_path / "flax").classifier[3].bias.shape == (7,)


def test_a_skipped_head_is_said_and_stored(tmp_path, weights, capsys):
    command = ["to-flax", "--model", NAME, "--weights", weights, "--out", str(tmp_path / "flax")]
    main([*command, "--head", "skip", "--num-classes", "3"])
    assert "warning: left fresh" in capsys.readouterr().err
    assert convert.load(NAME, tmp_path / "flax").classifier[3].bias.shape == (3,)


def test_bad_input_is_one_line_and_loses_nothing(tmp_path, weights, capsys):
    out = tmp_path / "flax"
    command = ("to-flax", "--model", NAME, "--weights")
    assert "there is no file" in fails(capsys, *command, tmp_path / "a.pth", "--out", out)
    assert "unknown model" in fails(capsys, "to-flax", "--model", "resnet17", "--weights", weights, "--out", out)
    assert not out.exists()
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    assert "exists already" in fails(capsys, *command, weights, "--out", out)
    assert (out / "thesis.txt").read_text() == "years of work"
    assert "holds no checkpoint" in fails(capsys, "to-torch", "--from", out, "--out", tmp_path / "a.pth")
    assert "exists already" in fails(capsys, "to-torch", "--from", out, "--out", weights)
    assert "end its name" in fails(capsys, "to-torch", "--from", out, "--out", tmp_path / "a.bin")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["flax"]


def test_a_damaged_directory_is_not_exported(tmp_path, weights, capsys):
    main(["to-flax", "--model", NAME, "--weights", weights, "--out", str(tmp_path / "flax")])
    path = tmp_path / "flax" / "arrays" / "model" / "classifier.3.bias" / "c" / "0"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert "classifier.3.bias" in fails(capsys, "to-torch", "--from", tmp_path / "flax", "--out", tmp_path / "a.pth")
    assert not (tmp_path / "a.pth").exists()


def test_twins_do_not_differ(capsys):
    main(["diff", "--model", "lenet5", "--size", "33"])
    assert "layers agree to" in capsys.readouterr().out


def test_the_first_layer_that_differs_is_named(monkeypatch, capsys):
    load_state_dict = torch.nn.Module.load_state_dict

    def perturbed(module, state, *args, **kwargs):
        result = load_state_dict(module, state, *args, **kwargs)
        with torch.no_grad():
            module.features[4].block[1][0].weight[3, 0, 1, 1] += 0.01
        return result

    monkeypatch.setattr(torch.nn.Module, "load_state_dict", perturbed)
    with pytest.raises(SystemExit) as exit:
        main(["diff", "--model", NAME, "--size", "33"])
    assert exit.value.code == 1
    out = capsys.readouterr().out
    assert "the first is features.4.block.1.0" in out
    assert out.count("← first") == 1


def test_diff_takes_an_image_and_float32(tmp_path, weights, capsys):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)).save(tmp_path / "a.png")
    command = ["diff", "--model", NAME, "--weights", weights, "--image", str(tmp_path / "a.png"), "--size", "32"]
    main([*command, "--dtype", "float32"])
    assert "layers agree to" in capsys.readouterr().out


def test_diff_takes_an_image_for_a_detector(tmp_path, capsys):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)).save(tmp_path / "a.png")
    main(["diff", "--model", "yolov1_tiny", "--image", str(tmp_path / "a.png"), "--size", "64"])
    assert "layers agree to" in capsys.readouterr().out


def test_inspect_names_the_model_and_the_nesting(tmp_path, twin, capsys):
    torch.save({"state_dict": {f"module.{key}": t for key, t in twin.state_dict().items()}}, tmp_path / "a.pth")
    main(["inspect", str(tmp_path / "a.pth")])
    out = capsys.readouterr().out
    assert "fits: mobilenet_v3_small (num_classes=7)" in out
    assert "weights under: state_dict" in out
    assert "prefix taken off: module." in out
    assert "more (--all)" in out
    assert "features.5.block.1.0.weight" not in out


def test_inspect_says_what_is_nearest(tmp_path, twin, capsys):
    state = twin.state_dict() | {"features.0.0.weight": torch.ones(3, 3, 3, 3)}
    torch.save(state, tmp_path / "a.pth")
    main(["inspect", str(tmp_path / "a.pth"), "--all"])
    out = capsys.readouterr().out
    assert "none of the registered models; nearest is mobilenet_v3_small" in out
    assert "features.5.block.1.0.weight" in out
    torch.save({"weight": torch.ones(3)}, tmp_path / "b.pth")
    main(["inspect", str(tmp_path / "b.pth")])
    assert "none of the registered models" in capsys.readouterr().out


def test_help_is_fast():
    start = time.monotonic()
    run = subprocess.run([sys.executable, "-m", "convert", "--help"], capture_output=True, text=True)
    assert time.monotonic() - start < 5  # 0.8 s on a machine of its own
    for command in ("to-flax", "to-torch", "diff", "inspect"):
        assert command in run.stdout


def test_a_reference_of_another_package_is_said_to_need_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    monkeypatch.delitem(sys.modules, "convert.twins.smp", raising=False)
    assert "which needs: pip install segmentation_models_pytorch" in fails(capsys, "diff", "--model", "unet_resnet18")
