"""`jaxzoo generate` and `jaxzoo reconstruct`, as people call them."""

import numpy as np
import pytest
from PIL import Image

from tests.jaxzoo.test_commands import refused, run
from tests.train.launch import train
from train.data.sources import binary_digits
from train.reporting import records


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A short run of each of a few models."""
    place = tmp_path_factory.mktemp("runs")
    for name, epochs in (("vae", 2), ("rbm", 1), ("denoising_autoencoder", 5)):
        noise = ("--model-args", "corruption=salt_and_pepper", "level=0.3") if name.startswith("denoising") else ()
        options = (f"--model={name}", f"--epochs={epochs}", "--batch-size=16", *noise)
        train(*options, "--out", place / name, PLAIN=1, SAMPLING=50)
    return place


def test_denoising_beats_no_denoising(runs):
    """Of held-out digits in which 15 % of the pixels are turned over, after five epochs."""
    last = records.read(runs / "denoising_autoencoder" / "metrics.csv")[-1]
    assert last["val_noisy_error"] == pytest.approx(0.15, abs=0.01)
    assert last["val_denoised_error"] < 0.6 * last["val_noisy_error"]


@pytest.mark.parametrize("name", ["vae", "rbm"])
def test_samples_come_on_a_sheet_and_by_seed(runs, name, tmp_path, capsys):
    for file, seed in (("a", 1), ("b", 1), ("c", 2)):
        out = tmp_path / f"{file}.png"
        assert run("generate", "--weights", runs / name, "--count", 10, "--seed", seed, "--out", out) == 0
    assert f"10 images of {name}: {tmp_path / 'a.png'}" in capsys.readouterr().out
    a, b, c = (np.asarray(Image.open(tmp_path / f"{file}.png")) for file in "abc")
    assert a.shape == (6 * (3 * 9 - 1), 6 * (4 * 9 - 1), 3)  # 3 rows of 4, every pixel six times
    assert np.array_equal(a, b) and not np.array_equal(a, c) and a.std() > 10


def test_a_folder_of_noisy_images_is_cleaned(runs, tmp_path, capsys):
    (tmp_path / "noisy").mkdir()
    draws, errors = np.random.default_rng(0), []
    for i in range(5):
        clean = np.asarray(binary_digits.load().held_out[i][0])[..., 0] / 255
        noisy = np.where(draws.random((8, 8)) < 0.15, 1 - clean, clean)
        Image.fromarray((255 * noisy).astype(np.uint8)).save(tmp_path / "noisy" / f"{i}.png")
        errors.append((clean, noisy))
    (tmp_path / "noisy" / "broken.png").write_bytes(b"no image")
    options = ("--weights", runs / "denoising_autoencoder", "--batch-size", 2, "--out", tmp_path / "clean")
    assert run("reconstruct", tmp_path / "noisy", *options) == 1  # one is broken
    said = capsys.readouterr()
    assert said.out.count("squared error of a pixel 0.") == 5 and "broken.png" in said.err
    found = [np.asarray(Image.open(tmp_path / "clean" / f"{i}.png"))[..., 0] / 255 for i in range(5)]
    before, after = (
        np.mean([np.square(side - clean).mean() for side, (clean, _) in zip(sides, errors, strict=True)])
        for sides in ([noisy for _, noisy in errors], found)
    )
    assert after < before


def test_what_cannot_be_done_is_said_in_a_sentence(runs, tmp_path, capsys):
    autoencoder = runs / "denoising_autoencoder"
    assert "not to draw new ones: vae, rbm and dbn do" in refused(capsys, "generate", "--weights", autoencoder)
    assert "it must be at least 1" in refused(capsys, "generate", "--weights", runs / "vae", "--count", 0)
    words = refused(capsys, "predict", tmp_path, "--model", "vae", "--weights", runs / "vae")
    assert "there is no image" in words or "holds no images" in words
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    words = refused(capsys, "predict", tmp_path / "a.png", "--model", "vae", "--weights", runs / "vae")
    assert "`jaxzoo reconstruct` and `jaxzoo generate` take it" in words
