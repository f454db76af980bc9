"""COCO's numbers are pycocotools' numbers, in every digit."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from jaxzoo.errors import UsageError
from train.data.objects import Objects
from train.metrics.average_precision import MEASURES, PREFIXES, CocoMetrics, coco_table

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pycocotools")

SIDE = 140  # pixels, so that there are objects of all of COCO's ranges of area
KINDS = ("bbox", "segm", "keypoints")


class Truth:
    """A source of objects without images."""

    def __init__(self, truths):
        self.truths = truths

    def objects(self, index):
        return self.truths[index]

    def name(self, index):
        return f"{index}.png"


def scene(rng, *, kinds=KINDS, images=3, classes=3, points=17):
    """Random objects and detections: whole and broken coordinates, crowds, ties, empties, more than are counted."""
    whole = rng.random() < 0.4  # then overlaps of exactly 0.5 and the like come up, and the same one twice
    many = rng.random() < 0.1
    truths, results = [], []
    for _ in range(images):
        m, d = rng.integers(0, 6), rng.integers(0, 250 if many else 12)
        true = boxes(rng, m, whole)
        labels = rng.integers(1, classes, m)
        if m and d:
            source = rng.integers(0, m, d)
            found = moved(rng, true[source], whole)
            found_labels = np.where(rng.random(d) < 0.7, labels[source], rng.integers(1, classes, d))
        else:
            found, found_labels = boxes(rng, d, whole), rng.integers(1, classes, d)
        scores = rng.integers(0, 5, d) / 4 if rng.random() < 0.5 else rng.random(d)
        area = (true[:, 2] - true[:, 0]) * (true[:, 3] - true[:, 1]) * rng.choice([1, 0.7])
        truth = {"crowd": rng.random(m) < 0.15, "area": area}
        result = {"boxes": found.astype(np.float32), "labels": found_labels, "scores": scores.astype(np.float32)}
        if "segm" in kinds:
            truth["masks"] = filled(rng, true).astype(np.uint8)
            result["masks"] = (filled(rng, found) * 0.9)[:, None].astype(np.float32)
        if "keypoints" in kinds:
            truth["keypoints"] = placed(rng, true, points)
            result["keypoints"] = placed(rng, found, points)
        truths.append(Objects.of(true, labels, **truth))
        results.append(result)
    return truths, results


def boxes(rng, count, whole):
    corner = rng.uniform(0, SIDE - 20, (count, 2))
    found = np.concatenate([corner, np.minimum(corner + np.exp(rng.uniform(1, 5, (count, 2))), SIDE)], 1)
    return (np.round(found) if whole else found).astype(np.float32)


def moved(rng, found, whole):
    sides = np.tile(found[:, 2:] - found[:, :2], 2)
    found = found + rng.normal(0, rng.choice([0.02, 0.1, 0.3]), found.shape) * sides
    found = np.round(found) if whole else found
    return np.concatenate([found[:, :2], np.maximum(found[:, 2:], found[:, :2])], 1)


def filled(rng, found):
    """Ellipses or the whole boxes (N, SIDE, SIDE)."""
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    x1, y1, x2, y2 = found.T[:, :, None, None]
    inside = (x > x1) & (x < x2) & (y > y1) & (y < y2)
    if rng.random() < 0.5:
        return inside
    wide, high = np.maximum(x2 - x1, 1), np.maximum(y2 - y1, 1)
    return ((x - (x1 + x2) / 2) / wide) ** 2 + ((y - (y1 + y2) / 2) / high) ** 2 < 0.25


def placed(rng, found, points):
    """Keypoints (N, K, 3): at fixed places of a box, with noise; of some boxes none is annotated."""
    places = np.random.default_rng(0).random((points, 2))
    sides = (found[:, 2:] - found[:, :2])[:, None]
    where = found[:, None, :2] + (places + rng.normal(0, 0.05, (len(found), points, 2))) * sides
    seen = rng.integers(0, 3, (len(found), points)) * (rng.random((len(found), 1)) < 0.8)
    return np.concatenate([where, seen[..., None]], -1).astype(np.float32)


def ours(truths, results, kinds=KINDS, classes=3, order=None, **options):
    metrics = CocoMetrics(Truth(truths), [f"class {i}" for i in range(classes)], kinds, **options)
    for index in order if order is not None else range(len(results)):
        metrics.add(index, results[index])
    return metrics


def theirs(truths, results, kind, classes=3, sigmas=None):
    """pycocotools' `COCOeval` after all steps. (`loadRes` would fail where nothing is found.)"""
    images = [{"id": i, "height": SIDE, "width": SIDE} for i in range(len(truths))]
    categories = [{"id": i, "name": str(i)} for i in range(1, classes)]
    annotations, detections = [], []
    for image, (truth, result) in enumerate(zip(truths, results, strict=True)):
        for i in range(len(truth)):
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image,
                "category_id": int(truth.labels[i]),
                "bbox": sides(truth.boxes[i]),
                "area": float(truth.area[i]),
                "iscrowd": int(truth.crowd[i]),
            }
            if kind == "segm":
                annotation["segmentation"] = outline(truth.masks[i])
            if kind == "keypoints":
                points = np.zeros((17, 3)) if truth.keypoints is None else truth.keypoints[i].astype(float)
                annotation |= {"keypoints": points.ravel().tolist(), "num_keypoints": int((points[:, 2] > 0).sum())}
            annotations.append(annotation)
        for i in range(len(result["labels"])):
            of = {"image_id": image, "category_id": int(result["labels"][i]), "score": float(result["scores"][i])}
            if kind == "bbox":
                of["bbox"] = sides(result["boxes"][i])
            if kind == "segm":
                of["segmentation"] = outline(result["masks"][i, 0] > 0.5)
            if kind == "keypoints":
                of["keypoints"] = result["keypoints"][i].astype(float).ravel().tolist()
            detections.append(of)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        coco = COCO()
        coco.dataset = {"info": {}, "images": images, "categories": categories, "annotations": annotations}
        coco.createIndex()
        if detections:
            found = coco.loadRes(detections)
        else:
            found = COCO()
            found.dataset = {"images": images, "categories": categories, "annotations": []}
            found.createIndex()
        judge = COCOeval(coco, found, kind)
        if sigmas is not None:
            judge.params.kpt_oks_sigmas = sigmas
        judge.evaluate()
        judge.accumulate()
        said.truncate(0)
        said.seek(0)
        judge.summarize()
    return judge, said.getvalue().rstrip("\n")


def sides(box):
    x1, y1, x2, y2 = map(float, box)
    return [x1, y1, x2 - x1, y2 - y1]


def outline(mask):
    return coco_mask.encode(np.asfortranarray(mask, np.uint8))


SIGMAS = COCOeval(iouType="keypoints").params.kpt_oks_sigmas


def same(truths, results, kinds=KINDS, classes=3, **options):
    metrics = ours(truths, results, kinds, classes, sigmas=SIGMAS, **options)
    numbers = metrics.compute()
    for kind in kinds:
        judge, said = theirs(truths, results, kind, classes)
        names = [PREFIXES[kind] + measure.name for measure in MEASURES[kind]]
        mine = [numbers[name] for name in names]
        assert np.nan_to_num(mine, nan=-1).tolist() == judge.stats.tolist(), kind
        assert coco_table({name: value for name, value in numbers.items() if name in names}) == said
    return metrics


@pytest.mark.parametrize("start", range(0, 700, 100))
def test_boxes_are_as_pycocotools(start):
    for seed in range(start, start + 100):
        same(*scene(np.random.default_rng(seed), kinds=("bbox",)), kinds=("bbox",))


@pytest.mark.parametrize("start", range(700, 1000, 100))
def test_boxes_masks_and_keypoints_are_as_pycocotools(start):
    for seed in range(start, start + 100):
        same(*scene(np.random.default_rng(seed)))


def test_of_objects_that_are_equally_near_the_last_is_found():
    near, other, between, later = [[x, 0, x + 20, 20] for x in (5, 15, 10, 14)]
    found = {"boxes": np.array([between, later]), "labels": np.array([1, 1]), "scores": np.array([0.9, 0.8])}
    for true, expected in (([near, other], 0.5), ([other, near], 1)):
        metrics = same([Objects.of(true, [1, 1])], [found], ("bbox",))
        assert metrics.compute()["map_50"] == pytest.approx(expected, abs=0.01)


def equal(numbers, others):
    np.testing.assert_equal(numbers, others)  # where NaN is NaN


def test_the_order_in_which_images_come_does_not_matter():
    truths, results = scene(np.random.default_rng(3), images=12)
    orders = [np.random.default_rng(seed).permutation(12) for seed in range(3)]
    for order in orders:
        equal(ours(truths, results, order=order).compute(), ours(truths, results).compute())


def test_numbers_of_a_class_are_those_of_a_data_set_with_this_class_alone():
    truths, results = scene(np.random.default_rng(3), images=12, classes=4)
    each = ours(truths, results, classes=4).per_class()
    for label in (1, 2, 3):
        truth = [objects.some(objects.labels == label) for objects in truths]
        found = [{name: values[of["labels"] == label] for name, values in of.items()} for of in results]
        alone = ours(truth, found, classes=4).compute()
        np.testing.assert_array_equal([values[label - 1] for values in each.values()], [*alone.values()])


@pytest.mark.parametrize("objects", [0, 2])
@pytest.mark.parametrize("detections", [0, 2])
def test_nothing_is_something_to_evaluate(objects, detections):
    """NaN where there is nothing to find, 0 where nothing is found."""
    rng = np.random.default_rng(0)
    corners = np.array([[10, 10, 60, 60], [70, 70, 139, 139]], np.float32)
    truth = Objects.of(corners[:objects], [1] * objects, masks=filled(rng, corners[:objects]).astype(np.uint8))
    result = {
        "boxes": corners[:detections],
        "labels": np.ones(detections, np.int64),
        "scores": np.ones(detections, np.float32),
        "masks": filled(rng, corners[:detections])[:, None].astype(np.float32),
        "keypoints": np.ones((detections, 17, 3), np.float32),
    }
    numbers = same([truth], [result]).compute()
    expected = np.nan if not objects else 1.0 if detections else 0.0
    np.testing.assert_equal([numbers["map"], numbers["segm_map_50"], numbers["mar_100"]], [expected] * 3)
    assert np.isnan(numbers["keypoints_map"])  # the objects have none, so they do not count
    assert np.isnan(numbers["map_small"])


def test_without_an_image_there_are_no_numbers():
    numbers = ours([], []).compute()
    assert len(numbers) == 34 and np.isnan([*numbers.values()]).all()
    assert coco_table(numbers).count("-1.000") == 34


def test_images_that_were_not_added_do_not_count():
    truths, results = scene(np.random.default_rng(3), images=6)
    some = [1, 2, 5]
    numbers = ours([truths[i] for i in some], [results[i] for i in some]).compute()
    equal(ours(truths, results, order=some).compute(), numbers)


def test_sigmas_are_those_of_the_skeleton():
    truths, results = scene(np.random.default_rng(5), images=6, points=4)
    for given, meant in (((0.1, 0.05, 0.2, 0.1),) * 2, ((), (0.25,) * 4)):
        numbers = ours(truths, results, ("keypoints",), sigmas=given).compute()
        judge, _ = theirs(truths, results, "keypoints", sigmas=np.array(meant))
        assert np.nan_to_num([*numbers.values()], nan=-1).tolist() == judge.stats.tolist()
        assert 0 < numbers["keypoints_map"] < 1


def test_labels_that_are_no_class_do_not_count():
    truths, results = scene(np.random.default_rng(3), images=6)
    numbers = ours(truths, results).compute()
    for label in (0, 3, -1):
        added = [
            {name: np.concatenate([values, values[:1]]) for name, values in result.items()}
            | {"labels": np.append(result["labels"], [label] * (len(result["labels"]) > 0)).astype(int)}
            for result in results
        ]
        equal(ours(truths, added).compute(), numbers)


def test_masks_that_the_objects_lack_are_asked_for():
    truth = Objects.of([[0, 0, 9, 9]], [1])
    nothing = {"boxes": np.zeros((0, 4)), "labels": np.zeros(0), "scores": np.zeros(0), "masks": np.zeros((0, 1, 9, 9))}
    with pytest.raises(UsageError, match=r"0\.png has objects without masks"):
        ours([truth], [nothing], ("bbox", "segm"))
