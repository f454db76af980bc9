"""The layer rules: every leaf both ways bit for bit, for our layers, for Flax's own, for anybody's modules."""

from collections import OrderedDict

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from flax import nnx
from PIL import Image
from safetensors.numpy import save_file
from safetensors.torch import load_file

import convert
import jaxzoo
from convert.rules import flax_arrays, torch_arrays
from jaxzoo import UsageError, nn
from jaxzoo.classification.vision_transformer import interpolate_embeddings
from tests.compare import arrays, cast, close, normal, randomise, to_last

RNGS = nnx.Rngs(0)
LAYERS = {
    "Conv": (lambda rngs: nn.Conv(4, 6, (3, 5), groups=2, rngs=rngs), lambda: torch.nn.Conv2d(4, 6, (3, 5), groups=2)),
    "Conv1d": (lambda rngs: nn.Conv(4, 6, (3,), rngs=rngs), lambda: torch.nn.Conv1d(4, 6, 3)),
    "Conv3d": (lambda rngs: nn.Conv(4, 6, (3, 1, 2), rngs=rngs), lambda: torch.nn.Conv3d(4, 6, (3, 1, 2))),
    "Conv bare": (lambda rngs: nn.Conv(4, 6, 3, bias=False, rngs=rngs), lambda: torch.nn.Conv2d(4, 6, 3, bias=False)),
    "ConvTranspose": (
        lambda rngs: nn.ConvTranspose(4, 6, (3, 5), groups=2, rngs=rngs),
        lambda: torch.nn.ConvTranspose2d(4, 6, (3, 5), groups=2),
    ),
    "Linear": (lambda rngs: nn.Linear(4, 6, rngs=rngs), lambda: torch.nn.Linear(4, 6)),
    "BatchNorm": (lambda rngs: nn.BatchNorm(4, rngs=rngs), lambda: torch.nn.BatchNorm2d(4)),
    "BatchNorm bare": (
        lambda rngs: nn.BatchNorm(4, affine=False, rngs=rngs),
        lambda: torch.nn.BatchNorm2d(4, affine=False),
    ),
    "LayerNorm": (lambda rngs: nn.LayerNorm(4, rngs=rngs), lambda: torch.nn.LayerNorm(4)),
    "GroupNorm": (lambda rngs: nn.GroupNorm(2, 4, rngs=rngs), lambda: torch.nn.GroupNorm(2, 4)),
    "Embed": (lambda rngs: nn.Embed(4, 6, rngs=rngs), lambda: torch.nn.Embedding(4, 6)),
    "MultiHeadAttention": (
        lambda rngs: nn.MultiHeadAttention(6, 2, dropout=0.1, rngs=rngs),
        lambda: torch.nn.MultiheadAttention(6, 2),
    ),
    "MultiHeadAttention bare": (
        lambda rngs: nn.MultiHeadAttention(6, 2, bias=False, rngs=rngs),
        lambda: torch.nn.MultiheadAttention(6, 2, bias=False),
    ),
    "MLP": (
        lambda rngs: nn.MLP(4, [6, 5], dropout=0.1, rngs=rngs),
        lambda: torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(6, 5)),
    ),
}
DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]


def same_bits(ours, theirs) -> None:
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype and ours[name].shape == array.shape, name
        assert np.ascontiguousarray(ours[name]).tobytes() == np.ascontiguousarray(array).tobytes(), name


def weights(layer: str, dtype=np.float32) -> dict[str, np.ndarray]:
    found = arrays(randomise(LAYERS[layer][1]()))
    return {name: a.astype(dtype) if np.issubdtype(a.dtype, np.floating) else a + 7 for name, a in found.items()}


@pytest.mark.parametrize("layer", LAYERS)
def test_torch_to_flax_to_torch_keeps_every_bit_name_and_place(layer):
    module, state_dict = LAYERS[layer][0](RNGS), weights(layer)
    convert.load_state_dict(module, state_dict)
    same_bits(convert.state_dict(module), state_dict)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layer", LAYERS)
def test_arrays_keep_their_dtype_on_the_way(layer, dtype):
    module, state_dict = nnx.eval_shape(lambda: LAYERS[layer][0](nnx.Rngs(0))), weights(layer, dtype)
    found = flax_arrays(module, state_dict)
    assert {a.dtype for name, a in found.items() if "num_batches" not in name} == {np.dtype(dtype)}
    same_bits(torch_arrays(module, found), state_dict)


@pytest.mark.parametrize("layer", LAYERS)
def test_flax_to_torch_to_flax_keeps_every_bit(layer):
    module, other = LAYERS[layer][0](RNGS), LAYERS[layer][0](RNGS)
    twin = LAYERS[layer][1]()
    twin.load_state_dict({name: torch.tensor(a) for name, a in convert.state_dict(module).items()}, strict=True)
    convert.load_state_dict(other, arrays(twin))
    same_bits(convert.state_dict(other), convert.state_dict(module))


class Block(nnx.Module):
    """As a user writes it, of Flax's own layers."""

    def __init__(self, rngs: nnx.Rngs):
        self.norm = nnx.LayerNorm(6, epsilon=1e-5, rngs=rngs)
        self.fc = nnx.Linear(6, 6, rngs=rngs)
        self.relative_position = nnx.Param(jnp.zeros((6, 4)))  # as wide as a Linear, and none

    def __call__(self, x):
        return x + self.fc(self.norm(x)) + self.relative_position[...].sum(1)


class Mine(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.stem = nnx.Sequential(
            nnx.Conv(3, 8, (3, 3), strides=2, padding=1, rngs=rngs),
            nnx.BatchNorm(8, momentum=0.9, rngs=rngs),
            nnx.relu,
            nnx.Conv(8, 8, (3, 3), padding=1, feature_group_count=4, use_bias=False, rngs=rngs),
        )
        self.up = nnx.ConvTranspose(8, 6, (3, 2), padding="VALID", transpose_kernel=True, rngs=rngs)
        self.up2 = nnx.ConvTranspose(6, 6, (2, 3), strides=(2, 2), padding="VALID", transpose_kernel=False, rngs=rngs)
        self.group_norm = nnx.GroupNorm(6, num_groups=3, epsilon=1e-5, rngs=rngs)
        self.table = nnx.Embed(5, 6, dtype=jnp.float64, rngs=rngs)  # would round to float32
        self.blocks = nnx.List([Block(rngs), Block(rngs)])
        self.heads = nnx.List([nnx.Sequential(nnx.Linear(6, 4, rngs=rngs), nnx.relu, nnx.Linear(4, 2, rngs=rngs))])
        self.scale = nnx.Param(jnp.ones(2))

    def __call__(self, x, index):
        x = self.group_norm(self.up2(self.up(self.stem(x)))).mean((1, 2)) + self.table(index)
        for block in self.blocks:
            x = block(x)
        return self.heads[0](x) * self.scale[...]


class TorchBlock(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.LayerNorm(6)
        self.fc = torch.nn.Linear(6, 6)
        self.relative_position = torch.nn.Parameter(torch.zeros(6, 4))

    def forward(self, x):
        return x + self.fc(self.norm(x)) + self.relative_position.sum(1)


class Twin(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, 2, 1),
            torch.nn.BatchNorm2d(8),
            torch.nn.ReLU(),
            torch.nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False),
        )
        self.up = torch.nn.ConvTranspose2d(8, 6, (3, 2))
        self.up2 = torch.nn.ConvTranspose2d(6, 6, (2, 3), 2)
        self.group_norm = torch.nn.GroupNorm(3, 6)
        self.table = torch.nn.Embedding(5, 6)
        self.blocks = torch.nn.ModuleList([TorchBlock(), TorchBlock()])
        head = OrderedDict({"0": torch.nn.Linear(6, 4), "1": torch.nn.ReLU(), "2": torch.nn.Linear(4, 2)})
        self.heads = torch.nn.ModuleList([torch.nn.Sequential(head)])
        self.scale = torch.nn.Parameter(torch.ones(2))

    def forward(self, x, index):
        x = self.group_norm(self.up2(self.up(self.stem(x)))).mean((2, 3)) + self.table(index)
        for block in self.blocks:
            x = block(x)
        return self.heads[0](x) * self.scale


@pytest.mark.parametrize("abstract", [False, True])
def test_a_users_own_module_of_flaxs_layers_computes_its_twins_function(abstract):
    module = nnx.eval_shape(lambda: Mine(nnx.Rngs(0))) if abstract else Mine(nnx.Rngs(0))
    twin = randomise(Twin()).eval()
    convert.load_state_dict(cast(module, jnp.float64), arrays(twin))
    module.eval()
    x, index = normal(2, 3, 9, 11), np.array([4, 0])
    close(module(jnp.asarray(to_last(x)), index), twin(torch.tensor(x), torch.tensor(index)))
    np.testing.assert_array_equal(module.blocks[1].relative_position[...], arrays(twin)["blocks.1.relative_position"])
    back = convert.state_dict(module)
    assert back.keys() == twin.state_dict().keys()
    Twin().double().load_state_dict({name: torch.tensor(a) for name, a in back.items()}, strict=True)
    assert all(np.array_equal(back[name], a) for name, a in arrays(twin).items())


def test_torchs_own_tensors_are_taken_as_they_are():
    twin = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    module = nn.Sequential(nn.Linear(3, 4, rngs=RNGS), nn.BatchNorm(4, rngs=RNGS))
    convert.load_state_dict(module, twin.state_dict())
    same_bits(convert.state_dict(module), arrays(twin))
    convert.load_state_dict(module, dict(twin.bfloat16().named_parameters()) | dict(twin.named_buffers()))
    np.testing.assert_array_equal(module[0].kernel[...].T, twin[0].weight.detach().float())


def test_weights_are_copied():
    """torch trains in place; the converted model must not follow."""
    for _ in range(8):  # whether memory could be shared depends on its alignment
        source = {"weight": np.ones((32, 16), np.float32), "bias": np.ones(32, np.float32)}
        module = nn.Linear(16, 32, rngs=RNGS)
        convert.load_state_dict(module, source)
        for array in source.values():
            array[:] = 2
        assert (module.bias[...] == 1).all() and (module.kernel[...] == 1).all()


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4, rngs=RNGS), nn.BatchNorm(4, rngs=RNGS), nn.Linear(4, 2, rngs=RNGS))


def test_all_that_is_missing_unexpected_and_misshapen_is_listed_at_once():
    module, state_dict = model(), convert.state_dict(model())
    del state_dict["0.bias"], state_dict["1.running_var"]
    state_dict |= {"3.weight": np.zeros((2, 2)), "0.scale": np.zeros(3), "2.weight": np.zeros((5, 4))}
    state_dict["1.weight"] = np.zeros((4, 1))
    before = convert.state_dict(module)
    with pytest.raises(UsageError) as error:
        convert.load_state_dict(module, state_dict)
    message = str(error.value)
    assert "missing (2): 0.bias (4,), 1.running_var (4,)" in message
    assert "unexpected (2): 3.weight (2, 2), 0.scale (3,)" in message
    assert "misshapen (2): 1.weight is (4, 1), should be (4,), 2.weight is (5, 4), should be (2, 4)" in message
    same_bits(convert.state_dict(module), before)


def test_a_transposed_weight_is_misshapen_and_not_turned_round():
    state_dict = convert.state_dict(model())
    state_dict["0.weight"] = state_dict["0.weight"].T
    with pytest.raises(UsageError, match=r"0\.weight is \(3, 4\), should be \(4, 3\)"):
        convert.load_state_dict(model(), state_dict)


def test_skipped_prefixes_are_left_out_on_both_sides():
    module, state_dict = model(), {name: a + 1 for name, a in convert.state_dict(model()).items()}
    state_dict["2.weight"] = np.zeros((9, 4))
    before = convert.state_dict(module)
    convert.load_state_dict(module, state_dict, skip=["2"])
    after = convert.state_dict(module)
    assert all(np.array_equal(after[name], before[name] if name[0] == "2" else state_dict[name]) for name in after)
    arrays = flax_arrays(module, state_dict, skip=["1", "2"])
    assert set(arrays) == {"0.kernel", "0.bias"}
    assert set(torch_arrays(module, arrays)) == {"0.weight", "0.bias"}


def test_skip_takes_whole_names():
    module = nn.NamedSequential(fc=nn.Linear(2, 2, rngs=RNGS), fc2=nn.Linear(2, 2, rngs=RNGS))
    with pytest.raises(UsageError, match=r"missing \(2\): fc2\.weight \(2, 2\), fc2\.bias \(2,\)"):
        convert.load_state_dict(module, {}, skip=["fc"])


def test_checkpoints_from_before_torch_counted_batches_are_read():
    module, state_dict = nn.BatchNorm(4, rngs=RNGS), weights("BatchNorm")
    del state_dict["num_batches_tracked"]
    convert.load_state_dict(module, state_dict)
    assert module.num_batches_tracked[...] == 0
    assert convert.state_dict(module)["num_batches_tracked"].dtype == np.int64


def test_flaxs_batch_norm_takes_and_gives_the_batch_counter():
    module, state_dict = nnx.BatchNorm(4, rngs=RNGS), weights("BatchNorm")
    convert.load_state_dict(module, state_dict)
    assert convert.state_dict(module).keys() == state_dict.keys()


def test_leaves_keep_their_own_dtype():
    module = cast(nn.Linear(3, 4, rngs=RNGS), jnp.bfloat16)
    convert.load_state_dict(module, weights("Linear") | {"weight": np.ones((4, 3)), "bias": np.ones(4)})
    assert module.kernel[...].dtype == module.bias[...].dtype == jnp.bfloat16


def test_random_streams_are_no_part_of_the_weights():
    assert convert.state_dict(nn.Sequential(nn.Dropout(0.5, rngs=RNGS), nn.StochasticDepth(0.5, rngs=RNGS))) == {}


def test_tables_and_bare_parameters_keep_name_and_layout():
    class Table(nnx.Module):
        def __init__(self):
            self.index = nn.Buffer(jnp.arange(6).reshape(2, 3))
            self.class_token = nnx.Param(jnp.ones((1, 1, 3), jnp.float32))

    module = Table()
    state_dict = {"index": np.arange(6)[::-1].reshape(2, 3), "class_token": normal(1, 1, 3).astype(np.float32)}
    convert.load_state_dict(module, state_dict)
    same_bits(convert.state_dict(module), state_dict)


class Tied(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.stem = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        self.first = nnx.Conv(8, 8, (3, 3), rngs=rngs)
        self.second = self.first
        self.blocks = nnx.List([nnx.Sequential(self.first), self.stem])

    def __call__(self, x):
        return self.second(nnx.relu(self.first(self.stem(x))))


class TorchTied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.first = torch.nn.Conv2d(8, 8, 3, padding=1)
        self.second = self.first
        self.blocks = torch.nn.ModuleList([torch.nn.Sequential(self.first), self.stem])

    def forward(self, x):
        return self.second(self.first(self.stem(x)).relu())


def test_a_module_in_several_places_has_several_names_as_in_torch():
    twin, module = TorchTied().double().eval(), cast(nnx.eval_shape(lambda: Tied(nnx.Rngs(0))), jnp.float64)
    state_dict = arrays(twin)
    convert.load_state_dict(module, state_dict)
    x = normal(1, 3, 9, 7)
    np.testing.assert_allclose(
        module(jnp.asarray(to_last(x))), to_last(twin(torch.tensor(x)).detach().numpy()), atol=1e-12
    )
    back = convert.state_dict(module)
    assert list(back) == list(state_dict)
    twin.load_state_dict({key: torch.from_numpy(array) for key, array in back.items()}, strict=True)
    once = {
        key: a for key, a in state_dict.items() if key.startswith(("blocks.1", "second"))
    }  # as safetensors keeps them
    convert.load_state_dict(module, once)
    same_bits(convert.state_dict(module), state_dict)
    with pytest.raises(UsageError, match=r"one tensor as .*second\.weight.*two different ones"):
        convert.load_state_dict(module, state_dict | {"second.weight": state_dict["first.weight"] + 1})


def test_arrays_that_are_handed_out_are_in_c_order_and_ones_own_or_read_only(tmp_path):
    twin = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    module = nn.Sequential(nn.Conv(3, 4, 3, rngs=RNGS), nn.BatchNorm(4, rngs=RNGS), nn.Linear(4, 2, rngs=RNGS))
    torch.save(
        {key: t.mT.contiguous().mT if t.ndim > 1 else t for key, t in twin.state_dict().items()}, tmp_path / "a.pth"
    )
    convert.load_state_dict(module, convert.read(tmp_path / "a.pth"))
    save_file(convert.state_dict(module), tmp_path / "a.safetensors")
    assert all(
        torch.equal(tensor, twin.state_dict()[key]) for key, tensor in load_file(tmp_path / "a.safetensors").items()
    )

    picture = Image.new("RGB", (40, 30), "red")
    handed = {
        "state_dict": convert.state_dict(module),
        "read": convert.read(tmp_path / "a.pth"),
        "read, mapped": convert.read(tmp_path / "a.pth", mmap=True),
        "read, safetensors": convert.read(tmp_path / "a.safetensors", mmap=True),
        "flax_arrays": flax_arrays(module, arrays(twin)),
        "torch_arrays": torch_arrays(module, flax_arrays(module, arrays(twin))),
        "interpolate_embeddings": interpolate_embeddings(32, 16, {"encoder.pos_embedding": np.ones((1, 10, 3))}),
        "eval_transform": {"": jaxzoo.eval_transform(picture, jaxzoo.Preprocess(16, 20))},
    }
    sources = [t.numpy() for t in twin.state_dict().values()]
    for name, found in handed.items():
        for key, array in found.items():
            array = np.asarray(array)
            assert array.flags.c_contiguous, (name, key)
            shared = any(np.shares_memory(array, source) for source in sources)
            assert not (array.flags.writeable and shared), (name, key)
    assert all(array.flags.writeable for array in handed["state_dict"].values())  # as torch.from_numpy likes them
