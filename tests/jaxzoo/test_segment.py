"""`python -m jaxzoo predict` for segmentation models, as people call it."""

import csv
import json

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.transforms._presets import SemanticSegmentation

from convert import store
from convert.to_flax import to_flax
from convert.twins import randomise
from jaxzoo import Preprocess, voc
from jaxzoo.commands.tasks.segmentation import overlaid, resized, targets
from tests.jaxzoo.test_commands import run

NAME = "lraspp_mobilenet_v3_large"
SIZE = 64  # shorter side, in pixels


@pytest.fixture(scope="module")
def twin() -> torch.nn.Module:
    torch.manual_seed(0)
    twin = torchvision.models.get_model(NAME, weights=None, weights_backbone=None, num_classes=4).eval()
    randomise(twin, seed=0)
    return twin


@pytest.fixture(scope="module")
def weights(twin, tmp_path_factory):
    """A converted directory that says how images are prepared."""
    folder = tmp_path_factory.mktemp("weights")
    torch.save(twin.state_dict(), folder / "a.pth")
    to_flax(NAME, str(folder / "a.pth"), folder / "model")
    known = {"classes": ["nothing", "cat", "dog", "eel"], "preprocess": {"crop": SIZE}}
    store.write_manifest(folder / "model", store.read_manifest(folder / "model") | known)
    return folder / "model"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name, size in {"a.png": (90, 70), "b/a.png": (50, 81)}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8)).resize(size).save(folder / name)
    return folder


def expected(twin: torch.nn.Module, path) -> torch.Tensor:
    """(classes, H, W) at the image's own size."""
    image = Image.open(path)
    with torch.no_grad():
        logits = twin(SemanticSegmentation(resize_size=SIZE)(image)[None])["out"]
        return torch.nn.functional.interpolate(logits, image.size[::-1], mode="bilinear")[0]


def test_masks_are_torchs_at_the_images_own_size(capsys, tmp_path, twin, weights, pictures):
    out = tmp_path / "out"
    options = ["--out", out, "--json", tmp_path / "a.json", "--csv", tmp_path / "a.csv", "--top", 3]
    assert run("predict", pictures, "--model", NAME, "--weights", weights, *options) == 0
    said = capsys.readouterr().out
    made = {path.name for path in out.iterdir()}
    assert made == {"a.png", "a-2.png", "a-overlay.jpg", "a-2-overlay.jpg"}
    rows = json.loads((tmp_path / "a.json").read_text())["images"]
    names = ["nothing", "cat", "dog", "eel"]
    for name, path, row in zip(("a", "a-2"), (pictures / "a.png", pictures / "b/a.png"), rows, strict=True):
        logits = expected(twin, path).numpy()
        mask = Image.open(out / f"{name}.png")
        found = np.asarray(mask)
        assert mask.mode == "P" and found.shape == logits.shape[1:]
        np.testing.assert_array_equal(np.asarray(mask.convert("RGB")), voc.palette()[found])
        high, chosen = logits.max(0), np.take_along_axis(logits, found[None].astype(int), 0)[0]
        assert (high - chosen).max() <= 1e-4 * np.abs(logits).max()
        shares = sorted(((found == i).mean(), names[i]) for i in range(4))[::-1]
        assert [part["share"] for part in row["top"]] == [share for share, _ in shares if share][:3]
        assert f"{100 * shares[0][0]:.2f} %  {shares[0][1]}" in said
    with (tmp_path / "a.csv").open() as file:
        assert next(csv.reader(file)) == ["image", "rank", "index", "class", "share"]


def test_the_crf_refines_what_the_network_says(monkeypatch, tmp_path, twin, weights, pictures):
    seen = []

    def one_sided(likely, image):
        seen.append((likely, image))
        return np.eye(4, dtype=np.float32)[np.full(image.shape[:2], 2)]

    monkeypatch.setattr("jaxzoo.commands.tasks.segmentation.mean_field", one_sided)
    command = ["predict", pictures / "a.png", "--model", NAME, "--weights", weights, "--crf", "--out", tmp_path / "out"]
    assert run(*command) == 0
    ((likely, image),) = seen
    assert image.shape == (64, 82, 3)  # as the network saw it, for it is the smaller of the two
    np.testing.assert_allclose(np.asarray(likely).sum(-1), 1, rtol=1e-5)
    assert (np.asarray(Image.open(tmp_path / "out" / "a.png")) == 2).all()


def test_overlays_have_a_legend_of_the_classes_that_are_there():
    mask = np.repeat([[0] * 20 + [2] * 30], 40, 0).astype(np.uint8)
    sheet = np.asarray(overlaid(Image.new("RGB", (50, 40), (9, 9, 9)), mask, ["nothing", "cat", "dog"]))
    middle = sheet[:40, 95:145]
    assert (middle[:, :20] == 9).all() and (middle[:, 20:] == voc.overlay(np.full((1, 1, 3), 9), np.array([[2]]))).all()
    below = {tuple(pixel) for pixel in sheet[40:].reshape(-1, 3).tolist()}
    colours = [tuple(colour) for colour in voc.palette().tolist()]
    assert colours[2] in below and colours[1] not in below


def test_options_of_the_other_task_are_refused(capsys, tmp_path, weights, pictures):
    def refused(*options: object) -> str:
        assert run("predict", pictures, *options) == 2
        said = capsys.readouterr()
        assert not said.out
        return said.err

    mine = ["--model", NAME, "--weights", weights]
    assert "--out FOLDER" in refused(*mine)
    assert "--out FOLDER" in refused(*mine, "--annotate", tmp_path / "a")
    assert "exists already" in refused(*mine, "--out", tmp_path)
    other = ["--model", "resnet18", "--weights", "a.pth"]
    assert "--crf is an option of other tasks, and resnet18 is for classification" in refused(*other, "--crf")
    assert "--out is an option of other tasks" in refused(*other, "--out", tmp_path / "a")


def test_images_are_seen_at_their_own_size_where_weights_were_evaluated_so():
    picture = Image.new("RGB", (90, 70))
    sizes = {resize: resized(lambda x: x, Preprocess(35, resize), picture).size for resize in (0, None, 140)}
    assert sizes == {0: (90, 70), None: (45, 35), 140: (180, 140)}


def test_maps_are_of_a_class_in_the_whole_image_or_in_a_box(capsys, tmp_path, weights, pictures):
    command = ["inspect", "cam", pictures / "a.png", "--model", NAME, "--weights", weights, "--class", "dog"]
    found = []
    for number, options in enumerate(([], ["--box", 0, 0, 45, 70], ["--box", 45, 0, 90, 70])):
        files = ["--out", tmp_path / f"{number}.png", "--arrays", tmp_path / f"{number}.npz"]
        assert run(*command, *options, *files) == 0
        found.append(np.load(tmp_path / f"{number}.npz")[f"{pictures / 'a.png'}:2"])
    said = capsys.readouterr().out
    assert "dog (2), " in said and "% of the pixels in the box" in said and "grad-cam of backbone.16, 4 × 6" in said
    assert all(values.shape == (4, 6) for values in found)
    assert not np.allclose(found[1], found[2])
    assert run(*command, "--box", 200, 0, 300, 70, "--out", tmp_path / "c.png") == 2
    assert "no pixel is in --box" in capsys.readouterr().err


def test_the_usual_class_is_not_the_background(weights):
    logits = np.zeros((1, 2, 3, 4), np.float32)
    logits[..., 0], logits[0, 0, 0, 3] = 1, 2
    (target,) = targets(logits, ["nothing", "cat", "dog", "eel"], [], None)
    assert target.text == "eel (3), 16.7 % of the pixels"
    (target,) = targets({"out": logits[:, 1:]}, ["nothing", "cat", "dog", "eel"], [], None)
    assert target.text == "nothing (0), 100.0 % of the pixels"
