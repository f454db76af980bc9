"""timm's names: read and written for every network that it shares with torchvision, and refused for the others."""

import ast
import collections
import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

import convert
import jaxzoo
from convert import dialects
from convert.__main__ import main
from convert.fitting import fit_weights
from convert.identify import _by_size, fitting
from convert.names import in_dialect, located
from convert.twins import abstract_twin, arrays, build_twin, randomise
from convert.weights import Weights
from jaxzoo import UsageError
from tests.convert.test_commands import fails
from tests.representatives import REPRESENTATIVES

# torchvision's name, timm's, and the smallest size in pixels at which both compute the same.
# fmt: off
TWINS = {
    **{name: (name, 64) for name in (
        "densenet121", "densenet161", "densenet169", "densenet201", "resnet18", "resnet34", "resnet50", "resnet101",
        "resnet152", "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2",
        "vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn", "convnext_tiny",
        "convnext_small", "convnext_base", "convnext_large", "efficientnet_b0", "efficientnet_b1", "efficientnet_b2",
        "efficientnet_b3", "efficientnet_b4",
    )},
    "inception_v3": ("inception_v3", 299),
    "mnasnet0_5": ("mnasnet_050", 64),
    "mnasnet0_75": ("mnasnet_075", 64),
    "mnasnet1_0": ("mnasnet_100", 64),
    "mobilenet_v2": ("mobilenetv2_100", 64),
    "regnet_x_400mf": ("regnetx_004_tv", 64),
    "regnet_x_800mf": ("regnetx_008", 64),
    "regnet_x_1_6gf": ("regnetx_016", 64),
    "regnet_x_3_2gf": ("regnetx_032", 64),
    "regnet_x_8gf": ("regnetx_080", 64),
    "regnet_x_16gf": ("regnetx_160", 64),
    "regnet_x_32gf": ("regnetx_320", 64),
    "regnet_y_400mf": ("regnety_004", 64),
    "regnet_y_800mf": ("regnety_008_tv", 64),
    "regnet_y_1_6gf": ("regnety_016", 64),
    "regnet_y_3_2gf": ("regnety_032", 64),
    "regnet_y_8gf": ("regnety_080_tv", 64),
    "regnet_y_16gf": ("regnety_160", 64),
    "regnet_y_32gf": ("regnety_320", 64),
    "regnet_y_128gf": ("regnety_1280", 64),
    "swin_t": ("swin_tiny_patch4_window7_224", 224),
    "swin_s": ("swin_small_patch4_window7_224", 224),
    "swin_b": ("swin_base_patch4_window7_224", 224),
    "swin_v2_t": ("swinv2_tiny_window8_256", 256),
    "swin_v2_s": ("swinv2_small_window8_256", 256),
    "swin_v2_b": ("swinv2_base_window8_256", 256),
    "vit_b_16": ("vit_base_patch16_224", 64),
    "vit_b_32": ("vit_base_patch32_224", 64),
    "vit_l_16": ("vit_large_patch16_224", 64),
    "vit_l_32": ("vit_large_patch32_224", 64),
    "vit_h_14": ("vit_huge_patch14_224", 56),
}
# The same tensors in the same order, and another function: the epsilon of the normalisation is the reason.
OTHERS = {
    "efficientnet_b5": "efficientnet_b5",
    "efficientnet_b6": "efficientnet_b6",
    "efficientnet_b7": "efficientnet_b7",
    "efficientnet_v2_s": "efficientnetv2_s",
    "efficientnet_v2_m": "efficientnetv2_m",
    "efficientnet_v2_l": "efficientnetv2_l",
    "mobilenet_v3_large": "mobilenetv3_large_100",
    "mobilenet_v3_small": "mobilenetv3_small_100",
}
# fmt: on


def timm_arguments(name: str, size: int | None = None) -> dict:
    """What makes timm's network the one that torchvision's builder builds."""
    if name == "inception_v3":
        return {"aux_logits": True}
    return {"num_classes": 1000} | ({"img_size": size} if name.startswith("vit") and size else {})


def on_meta(name: str) -> torch.nn.Module:
    with torch.device("meta"):
        return timm.create_model(TWINS[name][0], **timm_arguments(name))


def placeholders(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {key: np.broadcast_to(np.float32(0), tensor.shape) for key, tensor in module.state_dict().items()}


def shapes(tensors: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {key: array.shape for key, array in tensors.items()}


def fill(module: torch.nn.Module, tensors: dict[str, np.ndarray]) -> None:
    """`load_state_dict`, with the versions that torchvision's MNASNet asks for."""
    state = collections.OrderedDict((key, torch.from_numpy(array)) for key, array in tensors.items())
    state._metadata = module.state_dict()._metadata
    module.load_state_dict(state, strict=True)


@torch.no_grad()
def distance(ours: torch.nn.Module, theirs: torch.nn.Module, size: int) -> float:
    """Between the logits of two networks in float64, relative to theirs."""
    x = torch.randn(1, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits = []
    for module in (ours, theirs):
        y = module.double().eval()(x)
        logits.append(y[0] if isinstance(y, tuple) else y)  # timm's Inception runs its auxiliary head in eval mode too
        module.float()  # the largest have no room for both in float64
    return float((logits[0] - logits[1]).abs().max() / logits[1].abs().max())


@pytest.mark.parametrize("name", TWINS)
def test_names_and_shapes_lead_there_and_back(name):
    ours, theirs = placeholders(abstract_twin(jaxzoo.card(name))), placeholders(on_meta(name))
    written = dialects.written("timm", name, ours)
    assert shapes(written.tensors) == shapes(theirs)
    back = written.table.read(theirs)
    assert shapes(back) == {key: shape for key, shape in shapes(ours).items() if not written.table.derives(key)}


@pytest.mark.full(*REPRESENTATIVES - {"resnext50_32x4d", "vgg11"})
@pytest.mark.parametrize("name", TWINS)
def test_timms_network_computes_the_same_in_both_directions(name):
    theirs, size = TWINS[name]
    torch.manual_seed(0)
    ours = build_twin(jaxzoo.card(name), **({"image_size": size} if name.startswith("vit") else {}))
    theirs = timm.create_model(theirs, **timm_arguments(name, size))
    randomise(ours, seed=0)
    written = dialects.written("timm", name, arrays(ours))
    fill(theirs, written.tensors)
    assert distance(ours, theirs, size) <= 1e-9

    randomise(theirs, seed=1)
    read = written.table.read(arrays(theirs))
    derived = {key: array for key, array in arrays(ours).items() if written.table.derives(key)}
    fill(ours, read | derived)
    assert distance(ours, theirs, size) <= 1e-9


@pytest.mark.full
@pytest.mark.parametrize("name", OTHERS)
def test_what_is_refused_computes_something_else(name):
    """Another epsilon, and nothing but that."""
    torch.manual_seed(0)
    ours = build_twin(jaxzoo.card(name))
    for arguments, same in ({}, False), ({"bn_eps": 1e-3}, True):
        theirs = timm.create_model(OTHERS[name], **arguments)
        randomise(theirs, seed=0)
        tensors = arrays(theirs).values()
        state = {
            key: array.reshape(t.shape) for (key, t), array in zip(ours.state_dict().items(), tensors, strict=True)
        }
        fill(ours, state)
        assert (distance(ours, theirs, 64) <= 1e-9) is same


@pytest.mark.parametrize("name", ["efficientnet_b5", "efficientnet_v2_s", "mobilenet_v3_small"])
def test_refusals_are_one_sentence_with_the_reason(name):
    with torch.device("meta"):
        theirs = Weights(Path("timm.pth"), placeholders(timm.create_model(OTHERS[name])))
    with pytest.raises(UsageError, match=r"timm.* epsilon 1e-05.* 0\.001"):
        located(name, theirs)
    with pytest.raises(UsageError, match=r"timm has no network that computes"):
        in_dialect(name, "timm", placeholders(abstract_twin(jaxzoo.card(name))))


def test_the_namesakes_that_pad_otherwise_are_warned_of():
    weights = Weights(Path("b0.pth"), placeholders(on_meta("efficientnet_b0")))
    with pytest.warns(UserWarning, match="tf_ networks bear the same names"):
        assert located("efficientnet_b0", weights).dialect == "timm"


@pytest.mark.parametrize("name", ["swin_t", "swin_v2_t"])
def test_swins_official_names_lead_to_the_same_tensors_as_timms(name):
    """In Microsoft's repository, and in timm before 0.9, a stage ends with its reduction, and tables are stored."""
    with torch.device("meta"):
        tensors = timm.create_model(TWINS[name][0], num_classes=10).state_dict()
    theirs = {key: np.broadcast_to(np.float32(i), t.shape) for i, (key, t) in enumerate(tensors.items())}
    official = {}
    for key, array in theirs.items():
        key = re.sub(r"^layers\.(\d)\.downsample", lambda found: f"layers.{int(found[1]) - 1}.downsample", key)
        official[key.replace("head.fc", "head")] = array
    blocks = [key.removesuffix("norm1.bias") for key in theirs if key.endswith("norm1.bias")]
    official |= {f"{block}attn.relative_position_index": np.zeros((49, 49), int) for block in blocks}
    official |= {f"{block}attn_mask": np.zeros((4, 49, 49)) for block in blocks[1::2]}
    if name == "swin_v2_t":
        official |= {f"{block}attn.relative_coords_table": np.zeros((1, 15, 15, 2)) for block in blocks}
    given = {"Microsoft": official, "timm": theirs}
    found = {dialect: located(name, Weights(Path("a.pth"), tensors)) for dialect, tensors in given.items()}
    assert all(weights.dialect == dialect for dialect, weights in found.items())
    read, expected = (fit_weights(name, weights) for weights in found.values())
    assert read.arguments == {"num_classes": 10} and "attn_mask (6 tensors)" in read.notes[0]
    assert read.tensors.keys() == expected.tensors.keys()
    assert all(np.array_equal(read.tensors[key], array) for key, array in expected.tensors.items())


def test_a_file_without_the_heads_of_training_is_tried_with_its_model_first():
    torch.manual_seed(0)
    tensors = placeholders(abstract_twin(jaxzoo.card("googlenet"), aux_logits=False, num_classes=7))
    assert _by_size(tensors)[0][0] == "googlenet"
    found, _ = fitting(tensors)
    assert found == {"googlenet": ["aux_logits=False", "num_classes=7"]}


def test_arguments_are_read_from_timms_shapes():
    with torch.device("meta"):
        theirs = timm.create_model(TWINS["vit_b_16"][0], img_size=384, num_classes=17)
    weights = located("vit_b_16", Weights(Path("vit.pth"), placeholders(theirs)))
    assert fit_weights("vit_b_16", weights).arguments == {"num_classes": 17, "image_size": 384}


@pytest.mark.parametrize("name", ["densenet121", "vgg11", "swin_t", "vit_b_32", "convnext_tiny", "regnet_x_400mf"])
def test_the_references_own_names_stay(name):
    weights = Weights(Path("ours.pth"), placeholders(abstract_twin(jaxzoo.card(name))))
    assert located(name, weights) is weights


@pytest.mark.parametrize(
    ("name", "now", "then"),
    [("densenet121", r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2"), ("vit_b_32", r"mlp\.0", "mlp.linear_1")],
)
def test_files_of_older_torchvisions_are_read(name, now, then):
    ours = placeholders(abstract_twin(jaxzoo.card(name)))
    older = {re.sub(now, then, key): array for key, array in ours.items()}
    assert older.keys() != ours.keys()
    assert shapes(located(name, Weights(Path("older.pth"), older)).tensors) == shapes(ours)


def test_to_flax_reads_timms_names_and_to_torch_writes_them(tmp_path, capsys):
    theirs = timm.create_model(TWINS["swin_t"][0], num_classes=7)
    save_file(theirs.state_dict(), tmp_path / "timm.safetensors")
    command = ["to-flax", "--model", "swin_t", "--out", str(tmp_path / "flax")]
    main([*command, "--weights", str(tmp_path / "timm.safetensors")])
    assert "7 classes, 185 tensors by timm's names" in capsys.readouterr().out
    main(["to-torch", "--from", str(tmp_path / "flax"), "--out", str(tmp_path / "back.pth"), "--dialect", "timm"])
    back = torch.load(tmp_path / "back.pth")
    assert back.keys() == theirs.state_dict().keys()
    assert all(torch.equal(back[key], tensor) for key, tensor in theirs.state_dict().items())
    main(["to-torch", "--from", str(tmp_path / "flax"), "--out", str(tmp_path / "ours.pth")])
    ours = build_twin(jaxzoo.card("swin_t"), num_classes=7)
    index = {key: tensor for key, tensor in ours.state_dict().items() if key.endswith("relative_position_index")}
    ours.load_state_dict(torch.load(tmp_path / "ours.pth"), strict=True)
    assert all(torch.equal(ours.state_dict()[key], tensor) for key, tensor in index.items())
    assert distance(ours, theirs, 224) <= 1e-9


def test_a_network_without_a_twin_in_timm_is_not_written(tmp_path, twin, weights, capsys):
    main(["to-flax", "--model", "mobilenet_v3_small", "--weights", weights, "--out", str(tmp_path / "flax")])
    line = fails(capsys, "to-torch", "--from", tmp_path / "flax", "--out", tmp_path / "a.pth", "--dialect", "timm")
    assert "mobilenet_v3_small cannot be written in timm's names" in line
    assert not (tmp_path / "a.pth").exists()


def test_networks_that_are_timms_have_its_names_already():
    tensors = {"conv_stem.weight": np.ones(1)}
    assert in_dialect("efficientnet_lite0", "timm", tensors) == tensors


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("swin_v2_t", {"num_classes": 5}, "swin_v2_t (num_classes=5, by timm's names)"),
        ("mobilenet_v2", {}, "mobilenet_v2 (num_classes=1000, by timm's names)"),
        ("resnet18", {"num_classes": 10}, "resnet18 (num_classes=10)"),
    ],
)
def test_inspect_names_the_architecture(tmp_path, capsys, name, arguments, says):
    torch.save(timm.create_model(TWINS[name][0], **arguments).state_dict(), tmp_path / "timm.pth")
    main(["inspect", str(tmp_path / "timm.pth")])
    assert f"fits: {says}" in capsys.readouterr().out


@pytest.mark.full("fcn16s", "mobilenet_v2", "mobilevitv2_050", "resnext50_32x4d", "swin_v2_t", "unet_resnet18", "vgg11")
@pytest.mark.parametrize("name", jaxzoo.list_models())
def test_inspect_tells_every_architecture_and_its_classes(name):
    known = [placeholders(abstract_twin(jaxzoo.card(name)))] + ([placeholders(on_meta(name))] if name in TWINS else [])
    for tensors in known:
        found, _ = fitting(tensors)
        assert [*found] == [name]
        assert found[name][0].startswith("num_classes=")


def test_templates_reckon():
    template = dialects.Template("features.{2i+1}.{j}.block{j}.*")
    assert template.match("features.5.3.block3.a.b") == {"i": 2, "j": 3, "*": "a.b"}
    assert template.match("features.4.3.block3.a") is None
    assert template.match("features.5.3.block4.a") is None
    assert template.fill({"i": 2, "j": 3, "*": "a"}) == "features.5.3.block3.a"


def test_the_converter_names_no_model():
    names = set(jaxzoo.list_models())
    folder = Path(convert.__file__).parent
    for path in {*folder.rglob("*.py")} - {*(folder / "twins").glob("*.py")}:
        tree = ast.parse(path.read_text())
        texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        assert not texts & names, path
