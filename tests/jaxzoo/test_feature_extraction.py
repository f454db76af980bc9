"""Feature extractors return what torchvision's return, and are modules like any other."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torchvision
from flax import nnx
from torchvision.models.feature_extraction import create_feature_extractor

import convert
import jaxzoo
from convert.shapes import abstract
from convert.twins import build_twin, randomise
from jaxzoo import UsageError, feature_extractor
from jaxzoo.classification.resnet import BasicBlock, ResNet
from jaxzoo.nn import Conv, Identity, ReLU, Sequential
from tests.compare import arrays, cast, close, normal

MODELS = {
    "resnet18": {"relu": "c1", "layer1.0.relu_1": "inner", "layer2.0.downsample.1": "shortcut", "layer2": "c3"},
    "mobilenet_v3_small": ["features.3", "features.4.block.2"],
    "convnext_tiny": ["features.0", "features.1.0.block.5", "features.1.1"],
    "vit_b_16": {"conv_proj": "patches", "encoder.layers.encoder_layer_0.mlp": "mlp", "encoder": "tokens"},
    "swin_t": ["features.0", "features.1.1", "features.2.norm"],
    "efficientnet_b0": {"features.2.1.stochastic_depth": "branch", "features.2": "c2"},
}


@pytest.mark.parametrize("name", MODELS)
def test_outputs_equal_torchvisions(name):
    nodes, arguments = MODELS[name], {}
    if name == "vit_b_16":
        arguments = {
            "image_size": 64,
            "patch_size": 8,
            "num_layers": 1,
            "num_heads": 2,
            "hidden_dim": 16,
            "mlp_dim": 32,
        }
        twin = torchvision.models.VisionTransformer(**arguments).eval()
    else:
        twin = build_twin(jaxzoo.card(name))
    randomise(twin.double(), 0)
    model = cast(abstract(name, **arguments), jnp.float64)
    convert.load_state_dict(model, arrays(twin))
    nnx.reseed(model, dropout=0)
    images = normal(1, 64, 64, 3)
    expected = create_feature_extractor(twin, nodes)(torch.tensor(images).permute(0, 3, 1, 2))
    found = jax.jit(lambda extractor, x: extractor(x))(feature_extractor(model, nodes), images)
    assert found.keys() == expected.keys()
    for key, y in expected.items():  # Swin's are channels last there too
        close(found[key], y if y.shape == found[key].shape else y.permute(0, 2, 3, 1), key, bound=1e-9)


class Broken(nnx.Module):
    def __call__(self, x):
        raise AssertionError("this module is not needed")


@pytest.fixture(scope="module")
def resnet():
    model = ResNet(BasicBlock, (1, 1, 1, 1), num_classes=2, rngs=nnx.Rngs(0))
    model.eval()
    return model


def test_outputs_come_in_the_order_given_and_nothing_runs_that_they_do_not_need():
    model = Sequential(Conv(3, 2, 1, rngs=nnx.Rngs(0)), ReLU(), Identity(), Broken())
    found = feature_extractor(model, {"1": "b", "0": "a"})(-jnp.ones((1, 4, 4, 3)))
    assert list(found) == ["b", "a"]
    np.testing.assert_array_equal(found["b"], jnp.maximum(found["a"], 0))
    assert list(feature_extractor(model, "0")(jnp.ones((1, 4, 4, 3)))) == ["0"]
    with pytest.raises(AssertionError, match="not needed"):
        feature_extractor(model, ["3"])(jnp.ones((1, 4, 4, 3)))


def test_training_moves_the_statistics_that_torchvisions_moves():
    """Those of layers after the last output stay, as they are no longer part of the network there."""
    twin = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1]).double()
    randomise(twin, 0)
    for module in twin.modules():
        module.inplace = False  # or it returns what the next layer made of an output
    model = cast(ResNet(BasicBlock, (1, 1, 1, 1), rngs=nnx.Rngs(0)), jnp.float64)
    convert.load_state_dict(model, arrays(twin))
    images = normal(2, 32, 32, 3)
    nodes = {"layer1.0.bn1": "inner", "layer2": "c3"}
    expected = create_feature_extractor(twin, nodes, suppress_diff_warning=True).train()(
        torch.tensor(images).permute(0, 3, 1, 2)
    )
    extractor = feature_extractor(model, nodes)
    extractor.train()

    @jax.jit
    def step(extractor, x):
        extractor = nnx.clone(extractor)
        return extractor(x), extractor

    found, after = step(extractor, images)
    for key, y in expected.items():
        close(found[key], y.permute(0, 2, 3, 1), key, bound=1e-9)
    after = convert.state_dict(after)
    assert list(after) == list(twin.state_dict())
    for key, array in arrays(twin).items():
        close(after[key], array, key, bound=1e-9)
    assert after["layer2.0.bn2.num_batches_tracked"] == 1 and after["layer3.0.bn1.num_batches_tracked"] == 0


def test_an_extractor_is_a_module_like_any_other(resnet):
    extractor = feature_extractor(resnet, {"layer1": "a", "fc": "b"})
    x = jnp.ones((1, 32, 32, 3))
    run = jax.jit(lambda extractor, x: extractor(x))
    expected = run(extractor, x)
    graph, state = nnx.split(extractor)
    assert hash(graph) == hash(nnx.graphdef(feature_extractor(resnet, {"layer1": "a", "fc": "b"})))
    for copy in (
        nnx.merge(graph, state),
        nnx.clone(extractor),
        feature_extractor(extractor, {"layer1": "a", "fc": "b"}),
    ):
        jax.tree.map(np.testing.assert_array_equal, run(copy, x), expected)
        assert list(convert.state_dict(copy)) == list(convert.state_dict(resnet))
    np.testing.assert_array_equal(expected["b"], jax.jit(lambda model, x: model(x))(resnet, x))
    gradients = jax.jit(nnx.grad(lambda extractor, x: extractor(x)["a"].sum()))(extractor, x)
    sizes = {path: float(abs(leaf.get_value()).max()) for path, leaf in nnx.to_flat_state(gradients)}
    assert sizes["conv1", "kernel"] > 0 and sizes["fc", "kernel"] == 0
    extractor.train()
    assert resnet.bn1.use_running_average is False  # the parts are shared
    extractor.eval()


def test_threads_and_other_models_do_not_notice(resnet):
    x = jnp.ones((1, 32, 32, 3))
    shapes = {}

    def run(node):
        shapes[node] = [nnx.eval_shape(feature_extractor(resnet, [node]), x)[node].shape for _ in range(5)]

    threads = [threading.Thread(target=run, args=(node,)) for node in ("layer1", "layer2", "layer4", "avgpool")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {node: set(found) for node, found in shapes.items()} == {
        "layer1": {(1, 8, 8, 64)},
        "layer2": {(1, 4, 4, 128)},
        "layer4": {(1, 1, 1, 512)},
        "avgpool": {(1, 1, 1, 512)},
    }


def test_an_extractor_inside_a_model_can_itself_be_looked_into(resnet):
    class Detector(nnx.Module):
        def __init__(self):
            self.backbone = feature_extractor(resnet, {"layer1": "a", "layer2": "b"})
            self.head = Broken()

        def __call__(self, x):
            return self.head(self.backbone(x)["b"])

    x = jnp.ones((1, 32, 32, 3))
    found = nnx.eval_shape(feature_extractor(Detector(), {"backbone.conv1": "c", "backbone": "all"}), x)
    assert found["c"].shape == (1, 16, 16, 64) and found["all"]["b"].shape == (1, 4, 4, 128)
    assert nnx.eval_shape(feature_extractor(Detector(), ["backbone.bn1"]), x)["backbone.bn1"].shape == (1, 16, 16, 64)


@pytest.mark.parametrize(
    ("nodes", "sentence"),
    [
        (["layer5"], r"ResNet has no module 'layer5'; nearest: layer4"),
        (["layer1.0.flatten"], r"ResNet has no module 'layer1.0.flatten'"),
        ([""], "ResNet has no module ''"),
        ([], r"return_nodes is \[\]; it must name at least one output"),
        ({"layer1": "a", "layer2": "a"}, "and each differently"),
    ],
)
def test_wrong_nodes_are_refused_in_a_sentence(resnet, nodes, sentence):
    with pytest.raises(UsageError, match=sentence):
        feature_extractor(resnet, nodes)


def test_modules_that_return_nothing_are_refused_in_a_sentence(resnet):
    x = jnp.ones((1, 32, 32, 3))
    with pytest.raises(UsageError, match=r"layer1.0.relu_2 did not run in ResNet"):
        nnx.eval_shape(feature_extractor(resnet, ["layer1.0.relu_2"]), x)
    branches = nnx.List([Identity()])
    with pytest.raises(UsageError, match=r"'0' only holds modules and returns nothing; name one of them, such as 0.0"):
        feature_extractor(Sequential(branches), ["0"])
