"""`convert.load`: the same function as torch's, from whatever the weights are in."""

import dataclasses
import re
import urllib.error
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from safetensors.torch import save_file

import convert
import jaxzoo
from convert import files, store
from convert.fitting import fit_weights
from convert.loading import load_part
from convert.shapes import abstract, shapes_of
from convert.sources import read_weights
from convert.store import checkpoint_in
from convert.to_torch import to_torch
from convert.twins import build_twin
from convert.weights import Weights, preprocess_of
from jaxzoo import Preprocess, UsageError, nn, registry
from jaxzoo.detection.transform import DetectionTransform
from jaxzoo.preprocess import to_dict
from tests.convert.conftest import small
from train.transfer import freeze

NAME = "mobilenet_v3_small"


def agree(twin: torch.nn.Module, model: nnx.Module) -> bool:
    images = np.random.default_rng(0).standard_normal((2, 33, 35, 3)).astype(np.float32)
    with torch.no_grad():
        expected = twin(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    return np.abs(np.asarray(jax.jit(model)(images)) - expected).max() < 1e-4 * np.abs(expected).max()


def test_a_loaded_model_is_its_twin_with_the_classes_of_the_file(weights, twin):
    model = convert.load(NAME, weights)
    assert agree(twin, model)
    assert not any(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(nnx.state(model)))
    assert {x.dtype for x in jax.tree.leaves(nnx.state(model, nnx.Param))} == {np.dtype("float32")}


def test_a_loaded_model_can_train(weights):
    model = convert.load(NAME, weights)
    model.train()
    features = jnp.ones((2, 576))
    assert (model.classifier(features) != model.classifier(features)).any()  # dropout has its random stream


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_cast_to_the_models(tmp_path, twin, dtype):
    torch.save(
        {key: t.to(dtype) if t.is_floating_point() else t for key, t in twin.state_dict().items()}, tmp_path / "a.pt"
    )
    model = convert.load(NAME, tmp_path / "a.pt")
    assert model.classifier[3].kernel.dtype == jnp.float32


def test_another_number_of_classes_is_refused_or_left_fresh(weights, twin):
    with pytest.raises(UsageError, match=r"7 classes, not 5; head='skip' leaves"):
        convert.load(NAME, weights, num_classes=5)
    with pytest.warns(UserWarning, match=r"left fresh.*classifier\.3\.weight \(7, 1024\)"):
        model = convert.load(NAME, weights, num_classes=5, head="skip", seed=3)
    state, expected = convert.state_dict(model), twin.state_dict()
    fresh = {"classifier.3.weight", "classifier.3.bias"}
    assert all((state[key] == expected[key].numpy()).all() for key in state.keys() - fresh)
    new = convert.state_dict(jaxzoo.create_model(NAME, num_classes=5, seed=3))
    assert all((state[key] == new[key]).all() for key in fresh)
    with pytest.warns(UserWarning):
        other = convert.load(NAME, weights, num_classes=5, head="skip", seed=4)
    assert (convert.state_dict(other)["classifier.3.weight"] != state["classifier.3.weight"]).any()


def test_a_fitting_head_is_not_skipped(weights, twin, recwarn):
    assert agree(twin, convert.load(NAME, weights, head="skip"))
    assert not recwarn.list


def test_a_missing_head_can_be_left_fresh(tmp_path, twin):
    torch.save({k: t for k, t in twin.state_dict().items() if not k.startswith("classifier.3")}, tmp_path / "a.pt")
    with pytest.warns(UserWarning, match="missing"):
        model = convert.load(NAME, tmp_path / "a.pt", head="skip", num_classes=3)
    assert model.classifier[3].kernel.shape == (1024, 3)


def test_the_head_is_skipped_and_nothing_else(tmp_path, twin):
    state = twin.state_dict()
    del state["features.0.0.weight"]
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(UsageError, match=r"missing \(1\): features\.0\.0\.weight"):
        convert.load(NAME, tmp_path / "a.pt", head="skip", num_classes=3)


def test_weights_of_another_model_are_refused_with_all_differences(weights):
    with pytest.raises(UsageError, match=r"missing \(\d+\)") as error:
        convert.load("resnet18", weights)
    assert "unexpected" in str(error.value)


def test_unknown_names_are_answered(weights):
    with pytest.raises(UsageError, match="nearest: mobilenet_v3_small"):
        convert.load("mobilenet_v3_smal", weights)
    with pytest.raises(UsageError, match="head is 'keep'"):
        convert.load(NAME, weights, head="keep")
    with pytest.raises(UsageError, match="published weights of mobilenet_v3_small, which are: IMAGENET1K_V1, DEFAULT"):
        convert.load(NAME, "IMAGENET21K")


def test_published_weights_are_fetched_through_torchvision(tmp_path, monkeypatch):
    twin = small("resnet18")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(twin.state_dict(), folder / "resnet18-f37072fd.pth")  # as if downloaded before
    assert agree(twin, convert.load("resnet18", "DEFAULT"))
    found = read_weights("resnet18", "IMAGENET1K_V1")
    assert len(found.classes) == 1000
    assert found.preprocess["crop"] == 224


def test_a_file_that_torchvision_publishes_is_known_by_its_name(tmp_path):
    tensors = {key: torch.zeros(shape) for key, shape in shapes_of(abstract("googlenet")).items()}
    for file, arguments in (("googlenet-1378be20.pth", {"transform_input": True}), ("googlenet.pth", {})):
        torch.save(tensors, tmp_path / file)
        found = read_weights("googlenet", tmp_path / file)
        assert found.arguments == arguments
        assert (found.classes or [None])[0] == ("tench" if arguments else None)


def test_offline_is_said_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def fail(*args, **kwargs):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", fail)
    with pytest.raises(UsageError, match=r"are you offline.*give the file"):
        convert.load("resnet18", "DEFAULT")


def test_timms_published_weights_are_fetched_from_its_hub(tmp_path, monkeypatch):
    twin = build_twin(jaxzoo.card("efficientnet_lite0"))
    save_file(twin.state_dict(), tmp_path / "model.safetensors")
    asked = []

    def download(*where):
        asked.append(where)
        return str(tmp_path / "model.safetensors")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    for tag in ("in1k", "DEFAULT"):
        found = read_weights("efficientnet_lite0", tag)
        assert found.tensors.keys() == twin.state_dict().keys()
        assert (found.classes[967], found.preprocess["interpolation"]) == ("espresso", "bicubic")
    assert asked == 2 * [("timm/tf_efficientnet_lite0.in1k", "model.safetensors")]

    def fail(*where):
        raise FileNotFoundError("cannot find the requested files in the local cache")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(UsageError, match=r"are you offline.*give the file"):
        read_weights("efficientnet_lite0", "in1k")
    with pytest.raises(UsageError, match="published weights of efficientnet_lite0, which are: in1k, DEFAULT"):
        read_weights("efficientnet_lite0", "in22k")
    with pytest.raises(UsageError, match="lenet5 has no published weights"):
        read_weights("lenet5", "DEFAULT")


def test_a_run_means_its_best_checkpoint_or_its_last(tmp_path):
    with pytest.raises(UsageError, match="neither a converted model nor a training run"):
        checkpoint_in(tmp_path)
    for step in (9, 10):
        store.save(tmp_path / "checkpoints" / str(step), {"a": np.ones(1)}, {})
    assert checkpoint_in(tmp_path) == checkpoint_in(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "10"
    assert checkpoint_in(tmp_path / "checkpoints" / "9").name == "9"
    store.save(tmp_path / "best", {"a": np.ones(1)}, {})
    assert checkpoint_in(tmp_path) == tmp_path / "best"


def test_a_training_checkpoint_loads_and_exports_with_torchs_dtypes(tmp_path):
    model = jaxzoo.create_model("resnet18", num_classes=3)
    state = nnx.state(model, nnx.Not(nnx.RngState))
    arrays = {"model/" + ".".join(map(str, path)): v.get_value() for path, v in nnx.to_flat_state(state)}
    arrays |= {"optimizer/mu": np.ones(3)}
    manifest = {"model": "resnet18", "arguments": {"num_classes": 3}, "classes": list("abc"), "train": {"step": 2}}
    store.save(tmp_path / "run" / "best", arrays, manifest)
    loaded = convert.load("resnet18", tmp_path / "run")
    expected = convert.state_dict(model)
    assert all((value == expected[key]).all() for key, value in convert.state_dict(loaded).items())
    tensors = read_weights("resnet18", tmp_path / "run").tensors
    assert tensors["bn1.num_batches_tracked"].dtype == np.int64
    small("resnet18", num_classes=3).load_state_dict({k: files.to_torch(v.copy()) for k, v in tensors.items()})
    with pytest.raises(UsageError, match="holds resnet18, not resnet34"):
        convert.load("resnet34", tmp_path / "run")


def test_the_average_of_a_runs_weights_is_read_by_name(tmp_path, capsys):
    model = jaxzoo.create_model("resnet18", num_classes=3)
    state = nnx.to_flat_state(nnx.state(model, nnx.Not(nnx.RngState)))
    raw = {".".join(map(str, path)): np.asarray(value.get_value()) for path, value in state}
    average = {path: array + 1 for path, array in raw.items() if not path.startswith("conv1.")}  # conv1 is frozen
    arrays = {f"model/{path}": array for path, array in raw.items()} | {f"ema/{path}": a for path, a in average.items()}
    manifest = {"model": "resnet18", "arguments": {"num_classes": 3}, "train": {"step": 2}}
    store.save(tmp_path / "run" / "best", arrays, manifest)
    for name in ("run#ema", "run/best#ema"):
        loaded = convert.load("resnet18", tmp_path / name)
        np.testing.assert_array_equal(loaded.fc.bias, average["fc.bias"])
        np.testing.assert_array_equal(loaded.bn1.mean, average["bn1.mean"])
        np.testing.assert_array_equal(loaded.conv1.kernel, raw["conv1.kernel"])
    np.testing.assert_array_equal(convert.load("resnet18", tmp_path / "run").fc.bias, raw["fc.bias"])
    source = read_weights("resnet18", tmp_path / "run#ema").source()
    assert source["path"].endswith("run/best#ema") and len(source["sha256"]) == 64

    to_torch(tmp_path / "run#ema", tmp_path / "average.pth")
    assert "run/best#ema" in capsys.readouterr().out
    np.testing.assert_array_equal(convert.read(tmp_path / "average.pth")["fc.bias"], average["fc.bias"])

    with pytest.raises(UsageError, match=r"no part 'best'; .*run/best#ema is the average"):
        read_weights("resnet18", tmp_path / "run#best")
    store.save(tmp_path / "plain", {f"model/{path}": array for path, array in raw.items()}, manifest)
    with pytest.raises(UsageError, match="trained without --ema; leave out #ema"):
        read_weights("resnet18", tmp_path / "plain#ema")


@pytest.mark.parametrize(
    ("name", "others"),
    [
        *[(name, {}) for name in ("vgg11", "swin_t", "convnext_tiny", "mobilenet_v2", "resnet50", "squeezenet1_1")],
        ("vit_b_32", {"image_size": 96}),
        ("inception_v3", {}),
        ("inception_v3", {"aux_logits": False}),
        ("lraspp_mobilenet_v3_large", {}),
        ("deeplabv3_mobilenet_v3_large", {}),
        ("deeplabv3_mobilenet_v3_large", {"aux_loss": True}),
    ],
)
def test_arguments_are_read_from_shapes(name, others):
    arguments = {"num_classes": 17} | others
    shapes = shapes_of(abstract(name, **arguments))
    tensors = {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}
    fit = fit_weights(name, Weights(Path("file"), tensors))
    assert (fit.arguments, fit.fresh, shapes_of(fit.model)) == (arguments, [], shapes)


def test_a_model_that_hung_on_an_attribute_is_found(tmp_path, twin):
    state = {f"model.{key}": tensor for key, tensor in twin.state_dict().items()}
    torch.save({"state_dict": state, "callbacks": {}, "hyper_parameters": {"lr": 0.1}}, tmp_path / "lightning.ckpt")
    assert agree(twin, convert.load(NAME, tmp_path / "lightning.ckpt"))


def test_names_that_held_a_dot_are_found(tmp_path):
    twin = small("densenet121")
    state = {re.sub(r"(denselayer\d+\.(norm|conv))", r"\1.", key): tensor for key, tensor in twin.state_dict().items()}
    assert "features.denseblock1.denselayer2.norm.1.weight" in state
    torch.save({k: t for k, t in state.items() if "num_batches" not in k}, tmp_path / "densenet121-a639ec97.pth")
    found = read_weights("densenet121", tmp_path / "densenet121-a639ec97.pth")
    assert {*found.tensors} == {key for key in twin.state_dict() if "num_batches" not in key}


@pytest.mark.parametrize(
    ("arguments", "own", "expected"),
    [
        ({}, None, Preprocess(224, 256)),
        ({"image_size": 224}, None, Preprocess(224, 256)),
        ({"image_size": 384}, None, Preprocess(384, 384, "bicubic")),  # IMAGENET1K_SWAG_E2E_V1
        ({"image_size": 448}, None, Preprocess(448, 512)),
        ({"image_size": 384}, Preprocess(384, 400), Preprocess(384, 400)),
        ({"image_size": 96}, Preprocess(384, 400), Preprocess(96, 100)),
    ],
)
def test_images_are_prepared_as_for_the_published_weights_of_their_size(arguments, own, expected):
    weights = Weights(Path("vit.pth"), {}, preprocess=own and dataclasses.asdict(own))
    assert preprocess_of("vit_b_16", weights, arguments, nnx.Module()) == expected


def test_a_model_that_holds_its_transform_has_it_from_the_arguments(tmp_path):
    """Whatever an older manifest says."""
    arguments = {"num_classes": 3, "min_size": 320, "max_size": 500}
    model = abstract("fasterrcnn_mobilenet_v3_large_320_fpn", **arguments)
    weights = Weights(tmp_path, {}, arguments, preprocess=to_dict(DetectionTransform()))
    found = preprocess_of("fasterrcnn_mobilenet_v3_large_320_fpn", weights, arguments, model)
    assert found == DetectionTransform((320,), 500)


def test_the_head_of_a_model_whose_card_names_none_is_found_by_its_shapes(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "_cards", {name: registry.card(name) for name in registry.list_models()})

    @registry.register_model(paper="")
    def two_numbers_per_class(num_classes: int = 4, *, rngs):
        return nn.Sequential(nn.Conv(3, 5, 1, rngs=rngs), nn.Flatten(), nn.Linear(5, 2 * num_classes, rngs=rngs))

    twin = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 1), torch.nn.Flatten(), torch.nn.Linear(5, 6))
    torch.save(twin.state_dict(), tmp_path / "a.pth")
    weights = Weights(tmp_path / "a.pth", convert.read(tmp_path / "a.pth"))
    assert fit_weights("two_numbers_per_class", weights).arguments == {"num_classes": 3}
    assert freeze.head_paths("two_numbers_per_class", {"num_classes": 3}) == ["2"]
    with pytest.raises(UsageError, match="has 3 classes, not 9; head='skip' leaves the head fresh"):
        fit_weights("two_numbers_per_class", weights, num_classes=9)


@pytest.fixture
def backbone(tmp_path):
    """The file of a MobileNetV3, as torchvision publishes one."""
    path = tmp_path / "backbone.pth"
    torch.save(small("mobilenet_v3_large").state_dict(), path)
    return path


def test_a_part_of_a_model_starts_from_the_weights_of_another(backbone):
    name, tensors = "lraspp_mobilenet_v3_large", convert.read(backbone)
    model, fresh = jaxzoo.create_model(name), convert.state_dict(jaxzoo.create_model(name))
    said = load_part(model, name, backbone)
    ours = convert.state_dict(model)
    for key, array in ours.items():
        source = tensors["features" + key.removeprefix("backbone")] if key.startswith("backbone.") else fresh[key]
        np.testing.assert_array_equal(array, source, key)
    owners = ("cbr.0", "cbr.1", "scale.1", "low_classifier", "high_classifier")
    count = sum(key.startswith("backbone.") for key in ours)
    assert said == f"{count} tensors of {backbone}; these start fresh: " + ", ".join(f"classifier.{x}" for x in owners)


def test_a_part_starts_from_one_of_the_networks_in_a_file(tmp_path, backbone):
    """As `--weights-backbone FILE#prefix` asks for it: an encoder that was trained beside a slower copy."""
    name, tensors = "lraspp_mobilenet_v3_large", torch.load(backbone)
    both = {f"encoder_q.{key}": tensor for key, tensor in tensors.items()}
    both |= {f"encoder_k.{key}": torch.zeros_like(tensor) for key, tensor in tensors.items()}
    torch.save({"state_dict": both}, tmp_path / "two.pth")
    model = jaxzoo.create_model(name)
    with pytest.raises(
        UsageError, match=r"holds several networks .* name one of two\.pth#encoder_q, two\.pth#encoder_k"
    ):
        load_part(model, name, tmp_path / "two.pth")
    load_part(model, name, f"{tmp_path / 'two.pth'}#encoder_q")
    for key, array in convert.state_dict(model).items():
        if key.startswith("backbone."):
            np.testing.assert_array_equal(array, tensors["features" + key.removeprefix("backbone")], key)


def test_weights_of_no_part_and_models_without_parts_are_refused(tmp_path, backbone):
    torch.save({"fc.weight": torch.zeros(3, 4)}, tmp_path / "other.pth")
    model = abstract("lraspp_mobilenet_v3_large")
    with pytest.raises(UsageError, match=r"other\.pth are no weights of mobilenet_v3_large, parts of lraspp"):
        load_part(model, "lraspp_mobilenet_v3_large", tmp_path / "other.pth")
    with pytest.raises(UsageError, match="neither a file nor published weights of mobilenet_v3_large"):
        load_part(model, "lraspp_mobilenet_v3_large", "COCO")
    with pytest.raises(UsageError, match="no part of resnet18 is another model"):
        load_part(abstract("resnet18"), "resnet18", backbone)
