"""Kinds and depths of parameters, for models of the zoo and for those of users."""

import collections

import pytest
import timm
import timm.optim
import torch
from flax import nnx

from convert import rules
from convert.shapes import abstract
from convert.twins import abstract_twin
from jaxzoo import card, nn
from train.optim.parameter_groups import depths, parameter_kinds

NETWORKS = ("resnet18", "vit_b_16", "swin_v2_t", "convnext_tiny", "mobilenet_v3_small", "vgg11_bn", "mobilevit_xxs")
TORCH_NORMS = (torch.nn.modules.batchnorm._BatchNorm, torch.nn.LayerNorm, torch.nn.GroupNorm)


@pytest.mark.parametrize("name", NETWORKS)
def test_kinds_go_by_torchs_layers(name):
    """Of its modules in the reference, norms by their type and the rest by torch's names."""
    expected = {}
    for path, module in abstract_twin(card(name)).named_modules():
        for leaf, _ in module.named_parameters(recurse=False):
            word = leaf.removeprefix("in_proj_")
            kind = {"weight": "kernel", "bias": "bias"}.get(word, "table")
            expected[f"{path}.{leaf}" if path else leaf] = "norm" if isinstance(module, TORCH_NORMS) else kind
    model = abstract(name)
    kinds = parameter_kinds(model)
    assert {leaf.key: kinds[leaf.path] for leaf in rules.leaves(model) if leaf.path in kinds} == expected


def test_tables_are_what_has_neither_kernel_nor_bias():
    found = {}
    for name in ("vit_b_16", "swin_t", "swin_v2_t", "convnext_tiny", "maxvit_t", "lenet5"):
        found |= parameter_kinds(abstract(name))
    assert {path.split(".")[-1] for path, kind in found.items() if kind == "table"} == {
        *("class_token", "pos_embedding", "relative_position_bias_table", "logit_scale", "layer_scale", "coefficient")
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_lies_somewhere_and_the_head_deepest(name):
    model = abstract(name)
    found = depths(model)
    assert found.keys() == parameter_kinds(model).keys()
    assert set(found.values()) == set(range(max(found.values()) + 1))
    assert found[list(rules.leaves(model))[-1].path] == max(found.values())


def counts(name: str) -> list[int]:
    """How many parameters lie at each depth."""
    found = collections.Counter(depths(abstract(name)).values())
    return [found[depth] for depth in range(len(found))]


def test_layers_of_a_vision_transformer_are_timms():
    with torch.device("meta"):
        twin = timm.create_model("vit_base_patch16_224")
    groups = timm.optim.param_groups_layer_decay(twin, weight_decay=0.1, layer_decay=0.5)
    expected = collections.Counter()
    for group in groups:
        expected[group["lr_scale"]] += len(group["params"])
    assert counts("vit_b_16") == [expected[scale] for scale in sorted(expected)]


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("resnet18", 1 + 8 + 1),
        ("resnet50", 1 + 16 + 1),
        ("swin_t", 1 + 12 + 3 + 1),
        ("convnext_tiny", 1 + 18 + 3 + 1),
        ("vgg11_bn", 8 + 3),
        ("mobilenetv1_100", 1 + 13 + 1),
        ("googlenet", 3 + 9 + 2 + 1),
        ("regnet_y_400mf", 1 + 16 + 1),
    ],
)
def test_every_block_is_one_deeper_than_the_one_before(name, blocks):
    assert len(counts(name)) == blocks


def test_a_norm_goes_with_what_is_before_it():
    resnet, swin = depths(abstract("resnet18")), depths(abstract("swin_t"))
    assert resnet["bn1.scale"] == resnet["conv1.kernel"] == 0
    assert swin["features.0.2.scale"] == swin["features.0.0.kernel"] == 0
    assert swin["norm.scale"] == swin["head.kernel"] - 1 == swin["features.7.1.norm1.scale"]


class Tagger(nnx.Module):
    """A user's network: Flax's own layers, a backbone under one name, a table of its own."""

    def __init__(self, rngs: nnx.Rngs):
        self.backbone = nn.ConvNormActivation(3, 8, rngs=rngs)
        self.middle = nnx.Sequential(*(nnx.Sequential(nnx.Linear(8, 8, rngs=rngs), nnx.relu) for _ in range(2)))
        self.norm = nnx.RMSNorm(8, rngs=rngs)
        self.words = nnx.Embed(4, 8, rngs=rngs)
        self.head = nnx.Linear(8, 4, rngs=rngs)


def test_models_of_users_have_kinds_and_depths_too():
    model = Tagger(nnx.Rngs(0))
    kinds, found = parameter_kinds(model), depths(model)
    assert kinds["norm.scale"] == "norm" and kinds["words.embedding"] == "table"
    assert kinds["middle.layers.0.layers.0.kernel"] == "kernel"
    assert [found[f"{path}.kernel"] for path in ("backbone.0", "middle.layers.0.layers.0", "head")] == [0, 1, 3]
    assert found["norm.scale"] == found["words.embedding"] == 2
