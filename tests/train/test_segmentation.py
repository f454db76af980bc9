"""What segmentation makes of images and masks, losses, counts and metrics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics
import torch
from PIL import Image

from jaxzoo import Preprocess
from jaxzoo.preprocess import IMAGENET_MEAN, IMAGENET_STD
from tests.train.test_task import counted
from train.data import masks
from train.metrics import compute, init, mean_iou, update
from train.tasks.segmentation import Segmentation, SegmentationAugmentation

NAMES = ("loss", "pixel_accuracy", "mean_accuracy", "miou", "fwiou")
CLASSES = ["ground", "roof", "road", "water"]


def task(crop=16, canvas=(32, 32), classes=CLASSES, augmentation=None, **options):
    wanted = SegmentationAugmentation(**augmentation or {})
    return Segmentation(
        classes, Preprocess(crop=crop), canvases=[masks.Canvas(canvas, range(0))], augmentation=wanted, **options
    )


# Of no three of these one is a mixture of the others, nor is the mean colour one of any.
COLORS = np.array([[20, 20, 20], [230, 30, 20], [20, 230, 40], [30, 20, 230]], np.uint8)


def telling(height, width, seed=0):
    """An image whose colours tell what its mask says."""
    blocks = np.random.default_rng(seed).integers(0, 4, (height // 8 + 1, width // 8 + 1), np.uint8)
    mask = blocks.repeat(8, 0).repeat(8, 1)[:height, :width]
    return Image.fromarray(COLORS[mask]), mask


def told(pixels):
    """The class whose colour a pixel is nearest to, and whether it is that colour rather than a mixture of some."""
    distance = np.abs(pixels[..., None, :].astype(float) - COLORS).max(-1)
    return distance.argmin(-1), distance.min(-1) <= 3


# Examples


@pytest.mark.parametrize("size", [(40, 50), (17, 9), (9, 64)])
def test_image_and_mask_stay_aligned_whatever_scale_crop_and_flip_do(size):
    wanted = task(augmentation={"scale": (0.5, 2.0), "flip": True})
    examples = [wanted.training_example(telling(*size, seed), np.random.default_rng(seed)) for seed in range(24)]
    batch = {key: np.stack([example[key] for example in examples]) for key in examples[0]}
    assert batch["image"].shape == (24, 16, 16, 3) and batch["target"].shape == (24, 16, 16)
    images, targets = wanted.augmented(batch, jax.random.key(0))
    pixels = np.asarray(images) * IMAGENET_STD + IMAGENET_MEAN
    pixels, targets = (pixels * 255).round(), np.asarray(targets)
    values, clear = told(pixels)
    labelled = targets != 255
    padded = np.abs(pixels - np.array(wanted.fill)).max(-1) <= 1
    np.testing.assert_array_equal(padded, ~labelled)
    # Where classes meet, the image is a mixture; elsewhere its colours tell the class that the mask has.
    assert (clear & labelled).sum() > 0.4 * labelled.sum()
    np.testing.assert_array_equal(values[clear & labelled], targets[clear & labelled])
    mirrored = (targets != batch["target"]).any((1, 2))
    assert 0 < mirrored.sum() < 24


def test_an_image_smaller_than_the_crop_is_surrounded_by_the_mean_colour_and_ignored_pixels():
    image, mask = telling(10, 6)
    example = task().training_example((image, mask), np.random.default_rng(3))
    labelled = example["target"] != 255
    assert labelled.sum() == 60
    np.testing.assert_array_equal(example["target"][labelled], mask.ravel())
    np.testing.assert_array_equal(example["image"][labelled], np.asarray(image).reshape(-1, 3))
    assert (example["image"][~labelled] == (124, 116, 104)).all()


def test_a_crop_depends_on_the_generator_alone_and_scales_as_far_as_it_may():
    wanted = task(augmentation={"scale": (0.5, 2.0), "color_jitter": (0.4, 0.4, 0.4, 0.1)})
    first, again, other = (wanted.training_example(telling(60, 60), np.random.default_rng(s)) for s in (1, 1, 2))
    assert all((first[key] == again[key]).all() for key in first) and (first["image"] != other["image"]).any()
    image, mask = telling(60, 40)
    assert [masks.rescaled(image, mask, factor)[1].shape for factor in (0.5, 1, 1.26)] == [(30, 20), (60, 40), (76, 50)]


def test_evaluation_sees_every_pixel_at_its_own_size():
    image, mask = telling(20, 31)
    example = task().evaluation_example((image, mask))
    assert example["image"].shape == (32, 32, 3)
    np.testing.assert_array_equal(example["image"][:20, :31], np.asarray(image))
    np.testing.assert_array_equal(example["target"][:20, :31], mask)
    assert (example["target"] != 255).sum() == mask.size
    blank = task().blank()
    assert all(blank[key].shape == example[key].shape and blank[key].dtype == example[key].dtype for key in example)


# Losses


class Saying:
    """A network that says these logits, whatever it sees."""

    aux_weight = 0.3

    def __init__(self, **logits):
        self.logits = {name: jnp.asarray(value) for name, value in logits.items()}

    def __call__(self, x):
        return self.logits


def drawn(n=3, size=(16, 16), classes=4, seed=0):
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, (n, *size)).astype(np.uint8)
    targets[rng.random(targets.shape) < 0.2] = 255
    return rng.normal(size=(2, n, *size, classes)).astype(np.float32), targets


def batch_of(targets):
    n = len(targets)
    return {
        **{"image": np.zeros((*targets.shape, 3), np.uint8), "target": targets},
        **{"mask": np.ones(n, bool), "indices": np.arange(n, dtype=np.int32)},
    }


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_torchs_over_labelled_pixels_with_auxiliary_heads_as_the_model_says(smoothing):
    (out, aux), targets = drawn()
    expected = [
        torch.nn.functional.cross_entropy(
            torch.tensor(y).movedim(-1, 1), torch.tensor(targets).long(), ignore_index=255, label_smoothing=smoothing
        ).item()
        for y in (out, aux)
    ]
    wanted = task(label_smoothing=smoothing)
    loss, (parts, outputs) = wanted.training_loss(Saying(out=out, aux=aux), batch_of(targets), jax.random.key(0))
    np.testing.assert_allclose(loss, expected[0] + 0.3 * expected[1], rtol=1e-6)
    metrics = counted(wanted.training_metrics, outputs)
    np.testing.assert_allclose([parts["main"], parts["auxiliary"]], [expected[0], 0.3 * expected[1]], rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], expected[0], rtol=1e-6)
    np.testing.assert_allclose(metrics["pixel_accuracy"], (out.argmax(-1) == targets)[targets != 255].mean())
    given, _ = task(aux_weight=0.7).training_loss(Saying(out=out, aux=aux), batch_of(targets), jax.random.key(0))
    if not smoothing:
        np.testing.assert_allclose(given, expected[0] + 0.7 * expected[1], rtol=1e-6)


def test_a_batch_without_a_labelled_pixel_has_no_loss_and_no_gradient():
    (out, _), targets = drawn()
    batch = batch_of(np.full_like(targets, 255))

    def loss(logits):
        return task().training_loss(Saying(out=logits), batch, jax.random.key(0))[0]

    value, gradient = jax.value_and_grad(loss)(jnp.asarray(out))
    assert value == 0 and not np.asarray(gradient).any()
    outputs = task().evaluation_outputs(Saying(out=out), batch)
    assert counted(task().evaluation_metrics, outputs) == dict.fromkeys(
        ("loss", "pixel_accuracy", "mean_accuracy", "miou", "fwiou"), 0.0
    )


# Metrics


def test_metrics_are_those_of_scikit_learns_confusion_matrix():
    (out, other), targets = drawn(n=4, classes=4)
    targets[targets == 3] = 1  # the truth lacks one class
    wanted, states = task(), None
    for logits in (out, other):  # two batches, the second with a row that is none
        batch = batch_of(targets)
        if states:
            batch["mask"][3] = False
        outputs = wanted.evaluation_outputs(Saying(out=logits), batch)
        states = update(wanted.evaluation_metrics, states or init(wanted.evaluation_metrics), outputs)
    truth = np.concatenate([targets.ravel(), targets[:3].ravel()])
    predicted = np.concatenate([out.argmax(-1).ravel(), other[:3].argmax(-1).ravel()])
    known = truth != 255
    truth, predicted = truth[known], predicted[known]
    matrix = sklearn.metrics.confusion_matrix(truth, predicted, labels=range(4))
    states = jax.device_get(states)
    np.testing.assert_array_equal(mean_iou.whole(states["pixels"]["confusion"]), matrix)
    metrics = compute(wanted.evaluation_metrics, states)
    iou = sklearn.metrics.jaccard_score(truth, predicted, labels=range(4), average=None)
    expected = {
        "pixel_accuracy": sklearn.metrics.accuracy_score(truth, predicted),
        "mean_accuracy": sklearn.metrics.recall_score(truth, predicted, labels=range(3), average="macro"),
        "miou": iou.mean(),
        "fwiou": sklearn.metrics.jaccard_score(truth, predicted, labels=range(4), average="weighted"),
    }
    np.testing.assert_allclose([metrics[name] for name in expected], list(expected.values()), rtol=1e-12)
    nll = sklearn.metrics.log_loss(
        truth,
        np.asarray(jax.nn.softmax(np.concatenate([out.reshape(-1, 4), other[:3].reshape(-1, 4)])[known])),
        labels=range(4),
    )
    np.testing.assert_allclose(metrics["loss"], nll, rtol=1e-5)


def test_classes_that_are_nowhere_are_left_out_of_the_means():
    targets = np.zeros((1, 4, 4), np.uint8)
    targets[0, :2] = 1
    logits = np.eye(5, dtype=np.float32)[targets]  # five classes, of which two are there, and all is right
    logits[0, 0, 0] = np.eye(5)[0]  # but for one pixel
    wanted = task(classes=[*CLASSES, "sky"])
    metrics = counted(wanted.evaluation_metrics, wanted.evaluation_outputs(Saying(out=logits), batch_of(targets)))
    np.testing.assert_allclose(metrics["miou"], (8 / 9 + 7 / 8) / 2)
    np.testing.assert_allclose(metrics["mean_accuracy"], (1 + 7 / 8) / 2)


def test_counts_stay_exact_beyond_what_int32_holds():
    kept = mean_iou.PixelScores(2)
    counts = mean_iou.confusions(jnp.zeros((1, 64, 64, 2)), jnp.zeros((1, 64, 64), jnp.uint8))
    state = kept.update(kept.init(), losses=jnp.zeros((1, 64, 64)), counts=counts)
    for _ in range(24):  # each doubles
        state = kept.merge(state, state)
    assert state["confusion"].dtype == jnp.int32
    assert mean_iou.whole(state["confusion"])[0, 0] == 2**36


# Scales and mirror images


def test_averaging_over_mirror_images_averages_probabilities():
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)

    def model(x):  # looks at a pixel, and at the one to its left
        return {"out": jnp.concatenate([x, -jnp.roll(x, 1, 2)[..., :1]], -1)}

    wanted = task(mirrored=True)
    seen = wanted.normalised(images)
    plain, mirrored = (jax.nn.softmax(model(x)["out"]) for x in (seen, seen[:, :, ::-1]))
    expected = jnp.log((plain + mirrored[:, :, ::-1]) / 2)
    assert np.abs(expected - jnp.log(plain)).max() > 0.1
    np.testing.assert_allclose(wanted.logits(model, seen), expected, rtol=1e-5, atol=1e-5)


def test_a_network_sees_scaled_images_padded_to_what_it_takes():
    sizes = []

    def model(x):
        sizes.append(x.shape[1:3])
        return {"out": jnp.tile(x.mean((1, 2), keepdims=True), (1, *x.shape[1:3], 2))[..., :4]}

    wanted = task(scales=(0.5, 1.0, 1.75), mirrored=True)
    logits = wanted.logits(model, jnp.ones((1, 32, 64, 3)))
    assert logits.shape == (1, 32, 64, 4) and np.isfinite(logits).all()
    assert sizes == [(32, 32), (32, 32), (32, 64), (32, 64), (64, 128), (64, 128)]
    np.testing.assert_allclose(jnp.exp(logits).sum(-1), 1, rtol=1e-5)
