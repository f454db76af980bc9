"""What classification makes of images, losses and counts."""

import csv
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from PIL import Image

from jaxzoo import Preprocess, eval_transform
from train.metrics import compute, init, update
from train.metrics.top_k import TopK
from train.tasks.classification import PLAIN, Classification

CLASSES = ["ant", "bee", "cow"]


def classification(label_smoothing=0.0, **augmentation):
    return Classification(
        CLASSES,
        Preprocess(crop=8, resize=10),
        augmentation=dataclasses.replace(PLAIN, **augmentation),
        label_smoothing=label_smoothing,
    )


def counted(metrics, outputs):
    """The numbers of a single batch."""
    return compute(metrics, jax.device_get(update(metrics, init(metrics), outputs)))


def picture(width=16, height=12):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def test_evaluation_shows_the_model_what_the_eval_transform_does():
    task = classification()
    batch = task.evaluation_example((picture(), 2))
    assert (batch["image"].dtype, batch["label"]) == (np.uint8, 2)
    expected = eval_transform(picture(), task.preprocess)
    np.testing.assert_allclose(task.normalised(batch["image"][None])[0], expected, atol=1e-6)


def test_a_random_crop_depends_on_the_generator_alone():
    task = classification(crop_area=0.5)
    first, again, other = (task.training_example((picture(), 0), np.random.default_rng(s))["image"] for s in (1, 1, 2))
    assert first.shape == (8, 8, 3)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_flips_mirror_some_images_and_change_nothing_else():
    images = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3), np.uint8)
    batch = {"image": images, "label": np.zeros(32, np.int32)}
    seen = {}

    def model(x):
        seen["images"] = x
        return jnp.zeros((32, 3))

    task = classification(flip=True)
    task.training_loss(model, batch, jax.random.key(0))
    plain, mirrored = task.normalised(images), task.normalised(images[:, :, ::-1])
    is_plain = [bool((a == b).all()) for a, b in zip(seen["images"], plain, strict=True)]
    is_mirrored = [bool((a == b).all()) for a, b in zip(seen["images"], mirrored, strict=True)]
    assert all(a != b for a, b in zip(is_plain, is_mirrored, strict=True))
    assert 0 < sum(is_mirrored) < 32

    classification().training_loss(model, batch, jax.random.key(0))
    np.testing.assert_array_equal(seen["images"], plain)


def test_the_loss_is_torchs_cross_entropy_with_label_smoothing():
    logits, labels = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32), np.array([0, 1, 2, 2, 1, 0])
    batch = {"image": np.zeros((6, 8, 8, 3), np.uint8), "label": labels}
    task = classification(label_smoothing=0.2)
    loss, _ = task.training_loss(lambda x: jnp.asarray(logits), batch, jax.random.key(0))
    expected = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(labels), label_smoothing=0.2)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_random_erasing_and_mixing_reach_images_and_targets():
    images = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3), np.uint8)
    batch = {"image": images, "label": np.arange(32, dtype=np.int32) % 3}
    plain, whole = classification().augmented(batch, jax.random.key(0))
    assert set(np.unique(whole)) == {0, 1}
    erased, targets = classification(random_erase=1.0).augmented(batch, jax.random.key(0))
    changed = (erased != plain).any(-1)
    assert changed.any((1, 2)).mean() > 0.9 and (erased[changed] == 0).all()
    np.testing.assert_array_equal(targets, whole)
    for name in ("mixup", "cutmix"):
        mixed, targets = classification(**{name: 1.0}).augmented(batch, jax.random.key(1))
        assert (mixed != plain).any() and ((targets > 0) & (targets < 1)).any()
        np.testing.assert_allclose(targets.sum(-1), 1, rtol=1e-6)


class Pictures:
    def __getitem__(self, index):
        return picture(), 2

    def name(self, index):
        return f"cow-{index}.png"


class Heads(NamedTuple):
    logits: jax.Array
    aux_logits2: jax.Array | None
    aux_logits1: jax.Array


def test_the_loss_of_auxiliary_heads_counts_as_the_model_says():
    draws, labels = np.random.default_rng(0).normal(size=(2, 6, 3)).astype(np.float32), np.array([0, 1, 2, 2, 1, 0])
    batch = {"image": np.zeros((6, 8, 8, 3), np.uint8), "label": labels}

    class Network:
        aux_weight = 0.3

        def __call__(self, x):
            return Heads(jnp.asarray(draws[0]), None, jnp.asarray(draws[1]))

    task = classification(label_smoothing=0.2)
    loss, (parts, outputs) = task.training_loss(Network(), batch, jax.random.key(0))
    main, auxiliary = (
        torch.nn.functional.cross_entropy(torch.tensor(y), torch.tensor(labels), label_smoothing=0.2).item()
        for y in draws
    )
    np.testing.assert_allclose(loss, main + 0.3 * auxiliary, rtol=1e-6)
    np.testing.assert_allclose([parts["main"], parts["auxiliary"]], [main, 0.3 * auxiliary], rtol=1e-6)
    numbers = counted(task.training_metrics, outputs)
    np.testing.assert_allclose(numbers["loss"], main, rtol=1e-6)
    assert numbers["accuracy"] == (draws[0].argmax(-1) == labels).mean()


def test_metrics_leave_out_what_the_mask_leaves_out(tmp_path):
    logits = np.array([[5, 0, 0], [0, 5, 0], [0, 5, 0], [9, 0, 0], [9, 0, 0]], np.float32)
    batch = {
        "image": np.zeros((5, 8, 8, 3), np.uint8),
        "label": np.array([0, 1, 2, 2, 0], np.int32),
        "mask": np.array([True, True, True, False, False]),
        "indices": np.array([0, 1, 2, -1, -1], np.int32),
    }
    task = classification()
    outputs = task.evaluation_outputs(lambda x: jnp.asarray(logits), batch)
    states = jax.device_get(update(task.evaluation_metrics, init(task.evaluation_metrics), outputs))
    metrics = compute(task.evaluation_metrics, states)
    assert metrics["accuracy"] == 2 / 3
    losses = -np.log(np.exp(5) / (np.exp(5) + 2)), -np.log(1 / (np.exp(5) + 2))
    np.testing.assert_allclose(metrics["loss"], (2 * losses[0] + losses[1]) / 3, rtol=1e-6)
    assert states["confusion"].tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]

    assert states["errors"]["index"][:1].tolist() == [2] and not states["errors"]["probability"][1:].any()

    task.draw(states, Pictures(), tmp_path)
    with (tmp_path / "confusion.csv").open() as file:
        assert list(csv.reader(file))[3] == ["cow", "0", "1", "0"]
    assert Image.open(tmp_path / "confusion_matrix.png").size[0] > 300


def test_a_model_that_says_the_same_of_all_classes_is_not_right():
    outputs = {"logits": jnp.zeros((3, 3)), "labels": jnp.arange(3), "mask": jnp.ones(3, bool)}
    assert counted({"accuracy": TopK()}, outputs) == {"accuracy": 1 / 3}


def test_top5_counts_where_there_are_more_than_ten_classes():
    task = Classification([str(i) for i in range(12)], Preprocess(crop=8))
    logits = jnp.arange(12.0)[None].repeat(3, 0)
    outputs = {"losses": jnp.zeros(3), "logits": logits, "labels": jnp.array([11, 7, 6]), "mask": jnp.ones(3, bool)}
    assert counted(task.training_metrics, outputs) == {"loss": 0, "accuracy": 1 / 3, "top5": 2 / 3}
