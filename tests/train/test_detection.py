"""Batches of detection: images and objects as torchvision's transform hands them to a detector, and results in
pixels of the images themselves."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from PIL import Image
from torchvision.models.detection.transform import GeneralizedRCNNTransform

import jaxzoo
from jaxzoo.detection.transform import DetectionTransform
from tests.compare import cast
from tests.train.boxes import Boxes
from train.config.options import Config
from train.data import Data
from train.data.batches import EvaluationBatches, TrainingBatches
from train.data.objects import Objects, Problem, Skeleton
from train.tasks import detection
from train.tasks.detection import Detection

TRANSFORM = DetectionTransform(min_size=(64,), max_size=100)
SIZES = [(40, 60), (60, 40), (50, 52), (40, 60), (30, 90), (60, 40)]  # heights and widths


class Pictures:
    """Noise with boxes, masks and keypoints; the last picture has none, and of every other the first is a crowd."""

    problems = ()

    def __init__(self, sizes=SIZES, problems=()):
        self.sizes, self.problems = sizes, list(problems)

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, index):
        noise = np.random.default_rng(index).integers(0, 256, (*self.sizes[index], 3)).astype(np.uint8)
        return Image.fromarray(noise), self.objects(index)

    def name(self, index):
        return f"picture {index}"

    def size(self, index):
        return self.sizes[index]

    def with_parts(self, *, masks=False, keypoints=False):
        return self

    def objects(self, index):
        rng, (height, width), count = np.random.default_rng(index), self.sizes[index], (1 + index % 3) * (index != 5)
        corners = (rng.uniform(0, 0.4, (count, 2, 2)) + np.array([[0], [0.6]])) * [width, height]
        return Objects.of(
            corners.reshape(-1, 4),
            rng.integers(1, 3, count),
            crowd=np.arange(count) < index % 2,
            masks=rng.integers(0, 2, (count, height, width)).astype(np.uint8),
            keypoints=rng.uniform(0, 30, (count, 4, 3)).astype(np.float32),
        )


def task(source=None, **options) -> Detection:
    source = source or Pictures()
    skeleton = Skeleton(("a", "b", "c", "d"), (0, 1, 2, 3))
    options = {"masks": True, "keypoints": True} | options
    return Detection(Data(source, source, ["background", "x", "y"], skeleton=skeleton), TRANSFORM, **options)


@pytest.mark.parametrize("index", range(len(SIZES)))
def test_images_and_objects_are_those_of_torchvisions_transform(index):
    source, this = Pictures(), task()
    batch = this.training_example(source[index], np.random.default_rng(0))
    image, objects = source[index]
    objects = objects.some(~objects.crowd)
    given = {name: torch.tensor(getattr(objects, name)) for name in ("boxes", "masks", "keypoints")}
    pixels = torch.tensor(np.asarray(image)).permute(2, 0, 1) / 255
    mean, std = TRANSFORM.image_mean, TRANSFORM.image_std
    images, (found,) = GeneralizedRCNNTransform(64, 100, mean, std)([pixels], [given])
    height, width = batch["size"]
    assert images.image_sizes == [(height, width)]
    np.testing.assert_allclose(
        batch["image"][:height, :width], images.tensors[0].permute(1, 2, 0)[:height, :width], atol=2e-5
    )
    assert not batch["image"][height:].any() and not batch["image"][:, width:].any()
    count = len(objects)
    assert batch["valid"].tolist() == [True] * count + [False] * (3 - count)
    np.testing.assert_allclose(batch["boxes"][:count], found["boxes"], rtol=1e-6)
    np.testing.assert_allclose(batch["keypoints"][:count], found["keypoints"], rtol=1e-6)
    np.testing.assert_array_equal(batch["masks"][:count, :height, :width], found["masks"])
    assert batch["labels"].tolist() == [*objects.labels, *[0] * (3 - count)]
    assert not any(batch[name][count:].any() for name in ("boxes", "masks", "keypoints"))


def test_a_batch_is_of_images_of_like_shape_and_their_canvases_are_few():
    this = task()
    buckets = this.training_buckets(this.data.train)
    assert sorted(index for bucket in buckets for index in bucket) == list(range(len(SIZES)))
    assert len(buckets) <= 3
    batches = TrainingBatches(this.data.train, this.training_example, 1, 0, buckets=buckets)
    shapes: dict[int, set] = {}
    for i in range(len(SIZES)):
        shapes.setdefault(batches.bucket(i), set()).add(batches(i)["image"].shape[1:3])
    assert all(len(found) == 1 for found in shapes.values())
    assert {side % 32 for found in shapes.values() for sides in found for side in sides} == {0}


def test_of_several_sizes_training_draws_one_and_evaluation_takes_the_last():
    this = task()
    this.preprocess = dataclasses.replace(TRANSFORM, min_size=(32, 48, 64))
    item = this.data.train[2]
    sides = {int(this.training_example(item, np.random.default_rng(seed))["size"].min()) for seed in range(20)}
    assert sides == {32, 48, 64}
    assert this.evaluation_example(item)["size"].min() == 64


def test_labels_of_a_model_without_a_class_for_the_background_start_from_0():
    this = task(background=False)
    item = this.data.train[0]
    assert this.training_example(item, np.random.default_rng(0))["labels"][0] == item[1].labels[0] - 1


class Collected:
    """Keeps what it is given."""

    def __init__(self):
        self.found = {}

    def add(self, index, result):
        self.found[index] = result


def test_evaluation_finds_what_detect_finds():
    source = Pictures()
    this = task(source, masks=False, keypoints=False, dtype=jnp.float64)
    model = cast(Boxes(3, 64, 100, rngs=nnx.Rngs(0)), jnp.float64)
    model.roi_heads.score_thresh = 0.2
    model.eval()
    collector = detection.InImages(this.preprocess, source, Collected())
    buckets = this.evaluation_buckets(source, 2, None, 1)
    batches = EvaluationBatches(source, buckets=buckets)
    for i in range(len(batches)):
        outputs = jax.tree.map(np.asarray, this.evaluation_outputs(model, jax.tree.map(jnp.asarray, batches(i))))
        for row, index in enumerate(outputs["indices"].tolist()):
            if index >= 0:
                collector.add(index, {name: outputs[name][row] for name in this.collected})
    assert sorted(collector.collector.found) == list(range(len(source)))
    for index, found in collector.collector.found.items():
        (expected,) = jaxzoo.detect(model, [np.asarray(source[index][0])], canvas="buckets")
        assert len(found["boxes"]) == len(expected["boxes"]) > 0
        np.testing.assert_array_equal(found["labels"], expected["labels"])
        np.testing.assert_allclose(found["scores"], expected["scores"], rtol=1e-9)
        np.testing.assert_allclose(found["boxes"], expected["boxes"], rtol=0, atol=1e-9)


def test_bad_annotations_are_said_once_or_refused(capsys):
    bad = [Problem("annotation 3 of a.png", "its box is empty (3, 3, 3, 9)", "a.png")] * 4
    source = Pictures(problems=bad)
    data = Data(source, Pictures(), ["background", "x", "y"])
    given = Config(model="retinanet_resnet50_fpn", data_augmentation="none")
    detection.tasks_of(given, data, TRANSFORM)
    assert "4 x annotation 3 of a.png: its box is empty (3, 3, 3, 9)" in capsys.readouterr().out
    with pytest.raises(jaxzoo.UsageError, match="its box is empty"):
        detection.tasks_of(dataclasses.replace(given, strict_data=True), data, TRANSFORM)
