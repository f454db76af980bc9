"""Detectors' files by the names that torchvision has given up, and those that it still publishes."""

import re

import numpy as np
import pytest
import torch
from flax import nnx

import convert
import jaxzoo
from convert.__main__ import main
from convert.twins import abstract_twin
from jaxzoo.nn.ops import FrozenBatchNorm2d
from tests.convert.test_round_trip import bits

# By what ends in a convolution without norm today: the module before 0, and its former name.
FORMER = (
    (r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.0\.", r"\1."),
    (r"^rpn\.head\.conv\.0\.0\.", "rpn.head.conv."),
    (r"^roi_heads\.mask_head\.(\d)\.0\.", lambda m: f"roi_heads.mask_head.mask_fcn{int(m[1]) + 1}."),
    (r"^(head\.\w+_head\.conv)\.(\d)\.0\.", lambda m: f"{m[1]}.{2 * int(m[2])}."),
)
# The published files, and how many of their names have been given up.
FILES = {
    "retinanet_resnet50_fpn": ("retinanet_resnet50_fpn_coco-eeacb38b.pth", 2 * (3 + 3 + 4 + 4), 0.0),
    "fasterrcnn_resnet50_fpn": ("fasterrcnn_resnet50_fpn_coco-258fb6c6.pth", 2 * (4 + 4 + 1), 0.0),
    "maskrcnn_resnet50_fpn": ("maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth", 2 * (4 + 4 + 1 + 4), 0.0),
    "keypointrcnn_resnet50_fpn": ("keypointrcnn_resnet50_fpn_coco-fc266e95.pth", 2 * (4 + 4 + 1), 0.0),
    "fasterrcnn_mobilenet_v3_large_fpn": ("fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7.pth", 2 * (2 + 2 + 1), 1e-5),
}


def former(name: str) -> str:
    for pattern, other in FORMER:
        name = re.sub(pattern, other, name)
    return name


def published(name: str) -> dict[str, torch.Tensor]:
    """A file's tensors by today's names, as torchvision publishes them: batch norms frozen, random numbers."""
    state = abstract_twin(jaxzoo.card(name), freeze_batch_norm=True).state_dict()
    generator = torch.Generator().manual_seed(0)
    return {key: torch.rand(t.shape, generator=generator) for key, t in state.items()}


@pytest.mark.parametrize("name", FILES)
def test_a_published_file_with_all_former_names(tmp_path, name):
    file, given_up, eps = FILES[name]
    state = published(name)
    renamed = {former(key): tensor for key, tensor in state.items()}
    assert len(renamed.keys() - state.keys()) == given_up and len(renamed) == len(state)
    torch.save(renamed, tmp_path / file)
    model = convert.load(name, tmp_path / file)
    norms = [m for _, m in nnx.iter_modules(model.backbone.body) if isinstance(m, FrozenBatchNorm2d)]
    assert norms and {norm.eps for norm in norms} == {eps}
    back = convert.state_dict(model)
    assert back.keys() == state.keys()
    assert all(np.array_equal(back[key], tensor.numpy()) for key, tensor in state.items())


def test_former_names_by_command_line(tmp_path):
    name = "retinanet_resnet50_fpn"
    state = published(name)
    torch.save(
        {former(key): tensor for key, tensor in state.items()}, tmp_path / "retinanet_resnet50_fpn_coco-eeacb38b.pth"
    )
    file = tmp_path / "retinanet_resnet50_fpn_coco-eeacb38b.pth"
    main(["to-flax", "--model", name, "--weights", str(file), "--out", str(tmp_path / "flax")])
    main(["to-torch", "--from", str(tmp_path / "flax"), "--out", str(tmp_path / "back.pth")])
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert [*back] == [*state] and all(torch.equal(bits(back[key]), bits(state[key])) for key in state)
    abstract_twin(jaxzoo.card(name), freeze_batch_norm=True).load_state_dict(back, strict=True, assign=True)
