"""Images are prepared to torchvision's and timm's pixels."""

import dataclasses
import math
from typing import ClassVar

import numpy as np
import pytest
import timm
import torchvision
from PIL import Image
from torchvision.transforms._presets import ImageClassification

import jaxzoo
from jaxzoo import Preprocess, UsageError, eval_transform
from jaxzoo.preprocess import KINDS, from_dict, to_dict


def published(package: str) -> list:
    """A model that classifies and its weights for each eval transform among those that a package published."""
    found = {}
    for name in jaxzoo.list_models(task="classification"):
        if jaxzoo.card(name).twin.startswith(f"{package}:"):
            for weights, entry in jaxzoo.card(name).weights.items():
                found.setdefault(entry.preprocess, pytest.param(name, weights, id=f"{name}-{weights}"))
    return list(found.values())


SIZES = [(333, 251), (250, 377), (224, 224), (97, 61), (31, 640), (1, 3)]


def noise(width: int, height: int, channels: int = 3) -> np.ndarray:
    """Smooth colours under noise, 8 bits."""
    rng = np.random.default_rng([width, height])
    waves = 100 * np.sin(np.arange(height)[:, None, None] / 9 + np.arange(width)[:, None] / 7 + np.arange(channels))
    return np.clip(128 + waves + rng.normal(0, 30, (height, width, channels)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("name", "weights"), published("torchvision"))
def test_the_eval_transform_equals_torchvisions_bit_for_bit(name, weights):
    theirs = torchvision.models.get_model_weights(name)[weights].transforms()
    for size in SIZES:
        image = Image.fromarray(noise(*size))
        ours = eval_transform(image, jaxzoo.card(name).weights[weights].preprocess)
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, theirs(image).permute(1, 2, 0).numpy())


@pytest.mark.parametrize(("name", "weights"), published("timm"))
def test_the_eval_transform_equals_timms_bit_for_bit(name, weights):
    config = timm.get_pretrained_cfg(f"{jaxzoo.card(name).twin.removeprefix('timm:')}.{weights}")
    theirs = timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg=config.to_dict()))
    for size in SIZES:
        image = Image.fromarray(noise(*size))
        ours = eval_transform(image, jaxzoo.card(name).weights[weights].preprocess)
        np.testing.assert_array_equal(ours, theirs(image).permute(1, 2, 0).numpy())


@pytest.mark.parametrize("name", [n for n in jaxzoo.list_models() if jaxzoo.card(n).twin.startswith("timm:")])
def test_the_card_names_timms_transform(name):
    card = jaxzoo.card(name)
    for weights, entry in card.weights.items():
        config = timm.get_pretrained_cfg(f"{card.twin.removeprefix('timm:')}.{weights}").to_dict()
        theirs, ours = timm.data.resolve_data_config(pretrained_cfg=config), entry.preprocess
        assert theirs["input_size"] == (3, ours.crop, ours.crop) and theirs["crop_mode"] == "center"
        assert ours.resize == math.floor(ours.crop / theirs["crop_pct"])
        assert (ours.interpolation, ours.mean, ours.std) == (theirs["interpolation"], theirs["mean"], theirs["std"])


@pytest.mark.parametrize("size", [(51, 40), (40, 40), (40, 67), (41, 300)])
@pytest.mark.parametrize(("crop", "resize"), [(43, 40), (40, 43), (44, 41), (60, 20), (33, None)])
def test_a_crop_larger_than_the_image_is_padded_as_torchvision_does(size, crop, resize):
    theirs = ImageClassification(crop_size=crop, resize_size=resize or crop)
    image = Image.fromarray(noise(*size))
    ours = eval_transform(image, Preprocess(crop, resize))
    np.testing.assert_array_equal(ours, theirs(image).permute(1, 2, 0).numpy())


def test_preprocess_survives_a_manifest():
    p = Preprocess(224, 256, "bicubic", (0.5, 0.5, 0.5), (0.1, 0.2, 0.3))
    assert Preprocess(**to_dict(p)) == from_dict(to_dict(p)) == p


@dataclasses.dataclass(frozen=True)
class Clip:
    """Another kind of input, as a task of one's own may have it."""

    frames: int
    kind: ClassVar[str] = "clip"


def test_a_manifest_says_which_kind_of_preparation_it_has(monkeypatch):
    values = to_dict(Clip(16))
    assert values == {"kind": "clip", "frames": 16}
    with pytest.raises(UsageError, match="unknown preparation of inputs 'clip'"):
        from_dict(values)
    monkeypatch.setitem(KINDS, "clip", Clip)
    assert from_dict(values) == Clip(16)
