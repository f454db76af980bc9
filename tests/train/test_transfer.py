"""Training a part of a network, and learning from features that are computed once."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import convert
import jaxzoo
from convert import store
from convert.shapes import abstract, shapes_at
from convert.weights import Weights
from jaxzoo import UsageError
from jaxzoo.classification.vision_transformer import interpolate_embeddings
from tests.train.test_run import rows
from train import loop
from train.config import command_line
from train.config.options import Config
from train.data import load
from train.engine import network
from train.setup import models
from train.setup.prepare import prepare
from train.transfer import features, freeze
from train.transfer.features import Features

pytestmark = pytest.mark.usefixtures("pooled", "no_pictures")


def variables(model):
    """What a checkpoint holds of a model, by dotted path."""
    return network.flat(nnx.state(model, nnx.Not(nnx.RngState)))


@pytest.fixture
def weights(tmp_path):
    """Of a network for 7 classes, whose statistics are not those of a fresh one."""
    model = jaxzoo.create_model("pooled", seed=3)
    model.bn.mean.set_value(jnp.linspace(-0.5, 0.5, 8, dtype=jnp.float32))
    arrays = {f"model/{name}": np.asarray(value) for name, value in variables(model).items()}
    store.save(tmp_path / "weights", arrays, {"model": "pooled", "arguments": {}})
    return tmp_path / "weights"


@pytest.fixture
def options(pictures, weights, tmp_path):
    """Of a short run on those photographs."""

    def given(name="run", **options):
        usual = {"model": "pooled", "data": f"folder:{pictures}", "weights": str(weights), "out": str(tmp_path / name)}
        numbers = {"image_size": 32, "batch_size": 8, "epochs": 1, "lr": 0.01, "workers": 1}
        return Config(**usual | numbers | options)

    return given


def last(run):
    """The arrays of a run's newest checkpoint."""
    return store.load(max((run / "checkpoints").iterdir(), key=lambda folder: int(folder.name)))[0]


# Which parts learn


def learnt(**options):
    model = abstract("resnet18", num_classes=5)
    learns = freeze.learning(Config(model="resnet18", **options), model, {"num_classes": 5})
    return {name for name in network.flat(nnx.state(model)) if learns(name)}


def test_everything_learns_unless_something_is_frozen():
    assert learnt() == set(network.flat(nnx.state(abstract("resnet18", num_classes=5))))


@pytest.mark.parametrize("options", [{"freeze": ("backbone",)}, {"train_only": ("head",)}, {"cache_features": True}])
def test_a_frozen_backbone_leaves_the_head(options):
    assert learnt(**options) == {"fc.kernel", "fc.bias"}


def test_paths_name_parts_with_their_parameters_and_statistics():
    frozen = learnt() - learnt(freeze=("conv1,bn1", "layer1.0.conv1"))
    assert frozen == {"conv1.kernel", "layer1.0.conv1.kernel"} | {name for name in learnt() if name.startswith("bn1.")}
    assert {"bn1.mean", "bn1.var"} <= frozen
    assert learnt(train_only=("layer4.1.bn2", "head")) == {"fc.kernel", "fc.bias"} | {
        name for name in learnt() if name.startswith("layer4.1.bn2.")
    }


def test_a_path_ends_where_a_name_ends():
    assert learnt(train_only=("layer1",)) == {name for name in learnt() if name.startswith("layer1.")}
    with pytest.raises(UsageError, match=r"resnet18 has no part 'layer'; nearest: layer"):
        learnt(freeze=("layer",))


def test_an_unknown_part_is_refused_with_those_that_there_are():
    with pytest.raises(UsageError, match=r"has no part 'features.0'.*it has conv1, bn1, layer1, .*, fc, and what is"):
        learnt(freeze=("features.0",))


def test_something_has_to_learn():
    with pytest.raises(UsageError, match="nothing of resnet18 is left to learn"):
        learnt(freeze=("backbone", "head"))


def test_auxiliary_heads_are_heads_and_do_not_learn_from_features():
    assert freeze.head_paths("googlenet", {"num_classes": 5}) == ["aux1.fc2", "aux2.fc2", "fc"]
    model = abstract("googlenet", num_classes=5)
    learns = freeze.learning(Config(model="googlenet", cache_features=True), model, {"num_classes": 5})
    assert [name for name in network.flat(nnx.state(model)) if learns(name)] == ["fc.bias", "fc.kernel"]


def test_where_a_part_of_a_model_is_another_one_the_rest_is_the_head():
    arguments = {"num_classes": 5, "aux_loss": True}
    assert freeze.head_paths("deeplabv3_mobilenet_v3_large", arguments) == ["aux_classifier", "classifier"]
    model = abstract("deeplabv3_mobilenet_v3_large", **arguments)
    learns = freeze.learning(Config(model="deeplabv3_mobilenet_v3_large", freeze=("backbone",)), model, arguments)
    found = {name.split(".")[0] for name in network.flat(nnx.state(model)) if learns(name)}
    assert found == {"classifier", "aux_classifier"}


def test_batch_normalisation_alone_can_be_frozen():
    frozen = learnt() - learnt(freeze_batch_norm=True)
    norms = {name for name in learnt() if "bn" in name or "downsample.1" in name}
    assert frozen == norms and {"bn1.mean", "layer1.0.bn1.scale", "layer2.0.downsample.1.bias"} <= norms
    assert learnt(freeze_batch_norm=True, train_only=("layer4.1", "head")) == {
        *("layer4.1.conv1.kernel", "layer4.1.conv2.kernel", "fc.kernel", "fc.bias")
    }
    with pytest.raises(UsageError, match="vit_b_16 has no batch normalisation: leave out --freeze-batch-norm"):
        freeze.learning(Config(freeze_batch_norm=True, model="vit_b_16"), abstract("vit_b_16"), {})


# Frozen parts


@pytest.mark.parametrize(
    ("parts", "moved"),
    [
        ({"train_only": ("head",)}, {"classifier.1.kernel", "classifier.1.bias"}),
        (
            {"freeze": ("stem", "bn", "block.0")},
            {"classifier.1.kernel", "classifier.1.bias"} | {f"block.1.{n}" for n in ("scale", "bias", "mean", "var")},
        ),
    ],
)
def test_frozen_parts_stay_as_they_are_to_the_bit_and_cost_no_memory(options, weights, tmp_path, parts, moved):
    loop.run(options(**parts))
    before, after = store.load(weights)[0], last(tmp_path / "run")
    same = {name for name in before if before[name].tobytes() == after[name].tobytes()}
    changed = {name.removeprefix("model/") for name in before.keys() - same}
    assert {name for name in changed if "num_batches" not in name} == moved
    slots = {name.split("/")[-1] for name in after if name.startswith("optimizer/")}
    assert {slot for slot in slots if "." in slot} == {name for name in moved if not name.endswith(("mean", "var"))}


def test_dropout_is_off_inside_frozen_parts_alone():
    model = jaxzoo.create_model("pooled")
    network.set_train_mode_where(model, lambda name: name.startswith("classifier"))
    assert (model.block[2].deterministic, model.classifier[0].deterministic) == (True, False)
    assert model.bn.use_running_average and model.block[1].use_running_average


# Fresh heads


def test_a_fresh_head_on_pretrained_weights_finds_all_classes_equally_likely(options):
    prepared, state = prepare(options(train_only=("head",), label_smoothing=0.0), None)
    assert not np.any(state["params"]["classifier.1.kernel"])
    steps = prepared.steps
    _, report = steps.train[0](state, steps.put_batch(prepared.batches(0)), steps.put_control())
    np.testing.assert_allclose(report["loss"], np.log(5), rtol=1e-5)


def test_a_fresh_head_that_is_no_linear_layer_is_left_alone():
    model = jaxzoo.create_model("squeezenet1_1", num_classes=5)
    freeze.start_at_zero(model, freeze.head_paths("squeezenet1_1", {"num_classes": 5}))
    assert np.any(model.classifier[1].kernel[...])


def test_the_tensors_left_out_are_named(options, capsys):
    prepare(options(), None)
    assert "for 5 classes these start fresh: classifier.1.weight, classifier.1.bias" in capsys.readouterr().out


# Features


@pytest.fixture
def cached(options, tmp_path):
    """A run on features."""
    loop.run(options("cached", cache_features=True))
    return tmp_path / "cached"


def test_learning_from_features_is_learning_with_a_frozen_backbone_from_images_as_they_are(options, cached, tmp_path):
    loop.run(options("frozen", train_only=("head",), flip="no", crop_area=1.0, shift=0))
    ours, theirs = last(cached), last(tmp_path / "frozen")
    assert ours.keys() == theirs.keys()
    for name in ours:
        scale = np.abs(theirs[name]).max()
        np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=1e-5 * scale, err_msg=name)
    for a, b in zip(rows(cached), rows(tmp_path / "frozen"), strict=True):
        assert a.keys() == b.keys()
        np.testing.assert_allclose([float(x) for x in a.values()], [float(x) for x in b.values()], rtol=1e-5)


def test_a_checkpoint_of_such_a_run_is_the_whole_model(cached, capsys):
    model = convert.load("pooled", cached)
    np.testing.assert_array_equal(model.stem.kernel[...], last(cached)["model/stem.kernel"])
    capsys.readouterr()
    loop.run(command_line.parse(["--resume", str(cached), "--eval-only"]))
    expected = f"loss {float(rows(cached)[-1]['val_loss']):.4f}"
    assert expected in capsys.readouterr().out


def test_features_are_kept_and_used_again(cached):
    files = sorted((cached / "features").iterdir())
    assert [file.name.split("-")[0] for file in files] == ["held_out", "train"]
    before = [file.stat().st_mtime_ns for file in files]
    loop.run(command_line.parse(["--resume", str(cached), "--epochs", "2"]))
    assert [file.stat().st_mtime_ns for file in files] == before
    assert len(rows(cached)) == 2


@pytest.mark.parametrize("leave", ["nothing", "half"])
def test_features_that_are_missing_or_incomplete_are_computed_again_with_the_runs_own_weights(cached, leave):
    files = {file: file.read_bytes() for file in (cached / "features").iterdir()}
    for file, content in files.items():
        file.unlink()
        if leave == "half":
            (file.parent / f".{file.name.split('-')[0]}.partial").write_bytes(content[: len(content) // 2])
    loop.run(command_line.parse(["--resume", str(cached), "--epochs", "2"]))
    assert sorted((cached / "features").iterdir()) == sorted(files)
    for file, content in files.items():
        assert file.read_bytes() == content


def test_features_of_other_images_are_not_taken(cached, pictures):
    data = load(f"folder:{pictures}")

    def files():
        sides = {"train": data.train, "held_out": data.held_out}
        sources = [Features(images, side) for side, images in sides.items()]
        for source in sources:
            source.lie_in(cached / "features")
        return {source.path for source in sources}

    there = set((cached / "features").iterdir())
    assert files() == there
    data.train.files.pop()
    assert len(files() & there) == 1


def test_a_damaged_image_has_no_features_and_is_left_out_by_name(pictures, options, tmp_path, capsys):
    loop.run(options(cache_features=True))
    said = capsys.readouterr().out
    assert said.count("tissue/001.jpg cannot be read as an image") == 1
    values = [np.load(file) for file in (tmp_path / "run" / "features").iterdir()]
    assert sum(int(np.isnan(value).all(1).sum()) for value in values) == 1
    with pytest.raises(UsageError, match=r"tissue/001\.jpg cannot be read"):
        loop.run(options("strict", cache_features=True, strict_data=True))


def test_a_full_disk_is_one_sentence(options, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(features.os, "fsync", full)
    with pytest.raises(UsageError, match=r"cannot write features into .*: No space left on device; make room"):
        loop.run(options(cache_features=True))
    monkeypatch.undo()
    # What was written until then is not taken for the whole.
    assert not list((tmp_path / "run" / "features").glob("*.npy"))


@pytest.mark.parametrize(
    "arguments", ["--mixup 0.2", "--progressive 16:32:2", "--flip yes", "--crop-area 0.5", "--train-size 8"]
)
def test_features_go_without_augmentation(arguments):
    with pytest.raises(UsageError, match=f"leave out {arguments.split()[0]}"):
        command_line.parse(["--cache-features", *arguments.split()])


def test_a_recipe_for_features_goes_without_its_augmentation():
    parsed = command_line.parse(["--cache-features", "--recipe", "finetune", "--model", "resnet18"])
    assert (parsed.auto_augment, parsed.crop_area, parsed.flip) == ("none", 1.0, "no")
    with pytest.raises(UsageError, match="leave out --auto-augment"):
        command_line.parse(["--cache-features", "--recipe", "finetune", "--auto-augment", "trivialaugment"])


def test_features_are_for_the_head_alone():
    for arguments in ("--freeze layer1", "--train-only layer4"):
        with pytest.raises(UsageError, match="--cache-features trains the head alone"):
            command_line.parse(["--cache-features", *arguments.split()])


def test_a_model_that_goes_on_after_its_head_is_refused(options, tmp_path):
    with pytest.raises(UsageError, match=r"squeezenet1_1 does more after its head.*; take --train-only head"):
        loop.run(options(model="squeezenet1_1", weights=None, image_size=64, cache_features=True))
    assert not (tmp_path / "run").exists()


# Continuing


def test_a_run_from_weights_keeps_their_preprocessing_when_it_is_continued(weights, options, tmp_path):
    manifest = store.read_manifest(weights)
    own = {"crop": 32, "resize": 40, "interpolation": "bicubic", "mean": [0.1] * 3, "std": [0.9] * 3}
    store.write_manifest(weights, manifest | {"preprocess": own})
    loop.run(options())
    (tmp_path / "run" / "best" / "manifest.json").write_text("{")  # one of several
    began, _ = prepare(options(), tmp_path / "run")
    went_on, _ = prepare(options(), tmp_path / "run", continuing=True)
    assert [list(run.manifest["preprocess"]["mean"]) for run in (began, went_on)] == [[0.1] * 3] * 2
    assert began.manifest["arguments"] == went_on.manifest["arguments"]
    np.testing.assert_array_equal(began.batches(0)["image"], went_on.batches(0)["image"])


# Weights that are not as the run has them


def test_positions_of_weights_are_resampled_for_the_image_size_of_the_run(capsys):
    layers = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 12, "num_classes": 3}
    tensors = {
        key: np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        for key, shape in shapes_at("vit_b_16", layers | {"image_size": 64}).items()
    }
    config, weights = Config(model="vit_b_16", image_size=32), Weights(Path("vit.pth"), tensors)
    model, arguments = models.model_of(config, layers | {"image_size": 32}, weights, None)
    assert arguments["image_size"] == model.image_size == 32
    assert "vit.pth: resampled for images of another size: encoder.pos_embedding" in capsys.readouterr().out
    expected = interpolate_embeddings(32, 16, tensors)["encoder.pos_embedding"]
    np.testing.assert_array_equal(model.encoder.pos_embedding[...], expected)


def test_weights_of_other_classes_are_not_evaluated_and_the_way_out_is_one_of_this_command():
    tensors = {key: np.zeros(shape, np.float32) for key, shape in shapes_at("lenet5", {}).items()}
    with pytest.raises(UsageError, match=r"has 10 classes, not 2; without --eval-only a fresh head is trained$"):
        models.model_of(
            Config(model="lenet5", eval_only=True), {"num_classes": 2}, Weights(Path("lenet.pth"), tensors), None
        )
