"""Held-out images of many sizes: none costs more than it has to, and every pixel counts once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxzoo import Preprocess, UsageError
from jaxzoo.preprocess import IMAGENET_MEAN, IMAGENET_STD
from tests.train.test_evaluated_alone import saved
from tests.train.test_segmentation import CLASSES, COLORS, telling
from train import loop
from train.config import command_line
from train.data import masks
from train.data.batches import EvaluationBatches
from train.metrics import init, update
from train.metrics.mean_iou import whole
from train.tasks.segmentation import Segmentation

SIZES = [(20, 40), (600, 30), (33, 20), (64, 64), (250, 420), (30, 30), (40, 60), (8, 8), (61, 50)]


class Sized:
    """Images of these sizes, of which those without one cannot be read."""

    def __init__(self, sizes):
        self.sizes = sizes

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, index):
        return telling(*self.size(index), seed=index)

    def size(self, index):
        if not self.sizes[index]:
            raise UsageError(f"{index} cannot be read")
        return self.sizes[index]

    def name(self, index):
        return f"{index}.png"


def task(source):
    return Segmentation(CLASSES, Preprocess(crop=32), canvases=masks.canvases(source))


def test_images_of_one_size_or_nearly_so_share_a_canvas():
    assert masks.canvases(Sized([(30, 40)] * 5))[0].size == (32, 64)
    (canvas,) = masks.canvases(Sized([(500, 375), (375, 500), (480, 500), (500, 333)]))
    assert canvas.size == (512, 512) and canvas.indices.tolist() == [0, 1, 2, 3]


def test_a_large_image_has_a_canvas_of_its_own_and_one_that_cannot_be_read_goes_with_small_ones():
    usual, large = masks.canvases(Sized([(64, 64)] * 7 + [None, (3000, 4000)]))
    assert (usual.size, usual.indices.tolist()) == ((64, 64), [*range(8)])
    assert (large.size, large.indices.tolist()) == ((3008, 4000), [8])


def test_there_are_no_more_than_four_canvases_and_every_image_is_on_one():
    rng = np.random.default_rng(0)
    sizes = [tuple(side) for side in np.exp(rng.uniform(2, 8, (200, 2))).astype(int).tolist()]
    found = masks.canvases(Sized(sizes))
    assert 2 <= len(found) <= 4
    assert sorted(np.concatenate([canvas.indices for canvas in found]).tolist()) == [*range(200)]
    for canvas in found:
        assert all(a <= b for index in canvas.indices for a, b in zip(sizes[index], canvas.size, strict=True))
    pixels = sum(len(canvas.indices) * np.prod(canvas.size) for canvas in found)
    assert pixels < 0.4 * 200 * np.prod(np.max(sizes, 0))


@pytest.mark.parametrize(
    ("batch_size", "wanted", "multiple", "rows"),
    [(16, None, 1, [16, 1]), (16, None, 4, [16, 4]), (64, 4, 1, [4, 1]), (2, 8, 8, [8, 8]), (256, None, 1, [256, 1])],
)
def test_a_batch_of_large_images_has_few_of_them(batch_size, wanted, multiple, rows):
    source = Sized([(64, 64)] * 7 + [(1000, 1000)])
    buckets = task(source).evaluation_buckets(source, batch_size, wanted, multiple)
    assert [bucket.rows for bucket in buckets] == rows


def test_where_images_are_larger_than_crops_evaluation_needs_no_more_memory_than_training():
    source = Sized([(1024, 2048)] * 3)
    (bucket,) = task(source).evaluation_buckets(source, 256, None, 1)  # crops of 32 pixels
    assert bucket.rows * 1024 * 2048 <= 4 * 256 * 32**2 or bucket.rows == 1


def knowing(images):
    """A network that sees in the colours what is true, but for the last class, which it never says."""
    distance = jnp.abs(images[..., None, :] - (COLORS / 255 - IMAGENET_MEAN) / IMAGENET_STD).max(-1)
    return {"out": -distance.at[..., 3].set(1e3)}


@pytest.mark.parametrize("processes", [2])
def test_every_pixel_counts_once_whatever_its_images_size(processes):
    source = Sized(SIZES)
    ours = task(source)
    assert len(ours.canvases) > 1
    buckets = ours.evaluation_buckets(source, 4, 4, processes)
    evaluate = jax.jit(functools.partial(ours.evaluation_outputs, knowing))
    states, shapes, indices = init(ours.evaluation_metrics), set(), []
    for process in range(processes):
        batches = EvaluationBatches(source, buckets=buckets, process=process, processes=processes)
        for number in range(len(batches)):
            batch = batches(number)
            shapes.add(batch["image"].shape)
            indices += batch["indices"][batch["mask"]].tolist()
            states = update(ours.evaluation_metrics, states, evaluate(batch))
    assert len(shapes) == len(ours.canvases)
    assert sorted(indices) == [*range(len(SIZES))]
    truth = sum(np.bincount(source[i][1].ravel(), minlength=4) for i in range(len(SIZES)))
    matrix = whole(states["pixels"]["confusion"])
    np.testing.assert_array_equal(matrix.sum(1), truth)
    np.testing.assert_array_equal(np.diag(matrix)[:3], truth[:3])
    assert matrix[3, 3] == 0
    assert sorted(np.asarray(states["first"]["index"]).tolist()) == [0, 1, 2, 3]
    first = int(np.flatnonzero(np.asarray(states["first"]["index"]) == 1)[0])
    mask = source[1][1]
    predicted = np.asarray(states["first"]["predicted"])[first][: mask.shape[0], : mask.shape[1]]
    np.testing.assert_array_equal(predicted[mask < 3], mask[mask < 3])


def test_the_batches_of_evaluation_may_have_another_size_than_those_of_training(mean, tmp_path, capsys):
    weights, usual = saved(tmp_path / "weights", classes=10), ["--model", "mean", "--eval-only", "--weights"]
    said = set()
    for size in ([], ["--eval-batch-size", "7"], ["--eval-batch-size", "360"]):
        loop.run(command_line.parse([*usual, str(weights), *size]))
        said.add(capsys.readouterr().out.splitlines()[-1])
    assert len(said) == 1 and "accuracy" in said.pop()
    with pytest.raises(UsageError, match="--eval-batch-size is 0; it must be a whole number of at least 1"):
        command_line.parse(["--eval-batch-size", "0"])
