"""Arguments of builders that the parity ladder, which takes the defaults, does not see."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
import torch
import torchvision
from flax import nnx

import jaxzoo
from jaxzoo import UsageError
from jaxzoo.classification.densenet import DenseNet
from jaxzoo.classification.googlenet import GoogLeNetOutputs
from jaxzoo.classification.inception import InceptionAux, InceptionOutputs
from tests.compare import cast, close, normal


class Reached(Exception):
    """Carries what reached a layer."""


def reach(x):
    raise Reached(x)


@pytest.mark.parametrize(
    ("name", "twin", "first"),
    [
        ("googlenet", torchvision.models.GoogLeNet, "conv1"),
        ("inception_v3", torchvision.models.Inception3, "Conv2d_1a_3x3"),
    ],
)
@pytest.mark.parametrize("transform_input", [False, True])
def test_transform_input_takes_images_that_are_normalised_for_imagenet(name, twin, first, transform_input):
    images = normal(2, 5, 7, 3)
    model = nnx.eval_shape(lambda: jaxzoo.create_model(name, transform_input=transform_input))
    setattr(model, first, reach)
    with pytest.raises(Reached) as reached:
        model(jnp.asarray(images))
    switch = SimpleNamespace(transform_input=transform_input)
    expected = twin._transform_input(switch, torch.from_numpy(images).permute(0, 3, 1, 2))
    close(reached.value.args[0], expected.permute(0, 2, 3, 1))


@pytest.mark.parametrize(
    ("name", "side", "kind"), [("googlenet", 33, GoogLeNetOutputs), ("inception_v3", 299, InceptionOutputs)]
)
def test_auxiliary_heads_speak_in_train_mode_only_and_can_be_left_out(name, side, kind):
    def outputs(training: bool, **arguments):
        model = jaxzoo.create_model(name, num_classes=7, **arguments)
        if training:
            model.train()
        return model(jnp.zeros((2, side, side, 3)))

    trained = nnx.eval_shape(lambda: outputs(True))
    assert isinstance(trained, kind)
    assert {y.shape for y in trained} == {(2, 7)}
    assert nnx.eval_shape(lambda: outputs(False)).shape == (2, 7)
    assert nnx.eval_shape(lambda: outputs(True, aux_logits=False)).shape == (2, 7)


def test_images_that_are_too_small_are_refused():
    with pytest.raises(UsageError, match=r"a window of 3 does not fit 1 elements.*the image is too small"):
        nnx.eval_shape(lambda: jaxzoo.create_model("alexnet")(jnp.zeros((1, 32, 32, 3))))
    with pytest.raises(UsageError, match="299 pixels at least, or aux_logits=False"):
        nnx.eval_shape(lambda: InceptionAux(768, 7, rngs=nnx.Rngs(0))(jnp.zeros((1, 16, 16, 768))))


def test_a_memory_efficient_densenet_learns_the_same():
    images = jnp.asarray(normal(2, 16, 16, 3))

    def learn(memory_efficient: bool):
        model = DenseNet(4, (2,), 8, num_classes=3, memory_efficient=memory_efficient, rngs=nnx.Rngs(0))
        cast(model, jnp.float64).train()
        graphdef, params, rest = nnx.split(model, nnx.Param, ...)

        def loss(params):
            model = nnx.merge(graphdef, params, rest, copy=True)
            return (model(images) ** 2).sum(), nnx.state(model, nnx.BatchStat)

        step = jax.grad(loss, has_aux=True)
        return "remat" in str(jax.make_jaxpr(step)(params)), jax.tree.leaves(jax.jit(step)(params))

    (plain, expected), (recomputes, found) = learn(False), learn(True)
    assert recomputes and not plain
    for a, b in zip(found, expected, strict=True):
        close(a, b, bound=1e-14)


def test_maxvit_refuses_maps_that_its_partitions_do_not_divide():
    with pytest.raises(UsageError, match=r"16 x 16 does not divide into partitions of 7 x 7.*224 pixels"):
        nnx.eval_shape(lambda: jaxzoo.create_model("maxvit_t")(jnp.zeros((1, 64, 64, 3))))
    small = nnx.eval_shape(lambda: jaxzoo.create_model("maxvit_t", partition_size=2)(jnp.zeros((1, 64, 128, 3))))
    assert small.shape == (1, 1000)
