"""Weight files: found wherever scripts put them, never run, refused in one sentence."""

import argparse
import collections
import datetime
import os
import pathlib
import pickle
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.optim.swa_utils import AveragedModel

import convert
from convert import files
from jaxzoo import UsageError

STATE = {"conv.weight": torch.randn(4, 3, 3, 3), "bn.num_batches_tracked": torch.tensor(7)}
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn]
DTYPES += [torch.int64, torch.int32, torch.uint8, torch.bool, torch.uint16]


def saved(tmp_path, content, **options) -> str:
    torch.save(content, tmp_path / "file.pth", **options)
    return str(tmp_path / "file.pth")


def assert_is_state(tensors):
    assert list(tensors) == list(STATE)
    for key, tensor in STATE.items():
        np.testing.assert_array_equal(tensors[key], tensor.numpy(), strict=True)


NESTINGS = {
    "plain": STATE,
    "state_dict": {"state_dict": STATE, "epoch": 3},
    "model": {"model": STATE, "args": argparse.Namespace(lr=0.1, out=pathlib.PosixPath("runs")), "best": np.float64(1)},
    "leftovers": {
        "weights": STATE,
        "version": torch.__version__,
        "date": datetime.datetime(2026, 1, 1),
        "a": np.ones(2),
    },
    "model_state_dict": {"model_state_dict": collections.OrderedDict(STATE)},
    "ema.module": {"ema": {"module": STATE, "decay": 0.99}},
    "deep": {"checkpoint": {"weights": {"net": STATE}}},
    "unknown": {"my_favourite_model": STATE},
    "optimizer": {"model": STATE, "optimizer": {"state": {0: {"exp_avg": torch.ones(4, 3)}}, "param_groups": []}},
    "scalars": {"model": STATE, "statistics": {"accuracy": torch.tensor(0.9)}},
    "parameters": {"params": {key: torch.nn.Parameter(t, t.is_floating_point()) for key, t in STATE.items()}},
}
PREFIXES = ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."]


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("nesting", NESTINGS)
def test_weights_are_found_wherever_they_are_nested(tmp_path, nesting, legacy):
    path = saved(tmp_path, NESTINGS[nesting], _use_new_zipfile_serialization=not legacy)
    assert_is_state(convert.read(path))


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_are_taken_off(tmp_path, prefix):
    path = saved(tmp_path, {"state_dict": {prefix + key: tensor for key, tensor in STATE.items()}})
    assert_is_state(convert.read(path))
    assert files.contents(path).prefix == prefix


def test_a_prefix_that_only_some_names_have_stays(tmp_path):
    state = {"module.weight": torch.ones(2), "head.weight": torch.ones(3)}
    assert convert.read(saved(tmp_path, state)).keys() == state.keys()


def test_compiled_submodules_lose_their_mark(tmp_path):
    path = saved(tmp_path, {"features._orig_mod.0.weight": torch.ones(2), "head.weight": torch.ones(3)})
    assert list(convert.read(path)) == ["features.0.weight", "head.weight"]


def test_an_averaged_model_is_read_without_its_counter(tmp_path):
    layer = torch.nn.Linear(2, 3)
    path = saved(tmp_path, AveragedModel(layer).state_dict())
    assert convert.read(path).keys() == layer.state_dict().keys()
    assert files.contents(path).dropped == ["n_averaged"]


def test_of_several_sets_one_has_to_be_named(tmp_path):
    ema = {key: tensor + 1 for key, tensor in STATE.items()}
    path = saved(tmp_path, {"model": ema, "model_ema": STATE})
    with pytest.raises(UsageError, match=r"file\.pth#model, file\.pth#model_ema"):
        convert.read(path)
    assert_is_state(convert.read(f"{path}#model_ema"))
    with pytest.raises(UsageError, match="no weights under 'net'"):
        convert.read(f"{path}#net")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_every_dtype_and_view_is_what_torch_reads(tmp_path, legacy):
    base = torch.arange(24.0).reshape(4, 6)
    dtypes = [d for d in DTYPES if not legacy or d not in (torch.float8_e4m3fn, torch.uint16)]  # are younger
    state = {str(dtype): torch.tensor([[0, 1, 3]]).to(dtype).t() for dtype in dtypes}
    state |= {"scalar": torch.tensor(2.0).bfloat16(), "whole": base, "conjugate": torch.tensor([1j]).conj()}
    state |= {"transposed": base.t(), "part": base[1:3, 2], "wide": base[:1].expand(5, 6), "empty": base[:0]}
    read = convert.read(saved(tmp_path, state, _use_new_zipfile_serialization=not legacy))
    for key, tensor in state.items():
        assert str(tensor.dtype) == f"torch.{read[key].dtype.name}"
        assert read[key].shape == tuple(tensor.shape)
        assert torch.equal(files.to_torch(read[key]).cfloat(), tensor.cfloat())
        read[key][...] = 0  # a copy of one's own


def test_a_mapped_file_is_not_copied(tmp_path):
    path = saved(tmp_path, {"weight": torch.ones(1000, 1000).bfloat16()})
    read = convert.read(path, mmap=True)
    assert (read["weight"] == 1).all()
    assert not read["weight"].flags.writeable
    assert path in pathlib.Path("/proc/self/maps").read_text()


def test_a_tensor_that_numpy_cannot_hold_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"torch.sparse_coo torch.float32 tensor mask"):
        convert.read(saved(tmp_path, {"weight": torch.ones(2), "mask": torch.eye(3).to_sparse()}))


class Malicious:
    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_pickle_that_would_run_code_does_not(tmp_path, legacy):
    bomb = Malicious()
    bomb.mark = tmp_path / "it ran"
    path = saved(tmp_path, {"state_dict": STATE, "extra": bomb}, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UsageError, match=r"holds posix\.system.*nothing was run"):
        convert.read(path)
    for protocol, message in (2, r"posix\.system"), (4, "neither a torch file"):  # torch knows no younger one than 3
        (tmp_path / "bare.pth").write_bytes(pickle.dumps(bomb, protocol))
        with pytest.raises(UsageError, match=rf"{message}.*nothing .*was run"):
            convert.read(tmp_path / "bare.pth")
    assert not bomb.mark.exists()


@pytest.mark.parametrize("name", ["eval", "exec", "getattr", "__import__"])
def test_builtins_are_refused(tmp_path, name):
    (tmp_path / "file.pth").write_bytes(b"cbuiltins\n" + name.encode() + b"\n(S'1+1'\ntR.")
    with pytest.raises(UsageError, match=f"holds {name}, not only tensors"):
        convert.read(tmp_path / "file.pth")


def test_a_whole_pickled_model_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(UsageError, match=r"torch\.nn\.modules\.linear\.Linear.*model\.state_dict\(\)"):
        convert.read(saved(tmp_path, torch.nn.Linear(2, 2)))


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_a_torchscript_program_is_refused(tmp_path):
    path = str(tmp_path / "file.pt")
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), path)
    with pytest.raises(UsageError, match="TorchScript"):
        convert.read(path)


def test_a_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path):
    path = saved(tmp_path, {"weight": torch.ones(4)})
    content = pathlib.Path(path).read_bytes()
    pathlib.Path(path).write_bytes(content.replace(b"K\x04\x85", b"K\x63\x85"))  # the shape (4,) becomes (99,)
    with pytest.raises(UsageError, match="damaged"):
        convert.read(path)


def test_bad_paths_and_files_are_named(tmp_path, weights):
    whole = pathlib.Path(weights).read_bytes()
    legacy = pathlib.Path(saved(tmp_path, STATE, _use_new_zipfile_serialization=False)).read_bytes()
    contents = {
        "empty.pth": (b"", "is empty"),
        "text.pth": (b"hello, I am no checkpoint\n", "neither a torch file nor safetensors"),
        "short.pth": (whole[: len(whole) // 2], "cut short"),
        "tiny.pth": (whole[:7], "cut short"),
        "old.pth": (legacy[:-20], "damaged"),
        "header.safetensors": ((10**6).to_bytes(8, "little") + b'{"a": 1}', "cut short"),
        "pickle.pth": (pickle.dumps({"lr": 0.1}), "neither a torch file"),
    }
    for name, (content, message) in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=message) as error:
            convert.read(tmp_path / name)
        assert name in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match="there is no file"):
        convert.read(tmp_path / "nowhere.pth")
    with pytest.raises(UsageError, match="is a directory"):
        convert.read(tmp_path)
    with pytest.raises(UsageError, match="holds no named tensors"):
        convert.read(saved(tmp_path, {"epoch": 3}))
    with pytest.raises(UsageError, match="it is a list"):
        convert.read(saved(tmp_path, [torch.ones(2)]))


@pytest.mark.filterwarnings("ignore:.*NaN or infinity")
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_whatever_is_damaged_it_is_one_kind_of_error(tmp_path, kind):
    whole, damaged = tmp_path / "whole", tmp_path / "damaged"
    if kind == "safetensors":
        save_file(STATE, whole)
    else:
        torch.save({"model": STATE}, whole, _use_new_zipfile_serialization=kind == "zip")
    content, random = whole.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        changed = bytearray(content)
        changed[random.integers(min(len(content), 900))] = random.integers(256)
        damaged.write_bytes(changed)
        try:
            convert.read(damaged)
        except UsageError:
            refused += 1
    assert refused > 6


def test_nan_and_infinity_are_warned_of_by_name(tmp_path):
    state = {"good": torch.full((9,), 3e38), "bad": torch.tensor([1.0, torch.nan]), "inf": torch.tensor([torch.inf])}
    state["brain"] = state["bad"].bfloat16()
    with pytest.warns(UserWarning, match="NaN or infinity in bad, inf, brain"):
        convert.read(saved(tmp_path, state))


def test_safetensors_are_read_in_every_dtype(tmp_path):
    state = {str(dtype): torch.tensor([0, 1, 3]).to(dtype) for dtype in DTYPES} | {"scalar": torch.tensor(3)}
    save_file(state, tmp_path / "file.safetensors", metadata={"format": "pt"})
    read = convert.read(tmp_path / "file.safetensors")
    assert read.keys() == state.keys()
    for key, tensor in state.items():
        assert str(tensor.dtype) == f"torch.{read[key].dtype.name}"
        assert torch.equal(files.to_torch(read[key]).double(), tensor.double())
    content = (tmp_path / "file.safetensors").read_bytes()
    (tmp_path / "short.safetensors").write_bytes(content[:-3])
    with pytest.raises(UsageError, match="cut short"):
        convert.read(tmp_path / "short.safetensors")


WITHOUT_TORCH = """
import sys

class NoTorch:
    def find_spec(name, *args):
        if name == "torch":
            raise ImportError(name)

sys.meta_path.insert(0, NoTorch)
from convert.__main__ import main

main(sys.argv[1:])
"""


def test_safetensors_need_no_torch_and_torch_files_say_how_to_get_it(tmp_path, weights, twin):
    def run(*command: object) -> str:
        command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, command)]
        return subprocess.run(command, capture_output=True, text=True).stderr

    def to_flax(file: object) -> str:
        return run("to-flax", "--model", "mobilenet_v3_small", "--weights", file, "--out", tmp_path / "flax")

    hint = "needs PyTorch: pip install 'jaxzoo-vision[torch]'\n"
    save_file(twin.state_dict(), tmp_path / "file.safetensors")
    assert to_flax(weights) == f"error: reading {weights} {hint}"
    assert to_flax(tmp_path / "file.safetensors") == ""
    assert run("to-torch", "--from", tmp_path / "flax", "--out", tmp_path / "back.safetensors") == ""
    assert run("to-torch", "--from", tmp_path / "flax", "--out", "back.pth") == f"error: writing .pth files {hint}"
    back = convert.read(tmp_path / "back.safetensors")
    assert all(torch.equal(files.to_torch(back[key]), tensor) for key, tensor in twin.state_dict().items())


@pytest.mark.parametrize("ending", ["pth", "pt", "safetensors"])
def test_what_is_written_is_what_torch_reads(tmp_path, ending):
    arrays = {
        "double": np.arange(6.0).reshape(2, 3).T,
        "half": np.ones((2, 2), np.float16),
        "brain": np.array([1.5], ml_dtypes.bfloat16),
        "count": np.array(2**40),
    }
    path = tmp_path / f"file.{ending}"
    files.write(path, arrays)
    if ending == "safetensors":
        from safetensors.torch import load_file

        read = load_file(path)
    else:
        read = torch.load(path, weights_only=True)
    assert {key: (str(t.dtype), tuple(t.shape)) for key, t in read.items()} == {
        key: (f"torch.{a.dtype.name}", a.shape) for key, a in arrays.items()
    }
    for key, tensor in read.items():
        np.testing.assert_array_equal(tensor.double().numpy(), arrays[key].astype(np.float64))
    with pytest.raises(UsageError, match="exists already"):
        files.write(path, arrays)
    with pytest.raises(UsageError, match=r"\.pth, \.pt or \.safetensors"):
        files.write(tmp_path / "file.bin", arrays)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
