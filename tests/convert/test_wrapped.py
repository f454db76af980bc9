"""What lies around and among the weights that people bring: left out and said, chosen by name, or refused."""

import argparse
import collections
import types
from pathlib import Path

import numpy as np
import pytest
import torch

import convert
from convert import store
from convert.__main__ import main
from convert.fitting import fit_weights
from convert.heads import heads_of
from convert.shapes import default, default_shapes, shapes_at, shapes_of
from convert.twins import abstract_twin
from convert.weights import Weights
from jaxzoo import UsageError, card
from tests.convert.test_commands import fails

NAME = "lenet5"
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 46830571\n"


def random_weights(name: str = NAME, seed: int = 0, **arguments) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = shapes_at(name, arguments)
    return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}


STATE = random_weights()


def below(prefix: str, state: dict[str, torch.Tensor] = STATE) -> dict[str, torch.Tensor]:
    return {prefix + key: tensor for key, tensor in state.items()}


def saved(tmp_path, content, name="file.pth") -> str:
    torch.save(content, tmp_path / name)
    return str(tmp_path / name)


def assert_filled(model, state=STATE):
    found = convert.state_dict(model)
    assert found.keys() == state.keys()
    for key, tensor in state.items():
        np.testing.assert_array_equal(found[key], tensor, key)


def placeholders(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    return {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}


MODULES = sorted({key.rpartition(".")[0] for key in STATE})
WRAPPED = {
    "a loss's scalar": (below("model.") | {"criterion.pos_weight": torch.tensor(3.2)}, "criterion.pos_weight"),
    "a loss's vector": (below("model.") | {"criterion.weight": torch.ones(4)}, "criterion.weight"),
    "mean and std": (below("model.") | {"mean": torch.ones(1, 3, 1, 1), "std": torch.ones(1, 3, 1, 1)}, "mean, std"),
    "four prefixes": (
        below("module.model._orig_mod.backbone.net.") | {"module.model.projector.0.weight": torch.ones(3, 3)},
        "model._orig_mod.projector.0.weight|model.projector.0.weight",
    ),
    "counters": (
        STATE | {f"{m}.{leaf}": torch.zeros(1).double() for m in MODULES for leaf in ("total_ops", "total_params")},
        r"total_ops \(\d tensors\), total_params \(\d tensors\)",
    ),
    "observers": (
        STATE
        | {f"{m}.activation_post_process.min_val": torch.ones(()) for m in MODULES}
        | {f"{m}.weight_fake_quant.scale": torch.ones(6) for m in MODULES}
        | {f"{m}.weight_fake_quant.fake_quant_enabled": torch.ones(1, dtype=torch.uint8) for m in MODULES},
        r"min_val \(\d tensors\).*scale \(\d tensors\)",
    ),
    "an average's counter": (STATE | {"n_averaged": torch.tensor(3), "step": torch.tensor(7)}, "n_averaged, step"),
    "one module under two names": (below("net.") | below("model.network."), r"model \(14 tensors\)"),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_what_is_no_part_of_the_model_is_left_out_and_said(tmp_path, kind):
    content, said = WRAPPED[kind]
    with pytest.warns(UserWarning, match=f"left out of file.pth, for lenet5 has no place for them: .*({said})"):
        assert_filled(convert.load(NAME, saved(tmp_path, {"state_dict": content, "epoch": 3})))


def test_of_two_networks_in_one_file_a_prefix_names_one(tmp_path):
    other = random_weights(seed=1)
    flat = below("online_model.", other) | below("ema_model.module.") | {"initted": torch.tensor(True)}
    path = saved(tmp_path, {"epoch": 3, "state_dict": flat})
    with pytest.raises(UsageError, match=r"name one of file\.pth#online_model, file\.pth#ema_model") as error:
        convert.load(NAME, path)
    assert len(str(error.value).splitlines()) == 1
    for key in ("ema_model", "ema_model.module", "state_dict.ema_model"):
        assert_filled(convert.load(NAME, f"{path}#{key}"))
    assert_filled(convert.load(NAME, f"{path}#online_model"), other)
    assert {*convert.read(f"{path}#ema_model")} == {*STATE}
    with pytest.raises(UsageError, match=r"no weights under 'teacher'; it holds file\.pth#online_model, file.pth#ema"):
        convert.load(NAME, f"{path}#teacher")


def test_a_part_of_a_larger_network_is_named_by_the_end_of_its_prefix(tmp_path):
    path = saved(tmp_path, below("cp.lenet.") | {"arm.conv.weight": torch.ones(3, 3, 3, 3)})
    for key in ("cp.lenet", "lenet"):
        assert_filled(convert.load(NAME, f"{path}#{key}"))
    twice = saved(tmp_path, below("a.lenet.") | below("b.lenet.", random_weights(seed=1)))
    with pytest.raises(UsageError, match=r"several parts 'lenet'; name one of file\.pth#a\.lenet, file\.pth#b\.lenet"):
        convert.read(f"{twice}#lenet")


def test_the_network_at_the_root_is_the_model_and_a_copy_beside_it_is_not(tmp_path):
    path = saved(tmp_path, STATE | below("teacher.", random_weights(seed=1)))
    with pytest.warns(UserWarning, match=r"left out .*teacher \(14 tensors\)"):
        assert_filled(convert.load(NAME, path))


def test_a_deeper_network_is_not_taken_for_a_shallower_one():
    deeper = {key: t.shape for key, t in abstract_twin(card("resnet34")).state_dict().items()}
    with pytest.raises(UsageError, match=r"unexpected \(80\): layer1\.2 \(10 tensors\)"):
        fit_weights("resnet18", Weights(Path("deeper.pth"), placeholders(deeper)))


def test_a_layer_more_inside_the_model_is_not_left_out(tmp_path):
    path = saved(tmp_path, STATE | {"f6.scale": torch.ones(84)})
    with pytest.raises(UsageError, match=r"unexpected \(1\): f6\.scale \(84,\)"):
        convert.load(NAME, path)


# Heads


def without_head(state=STATE):
    return {key: tensor for key, tensor in state.items() if not key.startswith("output.")}


LAYERS = {"output.1.weight": torch.ones(64, 84), "output.4.weight": torch.ones(5, 64), "output.4.bias": torch.ones(5)}
REPLACED = {
    "several layers": (without_head() | LAYERS, r"another head: output\.1\.weight \(64, 84\), "),
    "another name": (
        without_head() | {"fc_new.weight": torch.ones(5, 84)},
        "no head: output.weight, output.bias missing",
    ),
    "nothing": (without_head(), "no head"),
}


@pytest.mark.parametrize("kind", REPLACED)
@pytest.mark.filterwarnings("ignore:left out")
def test_a_replaced_head_is_left_fresh_on_request(tmp_path, capsys, kind):
    content, said = REPLACED[kind]
    path = saved(tmp_path, content)
    with pytest.raises(UsageError, match=r"missing \(2\): output\.weight \(10, 84\), output\.bias") as error:
        convert.load(NAME, path)
    assert str(error.value).endswith("\nhead='skip' leaves the head fresh")
    with pytest.warns(UserWarning, match=f"left fresh, for file.pth has {said}"):
        model = convert.load(NAME, path, head="skip", num_classes=3)
    found = convert.state_dict(model)
    assert found["output.weight"].shape == (3, 84)
    assert all(np.array_equal(found[key], tensor) for key, tensor in without_head().items())


def test_of_two_heads_that_disagree_the_main_one_counts():
    name, main, side = "googlenet", 5, 1000
    shapes = shapes_at(name, {"num_classes": main})
    aside = heads_of(name, {}, {}).auxiliary
    shapes = shapes | {key: (side, *shapes[key][1:]) for key in aside}
    weights = Weights(Path("g.pth"), placeholders(shapes))
    fit = fit_weights(name, weights)
    assert fit.arguments == {"num_classes": main, "aux_logits": False}
    assert fit.notes[0] == f"left out the auxiliary head of g.pth: it has {side} classes, the main one {main}"
    assert shapes_of(fit.model) == {key: shape for key, shape in shapes.items() if not key.startswith("aux")}
    skipping = fit_weights(name, weights, head="skip", num_classes=main)
    assert skipping.fresh == aside


# Errors


def test_errors_name_the_options_of_what_is_running(tmp_path, capsys):
    path = saved(tmp_path, STATE)
    with pytest.raises(UsageError, match=r"has 10 classes, not 5; head='skip' leaves the head fresh$") as error:
        convert.load(NAME, path, num_classes=5)
    assert error.value.on_command_line(["weights"]) == f"{path} has 10 classes, not 5"
    command = ("to-flax", "--model", NAME, "--weights", path, "--num-classes", 5, "--out", tmp_path / "out")
    assert fails(capsys, *command) == f"error: {path} has 10 classes, not 5; --head skip leaves the head fresh\n"


def test_an_error_about_a_file_is_short(tmp_path):
    wrong = dict(default_shapes("resnet18"))
    mixed = {key: (*shape, 1) for key, shape in wrong.items()} | {f"layer1.0.x{i}": (2, 3) for i in range(900)}
    for name, shapes in (("resnet18", mixed), (NAME, wrong)):
        with pytest.raises(UsageError, match=r"\(9\d\d\)|\(1\d\d\)") as error:
            fit_weights(name, Weights(Path("file.pth"), placeholders(shapes)))
        lines = str(error.value).splitlines()
        assert sum(-(-len(line) // 80) for line in lines) <= 20
        assert " and " in str(error.value) and " more" in str(error.value)


# Files


class History:
    """Of a framework that is not installed."""


PLAIN = {
    "defaultdict": collections.defaultdict(list, loss=[1.0]),
    "nested defaultdict": collections.defaultdict(dict, a={"b": collections.defaultdict(int, c=1)}),
    "OrderedDict": collections.OrderedDict(a=1),
    "Counter": collections.Counter("abc"),
    "deque": collections.deque([1, 2], maxlen=5),
    "range": range(3),
    "set": {1, 2},
    "frozenset": frozenset([1]),
    "slice": slice(1, 2),
    "complex": 1j,
    "bytearray": bytearray(b"ab"),
    "SimpleNamespace": types.SimpleNamespace(lr=0.1, sub=types.SimpleNamespace(a=1)),
    "argparse.Namespace": argparse.Namespace(lr=0.1),
    "numpy's state": np.random.default_rng(0),
}


def test_plain_containers_beside_weights_are_read(tmp_path):
    expected = {key: tensor.numpy() for key, tensor in STATE.items()}
    for value in PLAIN.values():
        found = convert.read(saved(tmp_path, {"state_dict": STATE, "meta": value}))
        assert found.keys() == expected.keys() and all(np.array_equal(found[key], a) for key, a in expected.items())
    found = convert.read(
        saved(tmp_path, collections.defaultdict(dict, state_dict=collections.defaultdict(list, STATE)))
    )
    assert found.keys() == expected.keys()
    with pytest.raises(UsageError, match=r"holds tests\.convert\.test_wrapped\.History, not only tensors.*nothing was"):
        convert.read(saved(tmp_path, {"state_dict": STATE, "meta": History()}))


def test_a_pointer_or_a_page_instead_of_weights_is_named_as_that(tmp_path, capsys):
    for name, content, said in (
        ("a.pth", POINTER, "is a Git LFS pointer, not the file itself: run `git lfs pull`"),
        ("a.safetensors", POINTER, "Git LFS pointer"),
        ("page.pth", "<!DOCTYPE html><html></html>", "is a web page"),
        ("model.safetensors.index.json", '{\n "metadata": {}, "weight_map": {"a": "b"}}', "lists the files of a"),
    ):
        (tmp_path / name).write_text(content)
        assert said in fails(capsys, "inspect", tmp_path / name)
    for part in ("manifest.json", "arrays/model/a/c/0"):
        folder = tmp_path / part[:3]
        store.save(folder, {"model/a": np.ones(3, np.float32)}, {"model": NAME, "arguments": {}})
        (folder / part).write_text(POINTER)
        with pytest.raises(UsageError, match=f"{part} is a Git LFS pointer"):
            store.load(folder)


def test_inspect_finds_a_network_below_a_prefix_without_building_the_zoo(tmp_path, capsys):
    default.cache_clear()
    path = saved(tmp_path, below("encoder.net.", random_weights("shufflenet_v2_x0_5", num_classes=4)))
    main(["inspect", path])
    assert "fits: shufflenet_v2_x0_5 (num_classes=4, below encoder.net.)" in capsys.readouterr().out
    assert default.cache_info().misses < 6
