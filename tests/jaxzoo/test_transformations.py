"""Every layer, and the smallest model of every family, under JAX's and Flax's transformations.

A layer goes through all of them in one program and has to give equal results; its second derivatives hold the formulas
of its first ones. The models, which are made of the layers, are traced through them, exported and copied.
"""

import copy
import functools
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import export, lax

import jaxzoo
from convert.rules import leaves
from convert.twins import abstract_twin
from jaxzoo import nn
from jaxzoo.classification.vision_transformer import VisionTransformer
from tests.compare import cast, close, normal
from tests.parity.detectors import DetectorPair, trunk
from tests.parity.ladder import first_size, quickly
from tests.parity.reduced import reduce_depth

IMAGE, TOKENS = (3, 6, 5, 4), (3, 5, 4)


class Lookup(nnx.Module):
    """An Embed's numbers as a function of something that has derivatives."""

    def __init__(self, rngs: nnx.Rngs):
        self.table = nn.Embed(7, 4, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x[:, :1, 0] * self.table(jnp.array([1, 5, 5]))[: x.shape[0]].sum(0)


# How each layer is built, and the shape of its input.
LAYERS: dict[str, tuple[Callable[..., nnx.Module], tuple[int, ...]]] = {
    "Conv": (lambda rngs: nn.Conv(4, 5, 3, padding=1, rngs=rngs), (2, 11, 12, 4)),
    "Conv of a small output": (lambda rngs: nn.Conv(4, 5, 3, 2, 1, rngs=rngs), IMAGE),
    "Conv of single pixels": (lambda rngs: nn.Conv(4, 5, 1, 2, rngs=rngs), IMAGE),
    "Conv, dilated": (lambda rngs: nn.Conv(32, 3, 3, padding=2, dilation=2, rngs=rngs), (2, 6, 5, 32)),
    "Conv, depthwise": (lambda rngs: nn.Conv(4, 4, 3, 2, 1, groups=4, rngs=rngs), (3, 7, 6, 4)),
    "Conv in groups": (lambda rngs: nn.Conv(4, 6, 3, padding=1, groups=2, rngs=rngs), IMAGE),
    "Conv in many groups": (lambda rngs: nn.Conv(288, 288, 2, groups=144, rngs=rngs), (2, 4, 5, 288)),
    "Conv, reflected": (lambda rngs: nn.Conv(4, 5, 3, padding=1, padding_mode="reflect", rngs=rngs), IMAGE),
    "ConvTranspose": (lambda rngs: nn.ConvTranspose(4, 5, 3, 2, 1, 1, rngs=rngs), IMAGE),
    "ConvTranspose in groups": (lambda rngs: nn.ConvTranspose(4, 6, 3, groups=2, rngs=rngs), IMAGE),
    "LocallyConnected2d": (lambda rngs: nn.LocallyConnected2d(4, 5, (6, 5), 3, padding=1, rngs=rngs), IMAGE),
    "Linear": (lambda rngs: nn.Linear(4, 5, rngs=rngs), TOKENS),
    "Embed": (Lookup, TOKENS),
    "BatchNorm": (lambda rngs: nn.BatchNorm(4, rngs=rngs), IMAGE),
    "BatchNorm without parameters": (lambda rngs: nn.BatchNorm(4, momentum=None, affine=False, rngs=rngs), IMAGE),
    "DarknetBatchNorm": (lambda rngs: nn.DarknetBatchNorm(4), IMAGE),
    "BatchNormAct": (lambda rngs: nn.BatchNormAct(4, activation_layer=nn.SiLU, rngs=rngs), IMAGE),
    "LayerNorm": (lambda rngs: nn.LayerNorm(4, rngs=rngs), TOKENS),
    "LayerNorm without parameters": (lambda rngs: nn.LayerNorm(4, elementwise_affine=False, rngs=rngs), TOKENS),
    "GroupNorm": (lambda rngs: nn.GroupNorm(2, 4, rngs=rngs), IMAGE),
    "LocalResponseNorm": (lambda rngs: nn.LocalResponseNorm(3), IMAGE),
    "MaxPool": (lambda rngs: nn.MaxPool(3, 2, 1, ceil_mode=True), IMAGE),
    "MaxPool, dilated": (lambda rngs: nn.MaxPool(2, 1, 0, 2), IMAGE),
    "AvgPool": (lambda rngs: nn.AvgPool(3, 2, 1, ceil_mode=True), IMAGE),
    "AdaptiveAvgPool": (lambda rngs: nn.AdaptiveAvgPool((4, 2)), IMAGE),
    "AdaptiveMaxPool": (lambda rngs: nn.AdaptiveMaxPool((4, 2)), IMAGE),
    "MultiHeadAttention": (lambda rngs: nn.MultiHeadAttention(4, 2, rngs=rngs), TOKENS),
    "Dropout": (lambda rngs: nn.Dropout(0.5, rngs=rngs), IMAGE),
    "Dropout2d": (lambda rngs: nn.Dropout2d(0.5, rngs=rngs), IMAGE),
    "StochasticDepth": (lambda rngs: nn.StochasticDepth(0.5, rngs=rngs), IMAGE),
    "ConvNormActivation": (lambda rngs: nn.ConvNormActivation(4, 5, activation_layer=nn.Hardswish, rngs=rngs), IMAGE),
    "SqueezeExcitation": (lambda rngs: nn.SqueezeExcitation(4, 2, rngs=rngs), IMAGE),
    "MLP": (lambda rngs: nn.MLP(4, [6, 5], nn.GELU, dropout=0.1, rngs=rngs), TOKENS),
    "LayerScale": (lambda rngs: nn.LayerScale(4, 0.3), IMAGE),
    "NamedSequential": (lambda rngs: nn.NamedSequential(b=nn.Linear(4, 5, rngs=rngs), a=nn.Tanh()), TOKENS),
    "Sequential": (lambda rngs: nn.Sequential(nn.ReLU6(), nn.Hardsigmoid(), nn.Sigmoid(), nn.Identity()), IMAGE),
    "Flatten": (lambda rngs: nn.Sequential(nn.Flatten(), nn.ReLU(), nn.LeakyReLU(0.1)), IMAGE),
    "Unflatten": (lambda rngs: nn.Unflatten((2, 1, 3)), (4, 6)),
    "resize": (lambda rngs: Resize(), IMAGE),
}


class Resize(nnx.Module):
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.resize(x, (7, 3), mode="bilinear")


def of_float64(module: nnx.Module) -> nnx.Module:
    return cast(module, jnp.float64)


def run(module: nnx.Module, x: jax.Array) -> jax.Array:
    """A copy's result: in training, a module changes, and what belongs to another trace must not."""
    return nnx.clone(module)(x)


def dot(a: Any, b: Any) -> jax.Array:
    return sum(jax.tree.leaves(jax.tree.map(lambda a, b: (a * b).sum(), a, b)))


@functools.partial(jax.jit, compiler_options=quickly(0))
def transformed(module: nnx.Module, x: jax.Array, tangents: tuple[nnx.Module, jax.Array]) -> dict[str, tuple]:
    """What has to be equal, by the name of the transformation."""

    def loss(module: nnx.Module, x: jax.Array) -> jax.Array:
        y = run(module, x)
        return (jnp.sin(y) * jnp.cos(jnp.arange(y.size)).reshape(y.shape)).sum()

    here, both = (module, x), (0, 1)
    gradient = jax.grad(loss, both)
    y, dy = jax.jvp(run, here, tangents)
    slopes = gradient(*here)
    two = jnp.stack([x, 2 * x])
    one_by_one = jnp.stack([y, run(module, 2 * x)])
    along = jax.jvp(lambda x: run(module, x), (x,), (tangents[1],))[1]
    of_parameters = nnx.value_and_grad(lambda module: loss(module, x))(nnx.clone(module))[1]
    return {
        "jit": (y, run(*here)),
        "jvp": (jax.jvp(loss, here, tangents)[1], dot(slopes, tangents)),
        "linearize": (jax.linearize(run, *here)[1](*tangents), dy),
        "jacfwd": (jax.jacfwd(lambda a: run(module, x + a * tangents[1]))(0.0), along),
        "jacrev": (jax.jacrev(lambda a: loss(module, x + a * tangents[1]))(0.0), dot(slopes[1], tangents[1])),
        "Hessian": (
            jax.jvp(gradient, here, tangents)[1],
            jax.grad(lambda *here: dot(gradient(*here), tangents), both)(*here),
        ),
        "vmap": (jax.vmap(run, (None, 0))(module, two), one_by_one),
        "vmap of grad": (jax.vmap(jax.grad(loss, 1), (None, 0))(module, two)[0], slopes[1]),
        "grad of vmap": (jax.grad(lambda x: jax.vmap(loss, (None, 0))(module, x).sum())(two)[0], slopes[1]),
        "scan": (lax.scan(lambda count, x: (count + 1, run(module, x)), 0, two)[1], one_by_one),
        "checkpoint": (jax.grad(jax.checkpoint(loss), both)(*here), slopes),
        "value_and_grad": (of_parameters, nnx.state(slopes[0], nnx.Param)),
    }


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_is_the_same_under_all_transformations(layer):
    build, shape = LAYERS[layer]
    module, x = of_float64(build(rngs=nnx.Rngs(0))), jnp.asarray(normal(*shape))
    tangents = jax.tree.map(lambda a: jnp.cos(jnp.arange(a.size, dtype=a.dtype)).reshape(a.shape), (module, x))
    for name, (ours, other) in transformed(module, x, tangents).items():
        assert jax.tree.structure(ours) == jax.tree.structure(other), name
        for a, b in zip(*map(jax.tree.leaves, (ours, other)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11, err_msg=name)
    eager, jitted = nnx.clone(module), nnx.clone(module)
    close(nnx.jit(lambda module, x: module(x))(jitted, x), eager(x))
    for a, b in zip(*(jax.tree.leaves(nnx.state(m)) for m in (eager, jitted)), strict=True):  # statistics, streams
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_every_layer_is_among_them():
    kinds = {
        kind for kind in map(nn.__dict__.get, nn.__all__) if isinstance(kind, type) and issubclass(kind, nnx.Module)
    }
    tried = {type(module) for build, _ in LAYERS.values() for _, module in nnx.iter_modules(build(rngs=nnx.Rngs(0)))}
    assert {kind.__name__ for kind in kinds - tried} == {"Activation", "IntermediateLayers"}  # abstract; its own tests


@functools.cache
def families() -> list[str]:
    """The smallest model of each family, by file."""
    smallest: dict[str, tuple[int, str]] = {}
    for name in jaxzoo.list_models():
        size = jaxzoo.model_info(name).parameters, name
        family = jaxzoo.card(name).builder.__module__
        smallest[family] = min(size, smallest.get(family, size))
    return sorted(name for _, name in smallest.values())


each_family = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in families()]
)


@functools.cache
def _shallow(name: str) -> tuple[nnx.Module, tuple[int, ...]]:
    model = nnx.eval_shape(lambda: jaxzoo.create_model(name))
    reduce_depth(model, abstract_twin(jaxzoo.card(name)))
    card = jaxzoo.card(name)
    if card.task == "reconstruction":
        return model, card.example_inputs(2).shape
    find = DetectorPair.first_size if card.task == "detection" else first_size
    size = (model.image_size,) * 2 if hasattr(model, "image_size") else find(name)
    return model, (2, *size, 3)


def shallow(name: str) -> tuple[nnx.Module, tuple[int, ...]]:
    """A model of shapes only, each of its blocks once, and an input's shape."""
    model, shape = _shallow(name)
    return nnx.clone(model), shape


def total(model: nnx.Module, x: jax.Array) -> jax.Array:
    """The sum of all outputs; of a detector, which chooses boxes, that of its losses."""
    if detects(model):
        return sum(jax.tree.leaves(model.losses(x, None, truths(x.shape))))
    return sum(leaf.sum() for leaf in jax.tree.leaves(model(x)))


def detects(model: nnx.Module) -> bool:
    return type(model).__module__.startswith("jaxzoo.detection.")


def truths(shape: tuple[int, ...]) -> dict[str, jax.Array]:
    """Two objects in every image, of which one counts."""
    images, *size, _ = shape
    found = {
        "boxes": jnp.array([[4.0, 4.0, 60.0, 50.0], [20.0, 8.0, 40.0, 90.0]], jnp.float32),
        "labels": jnp.array([1, 2]),
        "valid": jnp.array([True, False]),
        "masks": jnp.ones((2, *size), jnp.float32),
        "keypoints": jnp.ones((2, 17, 3), jnp.float32),
    }
    return {name: jnp.broadcast_to(rows, (images, *rows.shape)) for name, rows in found.items()}


@each_family
def test_a_model_goes_through_all_transformations(name):
    """In training, forward over reverse mode; and a scan over a vmap, with a checkpoint."""
    model, shape = shallow(name)
    model.train()
    here = model, jax.ShapeDtypeStruct(shape, jnp.float32)

    def loss(model: nnx.Module, x: jax.Array) -> jax.Array:
        return total(nnx.clone(model), x)

    def product(model: nnx.Module, x: jax.Array) -> tuple:
        along = jax.tree.map(jnp.ones_like, (model, x))
        return jax.jvp(jax.grad(loss, (0, 1)), (model, x), along)[1]

    def loop(model: nnx.Module, x: jax.Array) -> jax.Array:
        each = jax.vmap(jax.checkpoint(loss), (None, 0))
        return lax.scan(lambda sum, x: (sum + each(model, x[None]), None), jnp.zeros(1, jnp.float32), x[None])[0]

    assert jax.tree.structure(jax.eval_shape(product, *here)) == jax.tree.structure(here)
    assert jax.eval_shape(loop, *here).shape == (1,)


@each_family
def test_a_model_goes_through_flaxs_transformations(name):
    """In training, `nnx.value_and_grad` within `nnx.jit`, which keep the statistics."""
    model, shape = shallow(name)
    model.train()

    def step(model: nnx.Module, x: jax.Array) -> tuple:
        value, gradient = nnx.jit(nnx.value_and_grad(lambda model: total(model, x)))(model)
        return value, gradient, nnx.state(model)

    value, gradient, state = jax.eval_shape(step, model, jax.ShapeDtypeStruct(shape, jnp.float32))
    assert value.shape == ()
    assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, nnx.state(model, nnx.Param))
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, nnx.state(model))


@pytest.mark.full("alexnet", "convnext_tiny", "lenet5", "resnet18", "squeezenet1_1", "unet_resnet18", "vit_b_16")
@each_family
def test_a_model_goes_through_further_derivatives(name):
    """In training: reverse over reverse mode, `jax.linearize`, `jax.jacfwd`. Without --full in small networks."""
    model, shape = shallow(name)
    model.train()

    def derivatives(model: nnx.Module, x: jax.Array) -> tuple[jax.Array, ...]:
        def loss(x: jax.Array) -> jax.Array:
            return total(nnx.clone(model), x)

        twice = jax.grad(lambda x: (jax.grad(loss)(x) ** 2).sum())(x)
        return twice, jax.linearize(loss, x)[1](x), jax.jacfwd(lambda a: loss(a * x))(jnp.float32(1))

    twice, linear, along = jax.eval_shape(derivatives, model, jax.ShapeDtypeStruct(shape, jnp.float32))
    assert twice.shape == shape and linear.shape == along.shape == ()


@each_family
def test_a_model_computes_in_half_precision(name):
    model, shape = shallow(name)
    model = trunk(model) if detects(model) else model  # boxes and scores are float32
    for dtype in (jnp.bfloat16, jnp.float16):
        y = jax.eval_shape(lambda model, x: model(x), cast(model, dtype), jax.ShapeDtypeStruct(shape, dtype))
        assert {leaf.dtype for leaf in jax.tree.leaves(y)} == {jnp.dtype(dtype)}


@each_family
def test_copies_of_a_model_are_equal_and_in_torchs_order(name):
    one, other = (nnx.eval_shape(functools.partial(jaxzoo.create_model, name, seed=seed)) for seed in (0, 1))
    graph = nnx.graphdef(one)
    assert graph == nnx.graphdef(other) and hash(graph) == hash(nnx.graphdef(other))
    structure = jax.tree.structure(one)
    assert structure == jax.tree.structure(other) and hash(structure) == hash(jax.tree.structure(other))
    assert jax.tree.structure(jax.tree.map(lambda a, b: (a.shape, b.dtype) and a, one, other)) == structure
    keys = list(abstract_twin(jaxzoo.card(name)).state_dict())
    for made in (nnx.merge(*nnx.split(one)), nnx.clone(one), copy.deepcopy(one), jax.tree.map(lambda a: a, one)):
        assert [leaf.key for leaf in leaves(made)] == keys
        assert nnx.graphdef(made) == graph


def test_part_of_a_copied_backbone_begins_at_its_stem():
    backbone = nnx.eval_shape(lambda: jaxzoo.create_model("resnet18"))
    parts = [nn.IntermediateLayers(model, {"layer1": "out"}) for model in (backbone, nnx.clone(backbone))]
    assert parts[0].order == parts[1].order == ("conv1", "bn1", "relu", "maxpool", "layer1")


def test_equal_models_share_a_compiled_program():
    run = jax.jit(lambda model, x: model(x))
    for seed in range(2):
        run(nn.Sequential(nn.Conv(1, 2, 3, rngs=nnx.Rngs(seed)), nn.MaxPool(2), nn.AvgPool(2)), jnp.ones((1, 8, 8, 1)))
    assert run._cache_size() == 1


@pytest.mark.parametrize(
    "build",
    [
        lambda: jaxzoo.create_model("shufflenet_v2_x0_5", seed=3, num_classes=5),
        lambda: VisionTransformer(32, 16, 2, 2, 64, 128, num_classes=5, rngs=nnx.Rngs(3)),
    ],
    ids=["shufflenet_v2_x0_5", "a small vision transformer"],
)
def test_one_seed_gives_one_model_eagerly_and_in_a_program(build):
    # Numbers are drawn by a program that is optimised whatever the flags of these tests say.
    eager, traced = build(), jax.jit(build, compiler_options={"xla_backend_optimization_level": 3})()
    learnt = [nnx.to_flat_state(nnx.state(model, nnx.Not(nnx.RngState))) for model in (eager, traced)]
    for (path, ours), (_, theirs) in zip(*learnt, strict=True):
        np.testing.assert_array_equal(ours.get_value(), theirs.get_value(), err_msg=str(path))


FRESH = """
import sys
from pathlib import Path
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
for file in Path(sys.argv[1]).glob("*.bin"):
    program = jax.export.deserialize(bytearray(file.read_bytes()))
    arrays = np.load(file.with_suffix(".npz"))
    np.save(file.with_suffix(".npy"), program.call(arrays["x"]))
"""


def test_a_program_for_any_batch_runs_in_a_fresh_process(tmp_path):
    (batch,) = export.symbolic_shape("batch")
    expected = {}
    modules = {name: (build(rngs=nnx.Rngs(0)), shape) for name, (build, shape) in LAYERS.items()}
    modules["a model"] = jaxzoo.create_model("shufflenet_v2_x0_5", num_classes=5), (2, 33, 40, 3)
    for name, (module, shape) in modules.items():
        module, x = of_float64(module), normal(*shape)
        module.eval()
        run = jax.jit(module.__call__)
        program = export.export(run)(jax.ShapeDtypeStruct((batch, *shape[1:]), x.dtype))
        (tmp_path / f"{name}.bin").write_bytes(program.serialize())
        np.savez(tmp_path / f"{name}.npz", x=x)
        expected[name] = run(jnp.asarray(x))
    subprocess.run([sys.executable, "-c", FRESH, tmp_path], check=True)
    for name, y in expected.items():
        close(np.load(tmp_path / f"{name}.npy"), y, name)


@each_family
def test_a_model_is_exported_for_any_batch(name):
    model, shape = shallow(name)
    (batch,) = export.symbolic_shape("batch")
    x = jax.ShapeDtypeStruct((batch, *shape[1:]), jnp.float32)
    arrays, structure = jax.tree.flatten(model)
    program = export.export(jax.jit(lambda arrays, x: jax.tree.leaves(structure.unflatten(arrays)(x))))(arrays, x)
    again = export.deserialize(program.serialize())
    assert {str(aval.shape[0]) for aval in again.out_avals} == {"batch"}


def test_the_page_in_jax_runs_as_printed():
    page = (Path(jaxzoo.__file__).parents[1] / "docs" / "in_jax.md").read_text()
    names: dict[str, Any] = {}
    with jax.enable_x64(False):
        exec("\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)), names)
    assert names["value"] < 0.5  # the last step's loss; 1.1 before the first
    assert nnx.graphdef(names["copied"]) == nnx.graphdef(names["other"])
