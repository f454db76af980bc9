"""A network that compiles fast and takes images of any size, under the name "pooled" while a test needs it."""

import jax
import pytest
from flax import nnx

import jaxzoo
from jaxzoo import nn, registry
from tests.train import photos
from train import run_log
from train.tasks.classification import Classification


class Pooled(nnx.Module):
    """Two convolutions, with dropout between them and before the head, which is `classifier.1`."""

    def __init__(self, num_classes: int, dropout: float, stochastic_depth_prob: float, *, rngs: nnx.Rngs):
        self.stem = nn.Conv(3, 8, 4, 4, bias=False, rngs=rngs)
        self.bn = nn.BatchNorm(8, rngs=rngs)
        self.block = nn.Sequential(
            nn.Conv(8, 16, 3, 2, rngs=rngs),
            nn.BatchNorm(16, rngs=rngs),
            nn.Dropout(dropout / 3, rngs=rngs),
            nn.StochasticDepth(stochastic_depth_prob, rngs=rngs),
        )
        self.classifier = nn.Sequential(nn.Dropout(dropout, rngs=rngs), nn.Linear(16, num_classes, rngs=rngs))

    def __call__(self, x: jax.Array) -> jax.Array:
        x = jax.nn.relu(self.block(jax.nn.relu(self.bn(self.stem(x)))))
        return self.classifier(x.mean((1, 2)))


def build(num_classes: int = 7, dropout: float = 0.3, stochastic_depth_prob: float = 0.0, *, rngs: nnx.Rngs) -> Pooled:
    return Pooled(num_classes, dropout, stochastic_depth_prob, rngs=rngs)


def registered(monkeypatch, name: str, builder, **card) -> str:
    """`name`, which this builder has in the registry until the test ends."""
    jaxzoo.list_models()  # which enters all others
    monkeypatch.setattr(registry, "_cards", dict(registry._cards))
    monkeypatch.setattr(builder, "__name__", name)
    jaxzoo.register_model(paper="none", twin="none:none", input_size=32, **card)(builder)
    return name


@pytest.fixture
def pooled(monkeypatch) -> str:
    """Its name, in the registry until the test ends."""
    return registered(monkeypatch, "pooled", build)


class Mean(nnx.Module):
    """What can be told from the mean colour."""

    def __init__(self, num_classes: int = 7, *, rngs: nnx.Rngs):
        self.fc = nn.Linear(3, num_classes, rngs=rngs)

    def __call__(self, x):
        return self.fc(x.mean((1, 2)))


def build_mean(num_classes: int = 7, *, rngs: nnx.Rngs) -> Mean:
    return Mean(num_classes, rngs=rngs)


@pytest.fixture
def mean(monkeypatch) -> str:
    """Its name, in the registry until the test ends."""
    return registered(monkeypatch, "mean", build_mean)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """40 small photographs of 5 classes, one of them damaged."""
    folder = tmp_path_factory.mktemp("photos") / "photos"
    photos.make(folder, 8, (50, 40))
    return folder


@pytest.fixture
def no_pictures(monkeypatch) -> None:
    """Runs draw nothing, and write no report."""
    for owner, name in ((Classification, "draw"), (Classification, "draw_first_batches"), (run_log, "draw_curves")):
        monkeypatch.setattr(owner, name, lambda *arguments: None)
    monkeypatch.setattr(run_log.page, "write", lambda folder, quantities: None)
