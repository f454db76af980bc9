"""What segmentation models take beyond their defaults, which the parity ladder sees; and what they refuse."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
import torch
from flax import nnx
from torchvision.models import _utils, resnet, segmentation

import convert
import jaxzoo
from convert.rules import leaves
from convert.shapes import abstract, cast
from convert.twins import arrays, randomise, smp
from jaxzoo import UsageError
from jaxzoo.classification.resnet import Bottleneck, ResNet
from jaxzoo.segmentation.deeplabv3 import deeplabv3_resnet
from tests.compare import close, normal, to_last

SHALLOW = [1, 1, 1, 3]  # blocks of a ResNet's stages; the last one has a dilation of its own for each


def agree(model: nnx.Module, twin: torch.nn.Module, size: tuple[int, int]) -> None:
    """Both compute the same in eval mode, in float64; our model comes without numbers."""
    randomise(twin.double().eval(), seed=0)
    convert.load_state_dict(cast(model, jnp.float64), arrays(twin))
    nnx.reseed(model, dropout=0)
    model.eval()
    graphdef, state = nnx.split(model)
    x = normal(2, 3, *size)
    ours = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x)["out"])(state, jnp.asarray(to_last(x)))
    with torch.no_grad():
        theirs = twin(torch.from_numpy(x))
    theirs = theirs["out"] if isinstance(theirs, dict) else theirs
    assert ours.shape == (2, *size, 7)
    close(ours, to_last(theirs.numpy()), bound=1e-9)


@pytest.mark.parametrize(
    ("output_stride", "dilated", "multi_grid", "rates"),
    [
        (16, (False, False, True), (1, 2, 4), (6, 12, 18)),
        (8, (False, True, True), (1, 2, 1), (12, 24, 36)),
        (16, (False, False, True), None, (6, 12, 18)),
    ],
)
def test_deeplab_v3_with_multi_grid_is_torchvisions_with_these_dilations(output_stride, dilated, multi_grid, rates):
    torch.manual_seed(0)
    network = resnet.ResNet(resnet.Bottleneck, SHALLOW, replace_stride_with_dilation=dilated)
    for block, factor in zip(network.layer4, multi_grid or (), strict=False):
        rate = 32 // output_stride * factor
        block.conv2.dilation = block.conv2.padding = (rate, rate)
    backbone = _utils.IntermediateLayerGetter(network, {"layer4": "out"})
    twin = segmentation.DeepLabV3(backbone, segmentation.deeplabv3.DeepLabHead(2048, 7, rates))
    model = nnx.eval_shape(
        lambda: deeplabv3_resnet(
            partial(ResNet, Bottleneck, SHALLOW),
            num_classes=7,
            output_stride=output_stride,
            atrous_rates=rates,
            multi_grid=multi_grid,
            rngs=nnx.Rngs(0),
        )
    )
    agree(model, twin, (113, 49))


def test_deeplab_v3_plus_with_an_output_stride_of_8_is_the_references():
    torch.manual_seed(0)
    twin = smp.deeplabv3plus_mobilenet_v2(num_classes=7, output_stride=8)
    agree(abstract("deeplabv3plus_mobilenet_v2", num_classes=7, output_stride=8), twin, (56, 104))


@pytest.mark.parametrize(("size", "way_out"), [((40, 64), "48 × 64"), ((64, 65), "64 × 80"), ((1, 1), "16 × 16")])
def test_deeplab_v3_plus_refuses_sizes_that_the_reference_refuses(size, way_out):
    model = abstract("deeplabv3plus_mobilenet_v2")
    with pytest.raises(UsageError, match=f"{size[0]} × {size[1]} pixels.*multiples of 16.*{way_out}"):
        nnx.eval_shape(lambda: model(jnp.zeros((1, *size, 3))))
    with pytest.raises(RuntimeError, match="divisible by 16"):
        smp.deeplabv3plus_mobilenet_v2()(torch.zeros(1, 3, *size))


@pytest.mark.parametrize(
    ("name", "arguments", "named"),
    [
        ("deeplabv3plus_resnet50", {"output_stride": 32}, "output_stride is 32.*: 8, 16"),
        ("deeplabv3_resnet50", {"output_stride": 4}, "output_stride is 4.*: 8, 16, 32"),
        ("deeplabv3_resnet50", {"multi_grid": (1, 2)}, "multi_grid takes 3"),
        ("deeplabv3_resnet50", {"multi_grid": (0, 1, 2)}, "multi_grid takes 3.*from 1"),
    ],
)
def test_impossible_dilations_are_named(name, arguments, named):
    with pytest.raises(UsageError, match=named):
        nnx.eval_shape(lambda: jaxzoo.create_model(name, **arguments))


@pytest.mark.parametrize(
    ("dilations", "named"), [({"layer4": (1, 2)}, "layer4 has 3 blocks, not 2"), ({"layer5": 2}, "not of layer5")]
)
def test_impossible_dilations_of_a_resnet_are_named(dilations, named):
    with pytest.raises(ValueError, match=named):
        nnx.eval_shape(lambda: ResNet(Bottleneck, SHALLOW, dilations=dilations, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize("name", ["deeplabv3plus_mobilenet_v2", "deeplabv3plus_resnet101", "unet_resnet18"])
def test_an_encoder_is_all_of_a_classifier_but_its_head(name):
    ((part, prefixes),) = jaxzoo.card(name).parts.items()
    ((here, there),) = prefixes.items()
    theirs = {there + leaf.key.removeprefix(here): leaf.shape for leaf in leaves(abstract(part))}
    ours = {leaf.key: leaf.shape for leaf in leaves(abstract(name)) if leaf.key.startswith("encoder.")}
    assert ours and ours.items() <= theirs.items()
    assert len(theirs) - len(ours) == 2  # weight and bias of the head
