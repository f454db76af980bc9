"""Networks as backbones: features without a classifier, images of any number of channels."""

import math

import jax
import jax.numpy as jnp
import pytest
import timm
import torch
from flax import nnx

import convert
import jaxzoo
from convert.shapes import abstract, shapes_of
from convert.twins import build_twin, randomise
from jaxzoo import UsageError, create_model
from jaxzoo.model_size import stored
from tests.compare import arrays, cast, close, normal

# Where timm has the architecture under another name: what its num_classes=0 returns has as many numbers.
IN_TIMM = {
    "vgg11": "vgg11",
    "mobilenet_v3_small": "mobilenetv3_small_100",
    "convnext_tiny": "convnext_tiny",
    "vit_b_32": "vit_base_patch32_224",
}
# Of the others, what is left before the last layer with weights.
WITHOUT_TIMM = {"alexnet": 4096, "squeezenet1_1": 512, "googlenet": 1024, "lenet5": 84}


def smallest_of_each_family() -> list[str]:
    """But for those that give back as many channels as they see."""
    families = {}
    names = [name for name in jaxzoo.list_models() if jaxzoo.card(name).task != "reconstruction"]
    for name in sorted(names, key=lambda name: stored()[name].parameters):
        families.setdefault(jaxzoo.card(name).builder.__module__, name)
    return sorted(families.values())


@pytest.mark.parametrize("name", smallest_of_each_family())
def test_only_the_first_convolution_sees_more_channels_and_only_the_classifier_is_left_out(name):
    headless = jaxzoo.card(name).task == "classification" and name not in ("googlenet", "inception_v3")
    model = abstract(name, in_channels=5, **{"num_classes": 0} if headless else {})
    shapes = shapes_of(model)
    first = next(shape for shape in shapes.values() if len(shape) == 4)
    assert first[1] == 5
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    left_out = stored()[name].parameters - (parameters - math.prod(first) * 2 // 5)
    classes = 10 if name == "lenet5" else 1000
    assert (left_out > 0 and left_out % classes == 0) if headless else left_out == 0


@pytest.mark.parametrize("name", [*IN_TIMM, *WITHOUT_TIMM])
def test_features_are_as_many_as_timms(name):
    model = abstract(name, num_classes=0, in_chans=1)
    model.train()  # auxiliary heads are gone too
    y = nnx.eval_shape(lambda model, x: model(x), model, jaxzoo.card(name).example_inputs(2, in_channels=1))
    if name in IN_TIMM:
        with torch.device("meta"):
            twin = timm.create_model(IN_TIMM[name], num_classes=0, in_chans=1).eval()
            assert y.shape == twin(torch.zeros(2, 1, 224, 224)).shape
    else:
        assert y.shape == (2, WITHOUT_TIMM[name])


@pytest.mark.parametrize("name", ["mobilenetv1_100", "resnet18"])
def test_features_of_gray_images_equal_the_twins(name):
    """With all weights but the head's, for which the model has no place."""
    if name == "resnet18":
        twin = build_twin(jaxzoo.card(name))
        twin.conv1, twin.fc = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False), torch.nn.Identity()
    else:
        twin = timm.create_model(name, num_classes=0, in_chans=1).eval()
    randomise(twin.double(), seed=0)
    model = cast(abstract(name, num_classes=0, in_channels=1), jnp.float64)
    convert.load_state_dict(model, arrays(twin))
    nnx.reseed(model, dropout=0)
    images = normal(2, 39, 33, 1)
    features = jax.jit(lambda model, x: model(x))(model, images)
    close(features, twin(torch.tensor(images).permute(0, 3, 1, 2)), bound=1e-9)


def test_the_first_convolution_starts_by_what_it_sees():
    """ViT's by a formula of its own, the bias of torch's default by the fan-in, others by their fan-out."""

    @jax.jit  # so that nothing else is drawn
    def draw():
        vit, mnasnet = create_model("vit_b_32", in_channels=1), create_model("mnasnet0_5", in_channels=300)
        alexnet = create_model("alexnet", in_channels=12)
        return vit.conv_proj.kernel[...], mnasnet.layers[0].kernel[...], alexnet.features[0].bias[...]

    vit, mnasnet, alexnet = draw()
    assert float(vit.std()) == pytest.approx(1 / 32, rel=0.02)
    assert float(mnasnet.std()) == pytest.approx((2 / (16 * 9)) ** 0.5, rel=0.02)  # by fan-out: whatever the channels
    assert 0.8 / 12**0.5 / 11 < float(abs(alexnet).max()) < 1 / 12**0.5 / 11


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_images_that_cannot_come_from_imagenets_range_are_refused(name):
    with pytest.raises(UsageError, match="transform_input=True is for RGB images, not for 4 channels; give"):
        nnx.eval_shape(lambda: create_model(name, transform_input=True, in_channels=4))


def test_impossible_backbones_are_refused_in_a_sentence():
    with pytest.raises(
        UsageError,
        match=r"fcn8s is for segmentation: num_classes=0 is for classification, jaxzoo.feature_extractor gives",
    ):
        create_model("fcn8s", num_classes=0)
    for channels in (0, 1.5, "3", True):
        with pytest.raises(UsageError, match=r"in_channels is .*; it must be a whole number ≥ 1"):
            create_model("lenet5", in_chans=channels)
