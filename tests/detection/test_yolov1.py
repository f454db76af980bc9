"""YOLOv1 detects and learns as the twin, which goes cell by cell."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxzoo
from convert.twins import yolov1 as reference
from jaxzoo import UsageError
from jaxzoo.detection.yolov1 import YOLOv1
from tests.detection.pair import SmallPair, nothing

SIDE, CLASSES = 128, 5  # pixels, of two cells each way
PLAN = ((8, 3, 1), None, (12, 3, 1), None, (16, 3, 1), None, (16, 3, 1), None, (24, 3, 1), None, (32, 3, 1), None)
ARGUMENTS = {"num_classes": CLASSES, "image_size": SIDE, "dropout": 0.0, "detections_per_img": 12}


@pytest.fixture(scope="module")
def pair() -> SmallPair:
    layers = " ".join(f"{step[0]}/{step[1]}" if step else "M" for step in PLAN)
    twin = reference.YOLOv1(f"{layers} local dropout", **ARGUMENTS)
    return SmallPair(lambda: YOLOv1(PLAN, 256, **ARGUMENTS, rngs=nnx.Rngs(0)), twin, (SIDE, SIDE))


def test_detections_equal_the_twins(pair):
    with pair.changed(score_thresh=-10.0, nms_thresh=0.3):
        assert min(pair.same_detections()) > 3
    with pair.changed(score_thresh=1e9):
        assert pair.same_detections() == [0, 0]


def targets(*boxes: tuple[float, float, float, float]) -> dict[str, np.ndarray]:
    """These in the first of two images, and one in the second; padded with NaN."""
    rows = np.full((2, 4, 4), np.nan)
    rows[0, : len(boxes)], rows[1, 0] = boxes, (30, 20, 90, 100)
    valid = np.arange(4) < np.array([[len(boxes)], [1]])
    return {"boxes": rows, "labels": np.array([[1, 2, 3, 4], [0, 0, 0, 0]], np.int32), "valid": valid}


def test_losses_equal_the_twins(pair):
    """The first of two objects in a cell counts; tiny ones do not; one that no box overlaps goes by its distance."""
    first, second = (10, 10, 40, 44), (20, 4, 50, 60)
    alone, both, other = (pair.same_losses(targets(*boxes)) for boxes in ((first,), (first, second), (second, first)))
    assert alone == both != other
    assert pair.same_losses(targets(first, (70, 70, 70.5, 120))) == pytest.approx(alone, rel=1e-12)
    pair.same_losses(targets((127, 127, 127.9, 127.9), first))
    losses = pair.same_losses(nothing(3))
    assert [name for name, loss in losses.items() if loss] == ["no_objectness"]


def test_objects_outside_do_not_count_and_give_numbers():
    model = YOLOv1(PLAN, 256, **ARGUMENTS, rngs=nnx.Rngs(0))
    images = jax.random.uniform(jax.random.key(0), (2, SIDE, SIDE, 3))
    inside, outside = targets((10, 10, 40, 44)), targets((10, 10, 40, 44), (200, 10, 260, 60), (-90, 0, -10, 60))
    a, b = (model.losses(images, None, jax.tree.map(jnp.asarray, given)) for given in (inside, outside))
    assert all(np.isfinite(a[name]) and a[name] == b[name] for name in a)


def test_what_cannot_be_is_refused_in_a_sentence():
    with pytest.raises(UsageError, match="image_size is 450; it must be a multiple of 64"):
        jaxzoo.create_model("yolov1_tiny", image_size=450)
    model = nnx.eval_shape(lambda: YOLOv1(PLAN, None, **ARGUMENTS, rngs=nnx.Rngs(0)))
    with pytest.raises(UsageError, match="built for images of 128 × 128 pixels and was given"):
        jax.eval_shape(lambda x: model.cells(x), jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32))
