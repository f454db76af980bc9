"""`to-flax`, then `to-torch`: every bit comes back, and the twin takes it strictly."""

import tempfile
from pathlib import Path

import pytest
import torch

from convert.__main__ import main
from convert.twins import abstract_twin
from jaxzoo import card, list_models


def random_state(name: str) -> dict[str, torch.Tensor]:
    """A state_dict of the twin's own names, order, shapes and dtypes, every tensor random."""
    generator = torch.Generator().manual_seed(0)
    state = abstract_twin(card(name)).state_dict()
    return {
        key: torch.randn(t.shape, generator=generator, dtype=t.dtype)
        if t.is_floating_point()
        else torch.randint(1000, t.shape, generator=generator)
        for key, t in state.items()
    }


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1).view(torch.uint8)


def round_trip(name: str, folder: Path) -> None:
    state = random_state(name)
    torch.save(state, folder / "in.pth")
    main(["to-flax", "--model", name, "--weights", str(folder / "in.pth"), "--out", str(folder / "flax")])
    main(["to-torch", "--from", str(folder / "flax"), "--out", str(folder / "out.pth")])
    back = torch.load(folder / "out.pth", weights_only=True, mmap=True)
    assert [*back] == [*state]
    for key, tensor in state.items():
        assert (back[key].dtype, back[key].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(bits(back[key]), bits(tensor)), key
    abstract_twin(card(name)).load_state_dict(back, strict=True, assign=True)


@pytest.mark.full("lenet5", "mnasnet0_5", "mobilevitv2_050", "swin_v2_t")  # the ladder has the others, without files
@pytest.mark.parametrize("name", list_models())
def test_every_model_comes_back_bit_for_bit(tmp_path, name):
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:  # pytest would keep gigabytes
        round_trip(name, Path(folder))
