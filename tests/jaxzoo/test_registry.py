"""Models are found, described and built by name, and wrong names are answered helpfully."""

import ast
import inspect
import math
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torchvision
from flax import nnx

import convert
import jaxzoo
from jaxzoo import UsageError, create_model, list_models, model_info, nn, register_model, registry
from jaxzoo.commands import tasks
from jaxzoo.errors import exit_on_usage_error, nearest

RESNETS = ["resnet101", "resnet152", "resnet18", "resnet34", "resnet50"]


def test_list_models_matches_shell_patterns_and_sorts():
    assert list_models("resnet[135]*") == RESNETS
    assert list_models("*no such*") == []
    assert list_models() == sorted(list_models()) and set(RESNETS) < set(list_models())
    assert list_models("resnet*", task="classification") == RESNETS


def test_an_unknown_task_is_answered_with_the_tasks():
    with pytest.raises(UsageError, match=r"'colour'.*classification"):
        list_models(task="colour")
    with pytest.raises(UsageError, match=r"'colour'.*classification"):
        register_model(paper="", task="colour")


@pytest.mark.parametrize("call", [create_model, model_info, jaxzoo.card])
@pytest.mark.parametrize(("name", "near"), [("resnet51", "resnet50"), ("Swin_T", "swin_t"), ("vgg-16", "vgg16")])
def test_an_unknown_model_is_answered_with_the_nearest(call, name, near):
    with pytest.raises(UsageError, match=f"unknown model '{name}'; nearest: .*{near}"):
        call(name)


def test_a_name_like_no_other_points_to_the_list():
    with pytest.raises(UsageError, match=r"unknown model 'q'; jaxzoo.list_models\(\) names all of them"):
        create_model("q")


@pytest.mark.parametrize("classes", [-3, 2.5, "10", None, True])
def test_an_impossible_number_of_classes_is_named(classes):
    with pytest.raises(UsageError, match=r"num_classes is .*; it must be a whole number ≥ 0"):
        create_model("resnet18", num_classes=classes)


def test_an_unknown_argument_is_answered_with_the_known_ones():
    with pytest.raises(UsageError, match=r"resnet18 takes no argument 'classes'; it takes: .*num_classes, .*zero_init"):
        create_model("resnet18", classes=10)


class Refused(Exception):
    """Where a builder starts to draw."""


class Draws:
    def __getattr__(self, name):
        raise Refused


@pytest.mark.parametrize("name", list_models())
def test_a_model_takes_each_of_the_arguments_that_are_offered(name):
    builder, offered = jaxzoo.card(name).builder, registry.argument_names(name)
    assert "in_channels" in offered and "self" not in offered
    assert "num_classes" in offered or jaxzoo.card(name).task == "reconstruction"
    defaults = registry.argument_defaults(name)
    for argument in offered:
        with pytest.raises(Refused):  # no TypeError: the argument arrived
            builder(rngs=Draws(), **{argument: defaults[argument]})


def test_what_a_builder_returns_may_be_quoted_and_local(monkeypatch):
    monkeypatch.setattr(registry, "_cards", dict(registry._cards))

    class Mine(nnx.Module):
        def __init__(self, width, depth=2, *, rngs):
            self.width, self.depth = width, depth

    @register_model(paper="")
    def mine(*, rngs: nnx.Rngs, **kwargs) -> "Mine":
        return Mine(3, **kwargs, rngs=rngs)

    @register_model(paper="")
    def unseen(*, rngs: nnx.Rngs, **kwargs) -> "OnlyForTypeCheckers":  # noqa: F821
        return Mine(3, **kwargs, rngs=rngs)

    assert registry.argument_names("mine") == ["depth"] and create_model("mine", depth=4).depth == 4
    with pytest.raises(UsageError, match="mine takes no argument 'width'; it takes: depth"):
        create_model("mine", width=3)
    assert registry.argument_names("unseen") == [] and create_model("unseen").depth == 2


class Distance(nnx.Module):
    """Of two vectors, in so many units."""

    def __init__(self, *, rngs):
        self.embed = nn.Linear(3, 5, rngs=rngs)

    def __call__(self, pair, units):
        return jnp.square(self.embed(pair["a"]) - self.embed(pair["b"])).sum(-1) / units


def test_a_model_of_another_task_and_other_inputs(monkeypatch):
    """The task is a module of one's own; tools take the inputs from the card."""
    monkeypatch.setattr(registry, "_cards", dict(registry._cards))
    handler = types.ModuleType("mine.distances")
    handler.described = lambda preprocess: "as they are"
    monkeypatch.setitem(sys.modules, "mine.distances", handler)

    def pair_and_units(batch, size):
        vector = jax.ShapeDtypeStruct((batch, 3), jnp.float32)
        return {"a": vector, "b": vector}, jax.ShapeDtypeStruct((batch,), jnp.int32)

    @register_model(paper="", task="mine.distances", input_size=1, inputs=pair_and_units)
    def distance(*, rngs):
        return Distance(rngs=rngs)

    card = jaxzoo.card("distance")
    assert tasks.of_model("distance") is handler and "distance" in list_models(task="mine.distances")
    info = model_info("distance")
    assert (info.parameters, info.multiply_adds) == (20, 30)
    whole, embed = jaxzoo.inspect.summary(create_model("distance"), card.example_inputs(4))
    assert whole.outputs == ((4,),) and embed.multiply_adds == 4 * 30
    for unknown in ("classificaton", "distances"):
        with pytest.raises(UsageError, match=f"unknown task '{unknown}'"):
            register_model(paper="", task=unknown)


def test_a_name_is_registered_once():
    def resnet18(*, rngs):
        raise AssertionError

    with pytest.raises(UsageError, match="'resnet18' is registered already; rename"):
        register_model(paper="")(resnet18)
    code = """
import jaxzoo
def resnet18(*, rngs): ...
try:
    jaxzoo.register_model(paper="")(resnet18)  # before anyone asked for a model
except jaxzoo.UsageError as error:
    print(error)
print(jaxzoo.card("vgg11").name)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[1:] == ["vgg11"] and "registered already" in result.stdout


def test_a_model_comes_in_eval_mode_with_the_classes_asked_for():
    model = create_model("resnet18", num_classes=np.int64(7))
    x = jnp.ones((2, 33, 41, 3), jnp.float32)
    before = convert.state_dict(model)
    y = model(x)
    assert y.shape == (2, 7) and y.dtype == jnp.float32
    assert all(np.array_equal(before[name], array) for name, array in convert.state_dict(model).items())
    model.train()
    model(x)
    assert model.bn1.num_batches_tracked[...] == 1
    model.eval()
    model(x)
    assert model.bn1.num_batches_tracked[...] == 1


def test_the_seed_decides_every_weight():
    a, b, c = (convert.state_dict(create_model("resnet18", seed=seed)) for seed in (3, 3, 4))
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert not np.array_equal(a["conv1.weight"], c["conv1.weight"])
    d = convert.state_dict(create_model("resnet18", rngs=nnx.Rngs(3)))
    assert d.keys() == a.keys()


def test_an_abstract_model_has_shapes_and_no_numbers():
    model = nnx.eval_shape(lambda: create_model("resnet18", num_classes=5))
    assert model.fc.kernel.get_value().shape == (512, 5)
    assert "ShapeDtypeStruct" in type(model.fc.kernel.get_value()).__name__


def test_model_info_says_what_a_user_asks_first():
    info = model_info("resnet18")
    assert (info.name, info.task, info.parameters, info.input_size) == ("resnet18", "classification", 11689512, 224)
    assert info.multiply_adds == 1814073344
    assert info.twin == "torchvision:resnet18" and "1512.03385" in info.paper
    weights = info.weights["IMAGENET1K_V1"]
    assert info.preprocess == weights.preprocess == jaxzoo.Preprocess(crop=224, resize=256)
    assert weights.metrics == {"acc@1": 69.758, "acc@5": 89.078}


def test_model_info_counts_what_a_model_of_yours_costs(monkeypatch):
    monkeypatch.setattr(registry, "_cards", dict(registry._cards))

    @register_model(paper="", input_size=40)
    def mine(*, rngs):
        return nn.Sequential(nn.Conv(3, 2, 5, rngs=rngs), nn.Flatten(), nn.Linear(2 * 36 * 36, 4, rngs=rngs))

    info = model_info("mine")
    assert info.parameters == 2 * (75 + 1) + 4 * (2592 + 1)
    assert info.multiply_adds == 36 * 36 * 2 * 75 + 2592 * 4


@pytest.mark.parametrize("name", [n for n in list_models() if jaxzoo.card(n).twin.startswith("torchvision:")])
def test_the_card_has_torchvisions_weights_with_their_transforms_and_metrics(name):
    card = jaxzoo.card(name)
    published = torchvision.models.get_model_weights(card.twin.removeprefix("torchvision:"))
    assert set(card.weights) == {entry.name for entry in published}
    assert next(iter(card.weights)) == published.DEFAULT.name
    for entry in published:
        theirs, ours = entry.transforms(), card.weights[entry.name].preprocess
        if card.task != "detection":  # those resize and normalise in the network: tests/detection/test_transform.py
            assert [ours.crop] == getattr(theirs, "crop_size", theirs.resize_size)
            assert [ours.resize or ours.crop] == theirs.resize_size
            assert ours.interpolation == theirs.interpolation.value
            assert list(ours.mean) == list(theirs.mean) and list(ours.std) == list(theirs.std)
        ((data, metrics),) = entry.meta["_metrics"].items()  # not a number for weights of the features alone
        assert card.weights[entry.name].data == data and metrics.keys() <= registry.UNITS.keys()
        assert card.weights[entry.name].metrics == {k: v for k, v in metrics.items() if not math.isnan(v)}
    assert card.paper and card.task in registry.TASKS


@pytest.mark.parametrize("package", [jaxzoo, convert])
def test_editors_see_what_a_package_imports_when_it_is_first_needed(package):
    """They read the imports that are for them alone, and no `__getattr__`."""
    tree = ast.parse(inspect.getsource(package))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {name.asname: node.module for node in block.body for name in node.names}
    assert {name: home for name, home in seen.items() if home != package.__name__} == package._HOME
    assert all(getattr(package, name) is not None for name in seen)


def test_the_zoo_imports_without_torch_and_tensorflow():
    code = """
import sys, jaxzoo, jaxzoo.inspect, convert.rules
assert len(jaxzoo.list_models()) >= 36
print(sorted({"torch", "torchvision", "tensorflow", "convert.read", "train"} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_usage_errors_end_a_command_without_a_traceback():
    code = """
from jaxzoo.errors import exit_on_usage_error
import jaxzoo
with exit_on_usage_error():
    jaxzoo.card("resnet51")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith("error: unknown model 'resnet51'; nearest: resnet50")
    assert result.stderr.count("\n") == 1


def test_too_little_memory_ends_a_command_without_a_traceback(capsys):
    with pytest.raises(SystemExit) as exit, exit_on_usage_error():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")
    assert exit.value.code == 2
    assert (
        capsys.readouterr().err == "error: the device has too little memory; smaller batches or smaller images help\n"
    )


def test_other_errors_pass_through():
    with pytest.raises(RuntimeError, match="of my own"), exit_on_usage_error():
        raise RuntimeError("of my own")
    with pytest.raises(KeyError), exit_on_usage_error():
        raise KeyError
    assert nearest("swin", ["swin_t", "vgg11"]) == "; nearest: swin_t"
    assert nearest("swin", []) == ""
