"""Two classes told apart by one output: a sigmoid and the binary cross-entropy, as in torch."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from PIL import Image
from torch.nn.functional import binary_cross_entropy_with_logits

import convert
import jaxzoo
from jaxzoo import Preprocess
from jaxzoo.commands.predict import predict
from jaxzoo.outputs import class_logits
from tests.train.pixels import Pixels
from tests.train.pooled import registered
from tests.train.test_data import paint
from tests.train.test_evaluated_alone import QUICKLY, evaluated, saved
from tests.train.test_task import counted
from train import loop
from train.config import command_line
from train.data import masks
from train.metrics import init, update
from train.tasks.classification import Classification
from train.tasks.segmentation import Segmentation

pytestmark = pytest.mark.xdist_group("evaluated_alone")
LOGITS = np.array([-40.0, -1.5, -0.1, 0.2, 3.0, 60.0])
LABELS = np.array([0, 1, 0, 1, 0, 1])


class Says(nnx.Module):
    """A network that answers with these logits (N, …, 1), whatever it sees."""

    def __init__(self, logits, **names):
        self.logits, self.names = nnx.Param(jnp.asarray(logits)), names

    def __call__(self, x):
        return {"out": self.logits[...]} if self.names else self.logits[...]


def batch(n, **values):
    return {"mask": jnp.ones(n, bool), "indices": jnp.arange(n)} | values


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_and_its_gradient_are_torchs(smoothing):
    with jax.enable_x64(True):
        task = Classification(["no", "yes"], Preprocess(8), label_smoothing=smoothing, dtype=jnp.float64)
        task.normalised = lambda images: images.astype(jnp.float64)
        seen = batch(6, image=jnp.zeros((6, 8, 8, 3), jnp.uint8), label=jnp.asarray(LABELS))
        loss = nnx.value_and_grad(lambda model: task.training_loss(model, seen, jax.random.key(0)), has_aux=True)
        (ours, (_, outputs)), gradients = loss(Says(LOGITS[:, None]))
        z = torch.tensor(LOGITS, requires_grad=True)
        theirs = binary_cross_entropy_with_logits(z, torch.tensor(LABELS * (1 - smoothing) + smoothing / 2))
        theirs.backward()
        np.testing.assert_allclose(ours, theirs.item(), rtol=1e-12)
        np.testing.assert_allclose(gradients["logits"][...][:, 0], z.grad, rtol=1e-9, atol=1e-17)
        assert counted(task.training_metrics, outputs)["accuracy"] == 4 / 6


def test_mixed_targets_are_torchs_too():
    with jax.enable_x64(True):
        shares = np.array([0.3, 1.0, 0.0, 0.5, 0.9, 0.2])
        targets = jnp.asarray(np.stack([1 - shares, shares], 1))
        ours = -(targets * jax.nn.log_softmax(class_logits(jnp.asarray(LOGITS[:, None])))).sum(-1)
        theirs = binary_cross_entropy_with_logits(torch.tensor(LOGITS), torch.tensor(shares), reduction="none")
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_evaluation_counts_at_a_threshold_of_a_half():
    task = Classification(["no", "yes"], Preprocess(8))
    seen = batch(6, image=jnp.zeros((6, 8, 8, 3), jnp.uint8), label=jnp.asarray(LABELS))
    outputs = task.evaluation_outputs(Says(np.float32(LOGITS[:, None])), seen)
    states = update(task.evaluation_metrics, init(task.evaluation_metrics), outputs)
    np.testing.assert_array_equal(states["confusion"], [[2, 1], [1, 2]])
    probability = torch.sigmoid(torch.tensor(LOGITS))
    np.testing.assert_allclose(states["errors"]["probability"][:2], [probability[4], 1 - probability[1]], rtol=1e-6)


def test_pixels_are_judged_alike():
    logits, targets = np.float32(LOGITS).reshape(1, 2, 3, 1), np.uint8(LABELS).reshape(1, 2, 3)
    targets[0, 0, 0] = 255
    task = Segmentation(["no", "yes"], Preprocess(8), canvases=[masks.Canvas((2, 3), range(0))])
    model, seen = (
        Says(logits, out=True),
        batch(1, image=jnp.zeros((1, 2, 3, 3), jnp.uint8), target=jnp.asarray(targets)),
    )
    outputs = task.evaluation_outputs(model, seen)
    states = update(task.evaluation_metrics, init(task.evaluation_metrics), outputs)
    np.testing.assert_array_equal(states["pixels"]["confusion"][0], [[1, 1], [1, 2]])
    theirs = binary_cross_entropy_with_logits(torch.tensor(LOGITS[1:]), torch.tensor(LABELS[1:] * 1.0))
    loss, _ = task.training_loss(model, seen, jax.random.key(0))
    np.testing.assert_allclose(loss, theirs, rtol=1e-6)
    assert counted(task.evaluation_metrics, outputs)["miou"] == pytest.approx((1 / 3 + 2 / 4) / 2)


def test_two_classes_are_learnt_by_one_output_on_request(mean, no_pictures, tmp_path, capsys):
    for name, color in (("cat", (30, 30, 30)), ("dog", (220, 220, 220))):
        for i in range(8):
            paint(tmp_path / "pets" / name / f"{i}.png", color=color)
    run, data = str(tmp_path / "run"), f"folder:{tmp_path / 'pets'}"
    options = ["--epochs", "3", "--model-args", "num_classes=1", "--mixup", "0.2", "--out", run, "--data", data]
    assert loop.run(command_line.parse([*QUICKLY, *options])) == 0
    assert "held-out accuracy 100.00%" in capsys.readouterr().out
    assert convert.load("mean", run).fc.kernel.shape == (3, 1)
    loop.run(command_line.parse(["--resume", run, "--eval-only"]))
    assert "accuracy 100.00%" in capsys.readouterr().out
    evaluated(run, data)  # weights say themselves that they have one output
    assert "accuracy 100.00%" in capsys.readouterr().out
    with pytest.raises(jaxzoo.UsageError, match=r"num_classes=1 is for two classes, .* digits has 10: leave it out"):
        loop.run(command_line.parse(["--model", "mean", "--model-args", "num_classes=1"]))


def test_a_file_with_one_output_is_evaluated_on_two_classes(mean, tmp_path, capsys):
    for name in ("cat", "dog"):
        for i in range(5):
            paint(tmp_path / "pets" / name / f"{i}.png")
    weights = convert.state_dict(convert.load("mean", saved(tmp_path / "weights", classes=1)))
    weights |= {"fc.weight": np.zeros((1, 3), np.float32), "fc.bias": np.float32([3])}
    torch.save({name: torch.tensor(np.array(value)) for name, value in weights.items()}, tmp_path / "net.pth")
    evaluated(tmp_path / "net.pth", f"folder:{tmp_path / 'pets'}", "--val-fraction", "1")
    loss = (np.log1p(np.exp(3)) + np.log1p(np.exp(-3))) / 2  # of a sigmoid that says dog to all
    assert f"held out: loss {loss:.4f}, accuracy 50.00%" in capsys.readouterr().out


@pytest.mark.parametrize("logit", [-5.0, 5.0])
def test_a_prediction_is_the_sigmoid_of_the_logit(mean, tmp_path, logit):
    paint(tmp_path / "photo.png")
    path = saved(tmp_path / "weights", classes=1, classes_named=["cat", "dog"], logit=logit)
    assert predict([tmp_path / "photo.png"], model="mean", weights=str(path), json=tmp_path / "found.json") == 0
    (found,) = json.loads((tmp_path / "found.json").read_text())["images"]
    probability = {p["name"]: p["probability"] for p in found["top"]}
    assert probability.keys() == {"cat", "dog"} and found["top"][0]["name"] == ("dog" if logit > 0 else "cat")
    assert probability["dog"] == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-6)
    assert (
        predict([tmp_path / "photo.png"], model="mean", weights=str(path), csv=tmp_path / "b.csv", temperature=5) == 0
    )
    best = (tmp_path / "b.csv").read_text().splitlines()[1].split(",")
    assert float(best[-1]) == pytest.approx(1 / (1 + np.exp(-1)))


@pytest.mark.parametrize(("logit", "name"), [(-0.1, "road"), (0.1, "roof")])
def test_pixels_are_predicted_at_the_same_threshold(monkeypatch, tmp_path, logit, name):
    def build(num_classes: int = 2, *, rngs: nnx.Rngs) -> Pixels:
        return Pixels(num_classes, rngs=rngs)

    registered(monkeypatch, "pixels", build, task="segmentation")
    paint(tmp_path / "photo.png", size=(32, 32))
    path = saved(tmp_path / "weights", classes=1, model="pixels", classes_named=["road", "roof"], logit=logit)
    out = {"out": tmp_path / "out", "json": tmp_path / "found.json"}
    assert predict([tmp_path / "photo.png"], model="pixels", weights=str(path), **out) == 0
    (found,) = json.loads((tmp_path / "found.json").read_text())["images"]
    assert [(part["name"], part["share"]) for part in found["top"]] == [(name, 1.0)]
    assert np.unique(np.asarray(Image.open(tmp_path / "out" / "photo.png"))) == [int(logit > 0)]
