"""The first segmentation networks: what they start from, their sizes, their widths, their scales."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import convert
import jaxzoo
from convert.dialects.deeplab_pytorch import V2
from convert.files import write
from convert.heads import heads_of
from convert.loading import load_part
from convert.names import located
from convert.rules import leaves
from convert.shapes import abstract, default_shapes, shapes_of
from convert.twins import abstract_twin, build_twin
from convert.weights import Weights
from jaxzoo.nn import resize
from jaxzoo.segmentation.deeplabv2 import DeepLabV2
from jaxzoo.segmentation.fcn_vgg import upscore
from tests.compare import quickly

NAMES = ["fcn32s", "fcn16s", "fcn8s", "deeplabv1_vgg16", "deeplabv2_resnet101"]
WITH_WIDTH = NAMES[:4]
run = jax.jit(lambda model, x: model(x), compiler_options=quickly(0))


def narrow(name: str, **arguments) -> nnx.Module:
    return jaxzoo.create_model(name, width=1 / 16, num_classes=3, **arguments)


@pytest.mark.parametrize("stride", [2, 8, 16])
def test_scores_are_first_enlarged_by_linear_interpolation(stride):
    x = np.random.default_rng(0).standard_normal((2, 5, 4, 3)).astype(np.float32)
    larger = upscore(3, stride, nnx.Rngs(0))(x)[:, stride // 2 : -stride // 2, stride // 2 : -stride // 2]
    inside = slice(stride, -stride)  # at the border, zeros follow the last score
    expected = resize(jnp.asarray(x), scale_factor=stride, mode="bilinear")
    np.testing.assert_allclose(larger[:, inside, inside], expected[:, inside, inside], atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (31, 64), (33, 500)])
@pytest.mark.parametrize("name", WITH_WIDTH)
def test_logits_have_the_size_of_the_image_whatever_it_is(name, size):
    logits = nnx.eval_shape(lambda: narrow(name)(jnp.zeros((2, *size, 3))))
    assert {key: y.shape for key, y in logits.items()} == {"out": (2, *size, 3)}


@pytest.mark.parametrize("name", WITH_WIDTH)
def test_narrow_networks_are_those_of_the_twin(name):
    arguments = {"width": 0.3, "num_classes": 5}
    twin = abstract_twin(jaxzoo.card(name), **arguments).state_dict()
    assert shapes_of(abstract(name, **arguments)) == {key: tuple(tensor.shape) for key, tensor in twin.items()}


@pytest.mark.parametrize("name", WITH_WIDTH)
def test_dropout_is_as_strong_as_the_twins(name):
    def rates(modules) -> list[float]:
        return [module.p for module in modules if "Dropout" in type(module).__name__]

    with torch.device("meta"):
        twin = build_twin(jaxzoo.card(name), dropout=0.3, width=0.1)
    ours = abstract(name, dropout=0.3, width=0.1)
    assert rates(m for _, m in nnx.iter_modules(ours)) == rates(twin.modules()) == [0.3, 0.3]


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_tells_its_number_of_classes(name):
    assert heads_of(name, shapes_of(abstract(name, num_classes=9)), {}).classes == 9


# what a part leaves behind, and what is left to start fresh
PARTS = {
    ("fcn32s", "vgg16"): ({"classifier.6"}, {"score_fr", "upscore"}),
    ("fcn16s", "fcn32s"): ({"upscore"}, {"score_pool4", "upscore2", "upscore16"}),
    ("fcn8s", "fcn16s"): ({"upscore16"}, {"score_pool3", "upscore8", "upscore_pool4"}),
    ("deeplabv1_vgg16", "vgg16"): ({"classifier.0", "classifier.3", "classifier.6"}, {"fc6", "fc7", "fc8"}),
    ("deeplabv2_resnet101", "resnet101"): ({"fc"}, {f"base.aspp.c{i}" for i in range(4)}),
}


@pytest.mark.parametrize(("name", "part"), PARTS)
def test_parts_fit_in_names_and_numbers(name, part):
    there, here = default_shapes(part), default_shapes(name)
    moved = {}
    for old, new in jaxzoo.card(name).parts[part].items():
        moved |= {key: new + key.removeprefix(old) for key in there if key.startswith(old)}
    found = {key: new for key, new in moved.items() if new in here and np.prod(here[new]) == np.prod(there[key])}
    left = {key.rpartition(".")[0] for key in there.keys() - found.keys()}
    fresh = {key.rpartition(".")[0] for key in here.keys() - found.values()}
    assert (left, fresh) == PARTS[name, part]
    assert len({*found.values()}) == len(found)


def test_each_stage_goes_on_where_the_one_before_has_ended(tmp_path):
    x = np.random.default_rng(1).standard_normal((1, 64, 64, 3)).astype(np.float32)
    model = narrow("fcn32s")
    model.score_fr.kernel[...] = np.random.default_rng(0).standard_normal((1, 1, 256, 3)).astype(np.float32)
    coarse = np.asarray(run(model, x)["out"])
    for name in ("fcn16s", "fcn8s"):
        write(tmp_path / "before.safetensors", convert.state_dict(model))
        model = narrow(name, seed=1)
        assert "score_pool" in load_part(model, name, tmp_path / "before.safetensors")
        finer = np.asarray(run(model, x)["out"])  # what is new has no say yet, and two interpolations are almost one
        assert np.corrcoef(finer.ravel(), coarse.ravel())[0, 1] > 0.99
        (tmp_path / "before.safetensors").unlink()


def test_three_scales_count_in_training_and_their_largest_logits_in_evaluation():
    model = DeepLabV2((1, 1, 1, 1), num_classes=3, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).standard_normal((1, 65, 81, 3)).astype(np.float32)
    model.eval()
    assert [*run(model, x)] == ["out"]
    model.deterministic = False
    logits = run(model, x)
    assert {key: y.shape for key, y in logits.items()} == dict.fromkeys(
        ("out", "scale1", "scale0.5", "scale0.75"), (1, 65, 81, 3)
    )
    assert (logits["out"] >= logits["scale1"]).all()
    assert (logits["out"] > logits["scale1"]).any()
    alone = DeepLabV2((1, 1, 1, 1), num_classes=3, scales=(), rngs=nnx.Rngs(0))
    alone.eval()
    np.testing.assert_allclose(run(alone, x)["out"], logits["scale1"], atol=1e-5)


@pytest.mark.parametrize("prefix", ["scale.", ""])
def test_earlier_names_of_the_port_are_read(prefix):
    ours = {
        leaf.key: np.broadcast_to(np.float32(0), leaf.torch_shape)
        for leaf in leaves(abstract("deeplabv2_resnet101", num_classes=182))
    }
    earlier = {
        prefix + key.removeprefix("base.").replace("shortcut", "proj").replace("aspp.", "aspp.stages."): array
        for key, array in ours.items()
    }
    assert not earlier.keys() & ours.keys()
    read = located("deeplabv2_resnet101", Weights("earlier.pth", earlier))
    assert read.dialect == "deeplab-pytorch"
    assert {k: a.shape for k, a in read.tensors.items()} == {k: a.shape for k, a in ours.items()}
    assert V2.write(ours).keys() == {key if prefix else f"scale.{key}" for key in earlier}


def test_training_moves_what_started_at_zero():
    model = narrow("fcn8s")
    x = np.random.default_rng(0).standard_normal((1, 33, 33, 3)).astype(np.float32)

    def loss(model):
        return jnp.square(model(x)["out"] - 1).mean()

    gradient = nnx.to_flat_state(nnx.jit(nnx.grad(loss))(model))
    moved = {path[0] for path, g in gradient if jnp.abs(g.get_value()).max() > 0}
    assert moved == {"score_fr", "score_pool4", "score_pool3"}  # in the first step; what comes after them follows
    assert jax.tree.all(jax.tree.map(lambda a: bool(jnp.isfinite(a).all()), nnx.state(model, nnx.Param)))
