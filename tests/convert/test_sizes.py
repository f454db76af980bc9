"""Weights for images of another size or of other channels, and for features alone, as the references make them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from timm.layers import resize_rel_pos_bias_table
from timm.models._manipulate import adapt_input_conv
from torchvision.models import vision_transformer

import convert
from convert.fitting import fit_weights
from convert.shapes import shapes_at
from convert.weights import Weights
from jaxzoo import UsageError
from jaxzoo.classification.swin_transformer import ShiftedWindowAttention
from jaxzoo.classification.vision_transformer import interpolate_embeddings
from jaxzoo.nn.resize import resized_array

NAME = "vit_b_16"
SMALL = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 12, "num_classes": 3}
TABLE = "encoder.pos_embedding"


def state(image_size: int, dtype=np.float32) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = shapes_at(NAME, SMALL | {"image_size": image_size})
    return {key: random.standard_normal(shape).astype(dtype) for key, shape in shapes.items()}


def by_torchvision(image_size: int, given: dict[str, np.ndarray], **options) -> dict[str, torch.Tensor]:
    return vision_transformer.interpolate_embeddings(
        image_size, 16, {key: torch.from_numpy(array) for key, array in given.items()}, **options
    )


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("old", "new"), [(224, 384), (64, 32), (48, 48), (96, 16), (16, 64)])
def test_positions_are_interpolated_as_torchvision_does(old, new, mode):
    given = {
        TABLE: np.random.default_rng(0).standard_normal((1, (old // 16) ** 2 + 1, 5)),
        "heads.head.bias": np.ones(2),
    }
    for reset in (False, True):
        ours = interpolate_embeddings(new, 16, given, mode, reset_heads=reset)
        theirs = by_torchvision(new, given, interpolation_mode=mode, reset_heads=reset)
        assert ours.keys() == theirs.keys()
        np.testing.assert_allclose(ours[TABLE], theirs[TABLE].numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("old", "new"), [(7, 12), (7, 8), (12, 7), (3, 4), (2, 5)])
def test_swins_position_biases_are_resampled_as_timm_does(old, new):
    table = np.random.default_rng(0).standard_normal(((2 * old - 1) ** 2, 3)).astype(np.float32)
    ours = ShiftedWindowAttention.resampled["relative_position_bias_table"](table, ((2 * new - 1) ** 2, 3))
    theirs = resize_rel_pos_bias_table(torch.from_numpy(table), (new, new), ((2 * new - 1) ** 2, 3))
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=2e-5)


def test_swin_is_read_for_windows_of_another_size():
    shapes = shapes_at("swin_t", {"num_classes": 3})
    tensors = {key: np.random.default_rng(0).standard_normal(shape, np.float32) for key, shape in shapes.items()}
    fit = fit_weights("swin_t", Weights(Path("swin.pth"), tensors), window_size=(8, 8))
    key = "features.1.0.attn.relative_position_bias_table"
    theirs = resize_rel_pos_bias_table(torch.from_numpy(tensors[key]), (8, 8), (225, 3))
    np.testing.assert_allclose(fit.tensors[key], theirs.numpy(), rtol=0, atol=2e-5)
    assert "resampled for windows of another size" in fit.notes[0]
    assert fit.tensors["features.1.0.attn.relative_position_index"].shape == (64 * 64,)


def test_positions_that_are_no_square_are_refused():
    with pytest.raises(UsageError, match="no class token and a square grid"):
        interpolate_embeddings(64, 16, {TABLE: np.ones((1, 7, 4))})


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(7, 9), (3, 2), (1, 1), (5, 6)])
def test_bicubic_equals_torchs(size, align_corners):
    x = np.random.default_rng(0).standard_normal((2, 5, 6, 3))
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(x).permute(0, 3, 1, 2), size, mode="bicubic", align_corners=align_corners
    )
    np.testing.assert_allclose(resized_array(x, size, "bicubic", align_corners), theirs.permute(0, 2, 3, 1), atol=1e-12)


def test_weights_are_resampled_where_another_image_size_is_asked_for(tmp_path):
    given = state(64)
    torch.save({key: torch.from_numpy(array) for key, array in given.items()}, tmp_path / "vit.pth")
    layers = {key: value for key, value in SMALL.items() if key != "num_classes"}
    with pytest.warns(UserWarning, match=r"vit\.pth: resampled for images of another size: encoder\.pos_emb"):
        model = convert.load(NAME, tmp_path / "vit.pth", image_size=96, **layers)
    found, expected = convert.state_dict(model), by_torchvision(96, {key: a.astype(float) for key, a in given.items()})
    assert found.keys() == expected.keys() and model.image_size == 96
    for key, tensor in expected.items():
        np.testing.assert_allclose(found[key], tensor, rtol=0, atol=1e-6)
    own = fit_weights(NAME, Weights(Path("vit.pth"), given), **layers)
    assert own.arguments["image_size"] == 64 and own.notes == []


@pytest.fixture(scope="module")
def gray_or_color(tmp_path_factory):
    """A LeNet for three channels: its file and tensors."""
    random = np.random.default_rng(0)
    tensors = {key: random.standard_normal(shape).astype(np.float32) for key, shape in shapes_at("lenet5", {}).items()}
    path = tmp_path_factory.mktemp("lenet") / "lenet.pth"
    torch.save({key: torch.from_numpy(array) for key, array in tensors.items()}, path)
    return path, tensors


@pytest.mark.parametrize(
    ("argument", "channels"), [("in_channels", 1), ("in_chans", 2), ("in_chans", 4), ("in_channels", 7)]
)
def test_the_first_kernel_is_made_for_other_channels_as_timm_does(gray_or_color, argument, channels):
    path, tensors = gray_or_color
    with pytest.warns(UserWarning, match=f"c1.weight made for {channels} channels instead of 3"):
        found = convert.state_dict(convert.load("lenet5", path, **{argument: channels}))
    expected = adapt_input_conv(channels, torch.from_numpy(tensors["c1.weight"])).numpy()
    np.testing.assert_array_equal(found["c1.weight"], expected)
    assert all(np.array_equal(found[key], array) for key, array in tensors.items() if key != "c1.weight")


def test_the_channels_are_read_from_the_weights(gray_or_color):
    weights = Weights(Path("a.pth"), gray_or_color[1] | {"c1.weight": np.ones((6, 5, 5, 5), np.float32)})
    assert fit_weights("lenet5", weights).arguments["in_channels"] == 5


def test_features_alone_leave_the_head_out_without_complaint(gray_or_color, tmp_path, recwarn):
    path, tensors = gray_or_color
    replaced = {key: t for key, t in torch.load(path).items() if not key.startswith("output")}
    torch.save(replaced | {"output.1.weight": torch.ones(9, 84)}, tmp_path / "replaced.pth")
    for file in (path, tmp_path / "replaced.pth"):
        found = convert.state_dict(convert.load("lenet5", file, num_classes=0))
        assert found.keys() == {key for key in tensors if not key.startswith("output")}
        assert all(np.array_equal(array, tensors[key]) for key, array in found.items())
    assert not recwarn.list
