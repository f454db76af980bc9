"""`jaxzoo.inspect`: stages, feature vectors, parameters and what changed of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import cosine_similarity

import jaxzoo
from jaxzoo import inspect, nn
from jaxzoo.inspect.drawing import bars, kernel_pictures, map_picture
from jaxzoo.inspect.maps import calls_of, fine_layer, first_kernel
from jaxzoo.inspect.plane import thumbnails


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("resnet18", ["bn1", "layer1", "layer2", "layer3", "layer4"]),
        ("mobilenet_v2", ["features.1", "features.3", "features.6", "features.13", "features"]),
        ("swin_t", ["features.1", "features.3", "features.5", "norm"]),
    ],
)
def test_a_stage_ends_with_the_last_map_of_a_size(name, found):
    model = nnx.eval_shape(lambda: jaxzoo.create_model(name))
    assert inspect.stages(model, jaxzoo.card(name).example_inputs()) == found


def test_the_stages_of_a_vit_are_some_of_its_blocks():
    model = nnx.eval_shape(lambda: jaxzoo.create_model("vit_b_16"))
    found = inspect.stages(model, jaxzoo.card("vit_b_16").example_inputs())
    assert found == [f"encoder.layers.encoder_layer_{i}" for i in (0, 2, 4, 7, 9, 11)]


def test_a_map_of_a_few_places_gives_way_to_an_earlier_one():
    model = nnx.eval_shape(lambda: jaxzoo.create_model("resnet18"))
    for side, layer in ((32, "layer2"), (64, "layer3"), (128, "layer4")):
        assert fine_layer(model, jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32), "layer4") == layer


def test_the_first_kernel_is_that_of_the_layer_that_runs_first():
    for name, path in (("vit_b_16", "conv_proj"), ("densenet121", "features.conv0"), ("lenet5", "c1")):
        model = nnx.eval_shape(lambda name=name: jaxzoo.create_model(name))
        assert first_kernel(model, calls_of(model, jaxzoo.card(name).example_inputs())) == path


def test_what_is_no_network_of_images_has_no_stages():
    with pytest.raises(jaxzoo.UsageError, match="Linear has no layer that gives a map"):
        inspect.stages(nn.Linear(3, 4, rngs=nnx.Rngs(0)), jnp.ones((1, 3)))
    with pytest.raises(jaxzoo.UsageError, match="no layer with parameters runs in ReLU"):
        inspect.stages(nn.ReLU(), jnp.ones((1, 4, 4, 3)))


def test_the_strongest_channels_vary_most():
    maps = np.full((2, 2, 4), [9.0, 0, 0, 0])
    maps[0, 0, 1:] = [1, -3, 2]
    assert inspect.strongest(maps, 2).tolist() == [2, 3]


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "vit_b_32"])
def test_vectors_are_the_features_of_a_model_without_a_head(name):
    arguments = {"image_size": 64, "patch_size": 32, "num_layers": 1} if name == "vit_b_32" else {}
    model, x = (
        jaxzoo.create_model(name, num_classes=3, **arguments),
        jax.random.normal(jax.random.key(0), (2, 64, 64, 3)),
    )
    bare = jaxzoo.create_model(name, num_classes=0, **arguments)
    state = dict(nnx.to_flat_state(nnx.state(model)))
    graph, own = nnx.split(bare)
    filled = nnx.merge(graph, nnx.from_flat_state({path: state.get(path, v) for path, v in nnx.to_flat_state(own)}))
    expected = jax.jit(lambda model, x: model(x))(filled, x)
    found = jax.jit(inspect.embed)(model, x)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_vectors_of_another_layer_are_averages_of_its_map():
    model = nn.Sequential(nn.Conv(3, 5, 3, rngs=nnx.Rngs(0)), nn.Flatten(), nn.Linear(45, 2, rngs=nnx.Rngs(0)))
    x = jax.random.normal(jax.random.key(0), (2, 5, 5, 3))
    np.testing.assert_allclose(inspect.embed(model, x, "0"), model[0](x).mean((1, 2)), atol=1e-6)
    np.testing.assert_allclose(inspect.embed(model, x), model[1](model[0](x)), atol=1e-6)
    with pytest.raises(jaxzoo.UsageError, match="no module '7'"):
        inspect.embed(model, x, "7")


def net() -> nnx.Module:
    rngs = nnx.Rngs(0)
    return nn.Sequential(nn.Conv(3, 8, 3, rngs=rngs), nn.Conv(8, 8, 3, groups=8, rngs=rngs), nn.Linear(8, 2, rngs=rngs))


def test_statistics_are_numpys():
    model = net()
    model[0].bias[...] = jnp.array([0, 0, 1, 2, 3, 4, jnp.nan, 5], jnp.float32)
    found = {one.path: one for one in inspect.parameter_statistics(model)}
    assert list(found) == ["0.bias", "0.kernel", "1.bias", "1.kernel", "2.bias", "2.kernel"]
    bias, kernel = found["0.bias"], np.asarray(model[0].kernel[...])
    assert not bias.finite and bias.zeros == 0.25 and bias.counts.sum() == 7 and bias.mean == pytest.approx(15 / 7)
    one = found["0.kernel"]
    assert (
        one.finite
        and one.shape == kernel.shape
        and (one.mean, one.deviation) == pytest.approx((kernel.mean(), kernel.std()), abs=1e-7)
    )
    np.testing.assert_array_equal(one.counts, np.histogram(kernel, 32)[0])


def test_dead_kernels_are_named_by_layer_and_channel():
    model = net()
    assert inspect.dead_kernels(model) == {}
    model[1].kernel[...] = model[1].kernel[...].at[..., jnp.array([2, 5])].multiply(1e-5)
    assert inspect.dead_kernels(model) == {"1": [2, 5]}


def test_changes_are_relative_to_what_was():
    before = {"a": np.array([3.0, 4.0]), "b": np.zeros(2), "c": np.zeros(2), "d": np.ones(3), "e": np.ones(1)}
    after = {"a": np.array([3.0, 4.5]), "b": np.zeros(2), "c": np.ones(2), "d": np.ones(4)}
    found = {one.name: (one.relative, one.largest) for one in inspect.changes(before, after)}
    assert found == {"a": (0.1, 0.5), "b": (0, 0), "c": (np.inf, 1)}


def test_a_kernel_goes_by_its_layer():
    np.testing.assert_array_equal(inspect.kernel_of(net(), "2"), net()[2].kernel[...])
    with pytest.raises(jaxzoo.UsageError, match=r"no kernel at 'layer4'; layer4\.0\.conv1 has one"):
        inspect.kernel_of(nnx.eval_shape(lambda: jaxzoo.create_model("resnet18")), "layer4")


def test_kernels_are_drawn_by_what_they_see():
    rng = np.random.default_rng(0)
    colored = kernel_pictures(rng.standard_normal((3, 5, 3, 4)))
    assert len(colored) == 4 and colored[0][1].size == (5, 3)
    (caption, matrix), *_ = kernel_pictures(rng.standard_normal((1, 1, 7, 4)))
    assert matrix.size == (7, 4) and caption == "4 outputs × 7 inputs"
    kernel = np.zeros((3, 3, 6, 1))
    kernel[1, 1, 4], kernel[0, 0, 4] = 2, -2
    ((caption, picture),) = kernel_pictures(kernel)
    red, blue = (np.asarray(picture)[place].astype(int) for place in ((1, 1), (0, 0)))
    assert caption == "0, input 4" and red[0] > red[2] and blue[2] > blue[0]
    assert np.asarray(map_picture(np.array([[0, 1]])))[0].sum(-1).argmax() == 1
    assert bars(np.eye(32, dtype=int)[0] * 5) == "█" + 15 * " "


def test_the_plane_is_scikit_learns():
    x = np.random.default_rng(0).standard_normal((9, 5)) * [5, 3, 1, 1, 1]
    found = inspect.principal_plane(x)
    np.testing.assert_allclose(found, PCA(2).fit_transform(x), atol=1e-12)
    assert inspect.tsne_plane(x).shape == (9, 2)


def test_the_nearest_have_the_smallest_angle():
    x = np.random.default_rng(0).standard_normal((9, 5))
    cosines = cosine_similarity(x[1:], x[:1])[:, 0]
    found = inspect.nearest(x[1:], x[0])
    assert [place for place, _ in found] == np.argsort(-cosines).tolist()
    np.testing.assert_allclose([cosine for _, cosine in found], np.sort(cosines)[::-1])


def test_thumbnails_lie_where_they_belong():
    places = np.array([[0, 0], [10, 0], [0, 5]])
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    sheet = thumbnails(places, [Image.new("RGB", (30, 30), color) for color in colors], 20)
    assert sheet.size == (1200, 620)
    assert [sheet.getpixel(place) for place in ((20, 600), (1180, 600), (20, 20))] == colors
