"""`python -m jaxzoo`: list, info and predict, as people call them."""

import csv
import json
import subprocess
import sys
import urllib.error

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.transforms._presets import ImageClassification

import jaxzoo
from convert import store
from convert.to_flax import to_flax
from jaxzoo.__main__ import main
from tests.convert.conftest import small

NAME = "mobilenet_v3_small"


def run(*arguments: object) -> int:
    """The exit code of a command."""
    try:
        main([str(a) for a in arguments])
    except SystemExit as exit:
        return exit.code
    return 0


def refused(capsys, *arguments: object) -> str:
    """What a command says on stderr that must end with exit code 2 before it says anything on stdout."""
    assert run(*arguments) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and not said.out
    return said.err


def test_the_list_has_size_cost_and_published_accuracy(capsys):
    assert run("list", "resnet50") == 0
    words = capsys.readouterr().out.split()
    first = words.index("resnet50")
    assert " ".join(words[first : first + 9]) == "resnet50 25.6 M 4.09 224 IMAGENET1K_V2 80.86 IMAGENET1K_V1 76.13"


@pytest.mark.parametrize(
    ("pattern", "found"), [("next", ["convnext_tiny", "resnext50_32x4d"]), ("vgg1[13]", ["vgg11"])]
)
def test_the_list_takes_parts_of_names_and_shell_patterns(capsys, pattern, found):
    run("list", pattern)
    out = capsys.readouterr().out
    assert all(name in out for name in found) and "resnet50" not in out and "vgg11_bn" not in out


def test_a_pattern_like_no_model_is_answered_with_the_nearest(capsys):
    assert "'resnt50'; nearest: resnet50" in refused(capsys, "list", "resnt50")


def test_listing_all_models_is_quick_and_needs_no_torch():
    code = "import sys; from jaxzoo.__main__ import main; main(['list']); sys.exit('torch' in sys.modules)"
    listed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert all(f" {name} " in listed.stdout for name in jaxzoo.list_models())  # 1 s on a machine of its own


def test_info_says_what_a_model_is_and_what_it_consists_of(capsys):
    run("info", "resnet18", "--depth", "1")
    out = capsys.readouterr().out
    for part in (
        "1512.03385",
        "torchvision:resnet18",
        "11,689,512 parameters",
        "1.81 GMACs (3.63 GFLOPs)",
        "224 × 224",
    ):
        assert part in out
    assert "weights IMAGENET1K_V1: acc@1 69.758 %, acc@5 89.078 % on ImageNet-1K; shorter side to 256" in " ".join(
        out.split()
    )
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines() if line.strip()}
    assert rows["layer4"] == "Sequential 7 × 7 × 512 8,393,728 822.1"
    assert rows["fc"] == "Linear 1000 513,000 1.0"
    assert "0" not in rows
    run("info", "resnet18", "--depth", "3")
    assert capsys.readouterr().out.count(" conv2 ") == 8


def test_info_takes_another_image_size(capsys):
    run("info", "vit_b_16", "--image-size", "384")
    assert "86,859,496 parameters, 55.5 GMACs" in capsys.readouterr().out  # a longer table of positions
    assert "multiple of the patch size, 16" in refused(capsys, "info", "vit_b_16", "--image-size", "385")
    assert "vgg11 cannot take images of 7 × 7 pixels" in refused(capsys, "info", "vgg11", "--image-size", "7")
    assert "--image-size 0 is too small" in refused(capsys, "info", "vgg11", "--image-size", "0")


@pytest.mark.parametrize("command", ["info", "predict"])
def test_an_unknown_model_is_answered_with_the_nearest(capsys, command, pictures):
    options = {"info": ["resnet51"], "predict": [pictures, "--model", "resnet51", "--weights", "a.pth"]}
    assert "unknown model 'resnet51'; nearest: resnet50" in refused(capsys, command, *options[command])


@pytest.fixture(scope="module")
def twin():
    """A small classifier of ImageNet that is sure of what it does not know."""
    twin = small(NAME)
    with torch.no_grad():
        twin.classifier[3].weight *= 60
    return twin


@pytest.fixture(scope="module")
def weights(twin, tmp_path_factory):
    """Where torchvision keeps what it has downloaded."""
    path = tmp_path_factory.mktemp("torch") / "hub" / "checkpoints" / "mobilenet_v3_small-047dcff4.pth"
    path.parent.mkdir(parents=True)
    torch.save(twin.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Five images at two places of the same folder."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(5):
        path = folder / ("b" if number > 2 else "") / f"{number % 3}.png"
        path.parent.mkdir(exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (3, 4, 3), np.uint8))
        coarse.resize((300 + 20 * number, 260)).save(path)
    return folder


def test_predictions_are_torchs(capsys, monkeypatch, tmp_path, twin, weights, pictures):
    monkeypatch.setenv("TORCH_HOME", str(weights.parents[2]))
    options = ["--top", "3", "--batch-size", "2", "--json", tmp_path / "a.json", "--csv", tmp_path / "a.csv"]
    assert run("predict", pictures, "--model", NAME, "--weights", "DEFAULT", *options) == 0
    found = json.loads((tmp_path / "a.json").read_text())
    assert (found["model"], found["weights"]) == (NAME, "DEFAULT")
    published = torchvision.models.get_model_weights(NAME).DEFAULT
    paths = sorted(pictures.rglob("*.png"))
    assert [row["image"] for row in found["images"]] == [str(path) for path in paths]
    out, lines = capsys.readouterr().out, [["image", "rank", "index", "class", "probability"]]
    for path, row in zip(paths, found["images"], strict=True):
        with torch.no_grad():
            likely = twin(published.transforms()(Image.open(path))[None])[0].softmax(0)
        expected = likely.topk(3)
        assert [p["index"] for p in row["top"]] == expected.indices.tolist()
        assert [p["name"] for p in row["top"]] == [published.meta["categories"][i] for i in expected.indices]
        np.testing.assert_allclose([p["probability"] for p in row["top"]], expected.values, rtol=1e-5)
        for rank, p in enumerate(row["top"], 1):
            assert f"{100 * p['probability']:.2f} %  {p['name']} ({p['index']})" in out
            lines.append([str(path), str(rank), str(p["index"]), p["name"], str(p["probability"])])
    with (tmp_path / "a.csv").open() as file:
        assert list(csv.reader(file)) == lines


def test_the_temperature_divides_the_logits(tmp_path, weights, pictures):
    odds = []
    for temperature in (1, 4):
        file = tmp_path / f"{temperature}.json"
        options = ["--temperature", temperature, "--top", "1000", "--json", file]
        assert run("predict", pictures / "1.png", "--model", NAME, "--weights", weights, *options) == 0
        (row,) = json.loads(file.read_text())["images"]
        assert sum(p["probability"] for p in row["top"]) == pytest.approx(1)
        odds.append(np.log(row["top"][0]["probability"] / row["top"][9]["probability"]))
    assert odds[0] == pytest.approx(4 * odds[1]) and odds[1] > 0.1


def test_pictures_are_annotated(tmp_path, weights, pictures):
    options = ["--top", "2", "--annotate", tmp_path / "out"]
    assert run("predict", pictures, "--model", NAME, "--weights", weights, *options) == 0
    made = {path.name: Image.open(path) for path in (tmp_path / "out").iterdir()}
    assert made.keys() == {"0.jpg", "1.jpg", "2.jpg", "0-2.jpg", "1-2.jpg"}
    original = Image.open(pictures / "2.png")
    below = made["2.jpg"].height - original.resize((360, round(360 / original.width * 260))).height
    assert made["2.jpg"].width == 360 and below > 50
    shown = np.asarray(made["2.jpg"].crop((0, 0, 360, made["2.jpg"].height - below)), float)
    assert np.abs(shown - np.asarray(original.resize((360, len(shown))), float)).mean() < 3


def test_images_that_cannot_be_read_are_named_and_left_out(capsys, tmp_path, weights, pictures):
    Image.open(pictures / "0.png").save(tmp_path / "b.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "b.jpg").read_bytes()[:3000])
    (tmp_path / "c.png").write_text("no image")
    assert run("predict", tmp_path, "--model", NAME, "--weights", weights) == 1
    said = capsys.readouterr()
    assert [line.split()[1] for line in said.err.splitlines()] == [str(tmp_path / name) for name in ("a.jpg", "c.png")]
    assert [line for line in said.out.splitlines() if "%" not in line] == [str(tmp_path / "b.jpg")]
    assert run("predict", tmp_path / "a.jpg", "--model", NAME, "--weights", weights) == 2
    assert capsys.readouterr().out == ""


def test_classes_and_preprocessing_come_from_the_manifest(capsys, tmp_path, pictures):
    """As in the folder of a training run."""
    twin = small(NAME, num_classes=3)
    torch.save(twin.state_dict(), tmp_path / "a.pth")
    to_flax(NAME, str(tmp_path / "a.pth"), tmp_path / "model")
    preprocess = {"crop": 40, "resize": 50, "mean": [0.5] * 3, "std": [0.2] * 3}
    known = {"classes": ["cat", "dog", "eel"], "preprocess": preprocess}
    store.write_manifest(tmp_path / "model", store.read_manifest(tmp_path / "model") | known)
    capsys.readouterr()
    assert run("predict", pictures / "0.png", "--model", NAME, "--weights", tmp_path / "model") == 0
    transform = ImageClassification(crop_size=40, resize_size=50, mean=preprocess["mean"], std=preprocess["std"])
    with torch.no_grad():
        likely = twin(transform(Image.open(pictures / "0.png"))[None])[0].softmax(0)
    expected = sorted(zip(likely.tolist(), known["classes"], range(3), strict=True), reverse=True)
    shown = [f"{100 * p:8.2f} %  {name} ({index})" for p, name, index in expected]
    assert capsys.readouterr().out.splitlines()[1:] == shown


def test_classes_without_names_have_numbers(capsys, tmp_path, pictures):
    torch.save(torchvision.models.get_model(NAME, num_classes=4).state_dict(), tmp_path / "a.pth")
    run("predict", pictures / "0.png", "--model", NAME, "--weights", tmp_path / "a.pth")
    assert sorted(line.split("%")[1] for line in capsys.readouterr().out.splitlines()[1:]) == [
        f"  class {i} ({i})" for i in range(4)
    ]


def test_bad_input_is_answered_before_anything_is_done(capsys, tmp_path, weights, pictures):
    command = ["predict", pictures / "0.png", "--model", NAME, "--weights"]
    assert "there is no file" in refused(capsys, *command, "a.pth")
    assert "there is no image or folder at cat.jpg" in refused(
        capsys, "predict", "cat.jpg", "--model", NAME, "--weights", weights
    )
    assert "holds no images" in refused(capsys, "predict", tmp_path, "--model", NAME, "--weights", weights)
    assert "at least one image" in refused(capsys, "predict", "--model", NAME, "--weights", weights)
    torch.save(torchvision.models.resnet18(num_classes=2).state_dict(), tmp_path / "resnet.pth")
    assert f"resnet.pth does not fit {NAME}" in refused(capsys, *command, tmp_path / "resnet.pth")
    assert "--temperature" in refused(capsys, *command, weights, "--temperature", "0")
    assert "--top" in refused(capsys, *command, weights, "--top", "0")
    for option in ("--annotate", "--json", "--csv"):
        assert "exists already" in refused(capsys, *command, weights, option, tmp_path / "resnet.pth")
        assert "no folder" in refused(capsys, *command, weights, option, tmp_path / "a" / "b")


def test_weights_that_cannot_be_downloaded_are_named(capsys, monkeypatch, tmp_path, pictures):
    def fail(*args, **kwargs):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", fail)
    command = ["predict", pictures / "0.png", "--model", NAME, "--weights"]
    assert "are you offline?" in refused(capsys, *command, "IMAGENET1K_V1")
    assert "which are: IMAGENET1K_V1" in refused(capsys, *command, "IMAGENET1K_V3")


def test_imagenets_classes_are_torchvisions():
    published = torchvision.models.get_model_weights("resnet50").DEFAULT
    assert list(jaxzoo.imagenet_classes()) == published.meta["categories"]
