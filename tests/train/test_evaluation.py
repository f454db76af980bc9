"""Evaluation counts every image once, and finds what scikit-learn finds."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from sklearn import metrics

import train.data
from jaxzoo import Preprocess, UsageError
from tests.train.tiny import Tiny
from train.data.batches import EvaluationBatches
from train.engine import step
from train.engine.evaluation import evaluate
from train.tasks.classification import Classification

CLASSES = [*"0123456789", "ten", "eleven"]  # two of them without an image; more than ten, so that there is a top 5
BROKEN = (3, 77)


class Holed:
    """The held-out digits, some of which cannot be read."""

    def __init__(self, broken):
        self.images, self.broken = train.data.load("digits").held_out, broken

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        if index in self.broken:
            raise UsageError(f"digit {index} cannot be read")
        return self.images[index]

    def name(self, index):
        return self.images.name(index)


def evaluated(batch_size, broken=()):
    """The model, and what came of all batches of that size."""
    task = Classification(CLASSES, Preprocess(crop=32, resize=32))
    model = Tiny(len(CLASSES), rngs=nnx.Rngs(params=1, dropout=0))
    still, rate = optax.sgd(0.0), optax.constant_schedule(0.0)
    steps, state = step.build(model, [task], still, rate, batch_size, per_epoch=1, seed=0)
    batches = EvaluationBatches(
        Holed(broken), task.evaluation_example, batch_size, strict=False, report=lambda text: None
    )
    return model, task, evaluate(steps, task, step.weights_of(state), map(batches, range(len(batches))))


@pytest.fixture(scope="module")
def expected():
    """Labels, and what the model says to all images at once."""
    images = train.data.load("digits").held_out
    model, task, _ = evaluated(359)
    model.eval()
    pixels = np.stack([task.evaluation_example(images[i])["image"] for i in range(len(images))])
    logits = np.asarray(model(task.normalised(jnp.asarray(pixels))), np.float64)
    return images.labels, logits


@pytest.mark.parametrize("batch_size", [32, 359, 400])
@pytest.mark.parametrize("broken", [(), BROKEN])
def test_every_image_counts_once_whatever_the_batches_are(expected, batch_size, broken):
    *_, evaluation = evaluated(batch_size, broken)
    labels, logits = (np.delete(values, broken, 0) for values in expected)
    predicted, found, every = logits.argmax(1), evaluation.numbers, range(len(CLASSES))
    np.testing.assert_array_equal(
        evaluation.states["confusion"], metrics.confusion_matrix(labels, predicted, labels=every)
    )
    assert evaluation.states["loss"]["count"] == len(labels)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(labels, predicted), rel=1e-7)
    assert found["top5"] == pytest.approx(metrics.top_k_accuracy_score(labels, logits, k=5, labels=every), rel=1e-7)
    parts = np.exp(logits - logits.max(1, keepdims=True))
    parts /= parts.sum(1, keepdims=True)
    assert found["loss"] == pytest.approx(metrics.log_loss(labels, parts, labels=every), rel=1e-6)
