"""What reaches an output pixel, and the rule for dilations that leave no holes."""

import itertools
import math

import numpy as np
import pytest
from flax import nnx
from PIL import Image

from jaxzoo import UsageError, create_model, nn
from jaxzoo.__main__ import main
from jaxzoo.inspect import hybrid_dilation, receptive_field


def convolutions(*rates: int, stride: int = 1) -> nnx.Module:
    rngs = nnx.Rngs(0)
    layers = [nn.Conv(3, 3, 3, stride, padding=rate, dilation=rate, rngs=rngs) for rate in rates]
    model = nn.Sequential(*[part for layer in layers for part in (layer, nn.BatchNorm(3, rngs=rngs), nn.ReLU())])
    model.eval()
    return model


def reached(rates: tuple[int, ...], kernel_size: int) -> set[int]:
    """Along one axis, by trying every path."""
    taps = [[rate * tap for tap in range(-(kernel_size // 2), kernel_size // 2 + 1)] for rate in rates]
    return {sum(path) for path in itertools.product(*taps)}


@pytest.mark.parametrize("rates", [(1,), (2, 2, 2), (1, 2, 5), (1, 2, 9)])
def test_the_field_of_stacked_convolutions_is_what_their_paths_reach(rates):
    offsets = reached(rates, 3)
    field = receptive_field(convolutions(*rates), (41, 43))
    far = sum(rates)
    assert field.box == (20 - far, 21 - far, 21 + far, 22 + far)
    lines = [set((np.flatnonzero(field.influence.any(axis)) - middle).tolist()) for axis, middle in ((1, 20), (0, 21))]
    assert lines == [offsets, offsets]
    assert field.share == pytest.approx((len(offsets) / (2 * far + 1)) ** 2)
    assert field.influence.max() == 1


def test_strides_widen_the_field_and_maxima_count_every_path():
    rngs = nnx.Rngs(0)
    conv = nn.Conv(3, 64, 7, 2, padding=3, rngs=rngs)
    model = nn.Sequential(conv, nn.MaxPool(3, 2, 1), nn.Conv(64, 2, 3, padding=1, rngs=rngs))
    field = receptive_field(model, 64)
    top, left, bottom, right = field.box
    assert (bottom - top, right - left) == (19, 19)  # 7 + 2 · (3 − 1) + 4 · (3 − 1)
    assert field.share == 1


def test_deep_networks_do_not_run_out_of_digits():
    rngs = nnx.Rngs(0)
    model = nn.Sequential(*[nn.Conv(3 if i == 0 else 1, 1, 9, padding=4, rngs=rngs) for i in range(20)])
    field = receptive_field(model, 161, inputs=1)  # about 81^-20 = 7e-39 of the gradient comes to the corners
    assert field.box == (0, 0, 161, 161) and field.share == 1


def test_averages_of_the_whole_image_count_when_asked_to():
    rngs = nnx.Rngs(0)
    model = nn.Sequential(nn.SqueezeExcitation(3, 2, rngs=rngs), nn.Conv(3, 2, 3, padding=1, rngs=rngs))
    assert receptive_field(model, 15).box == (6, 6, 9, 9)
    assert receptive_field(model, 15, whole=True).box == (0, 0, 15, 15)


def test_the_model_stays_as_it_was_and_its_layers_can_be_chosen():
    model = convolutions(1, 3)
    before = np.asarray(model[0].kernel[...])
    assert receptive_field(model, 20, layer="0").box == (9, 9, 12, 12)
    np.testing.assert_array_equal(before, model[0].kernel[...])
    with pytest.raises(UsageError, match="no layer 'conv'"):
        receptive_field(model, 20, layer="conv")


def test_what_has_no_place_is_refused():
    model = create_model("squeezenet1_1")
    with pytest.raises(UsageError, match="no height and width"):
        receptive_field(model, 64)
    with pytest.raises(UsageError, match="nothing but averages") as found:
        receptive_field(model, 64, layer="classifier.3")
    assert found.value.on_command_line(["whole"]).endswith("; --whole counts them")


def test_rates_with_a_common_factor_or_too_far_apart_leave_holes():
    assert hybrid_dilation([1, 2, 5]) == (2, True)
    assert hybrid_dilation([1, 2, 9]) == (5, False)
    assert hybrid_dilation([2, 4, 8])[1] is False and hybrid_dilation((2, 2, 2)) == (2, False)
    assert hybrid_dilation([1, 2, 9], kernel_size=5).passes
    for rates in ([1], [], [1, 0], [1, 2.5]):
        with pytest.raises(UsageError, match="two positive whole numbers"):
            hybrid_dilation(rates)


def test_dilations_that_pass_after_a_dense_layer_leave_no_holes():
    passed = 0
    for kernel_size, rest in itertools.product((3, 5), itertools.product(range(1, 9), repeat=2)):
        if hybrid_dilation((1, *rest), kernel_size).passes:
            offsets = reached((1, *rest), kernel_size)
            assert len(offsets) == max(offsets) - min(offsets) + 1, (rest, math.prod(rest))
            passed += 1
    assert passed > 20


def test_the_command_says_and_draws_what_is_reached(capsys, tmp_path):
    command = ["inspect", "receptive-field", "squeezenet1_1", "--layer", "features.3", "--size", "64"]
    main([*command, "--out", str(tmp_path / "a.png")])
    out = capsys.readouterr().out
    assert "squeezenet1_1, features.3" in out and "15 × 15 pixels" in out and "225 of 225 are reached" in out
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    assert picture.shape == (514, 514, 3)
    red = (picture == (220, 38, 38)).all(-1)
    assert np.ptp(np.argwhere(red), 0).tolist() == [15 * 8 + 1] * 2
    with pytest.raises(SystemExit):
        main([*command, "--out", str(tmp_path / "a.png")])
    assert "exists already" in capsys.readouterr().err


def test_images_may_have_another_number_of_channels():
    assert receptive_field(nn.Conv(1, 2, 3, padding=1, rngs=nnx.Rngs(0)), 9, channels=1).box == (3, 3, 6, 6)
