"""Detection: the objects in images."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.tree_util import Partial
from PIL import Image

from jaxzoo.coco import COCO_CATEGORIES, PERSON_KEYPOINTS
from jaxzoo.coco_rle import compressed
from jaxzoo.commands.pictures import others_go_on, read_in_batches, unused
from jaxzoo.commands.tasks import PredictOptions, Target, View, read_model, refuse
from jaxzoo.detection.detect import detect
from jaxzoo.detection.drawing import INSIDE, drawn
from jaxzoo.detection.transform import DetectionTransform, batched
from jaxzoo.errors import UsageError
from jaxzoo.inspect import box_score
from jaxzoo.nn.ops import box_iou
from jaxzoo.registry import argument_defaults
from jaxzoo.voc import VOC_CLASSES

MIN_SCORE = 0.5
OBJECTS = 8  # in each image of the bench
RESULTS = "coco.json"


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One object: its class, its box's left upper corner and size in pixels, and how sure the model is, 0–1."""

    index: int
    name: str
    x: float
    y: float
    width: float
    height: float
    score: float


def described(preprocess: DetectionTransform) -> str:
    return preprocess.described()


def example_labels(inputs: Any, classes: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Targets of `OBJECTS` random boxes of class 1, which all detectors have, with masks and people's keypoints."""
    count, height, width, _ = inputs.shape
    corners = np.sort(generator.uniform(0, 1, (count, OBJECTS, 2, 2)), 2) * [width, height]
    corners[:, :, 1] += 1  # so that none has no area
    boxes = corners.reshape(count, OBJECTS, 4).astype(np.float32)
    y, x = np.arange(height)[:, None], np.arange(width)
    x1, y1, x2, y2 = np.moveaxis(boxes, -1, 0)[..., None, None]
    places = generator.uniform(boxes[:, :, None, :2], boxes[:, :, None, 2:], (count, OBJECTS, len(PERSON_KEYPOINTS), 2))
    return {
        "boxes": boxes,
        "labels": np.ones((count, OBJECTS), np.int32),
        "valid": np.ones((count, OBJECTS), bool),
        "masks": ((x1 <= x) & (x < x2) & (y1 <= y) & (y < y2)).astype(np.uint8),
        "keypoints": np.concatenate([places, np.ones_like(places[..., :1])], -1).astype(np.float32),
    }


def check(model: str, options: PredictOptions) -> None:
    refuse(model, options, "annotate", "crf", "top", "temperature")
    if options.score is not None and not 0 <= options.score <= 1:
        raise UsageError("--score must be a number from 0 to 1")
    if options.max_detections is not None and options.max_detections < 1:
        raise UsageError("--max-detections must be at least 1")


def predict(
    paths: Sequence[Path], model: str, weights: str, options: PredictOptions
) -> dict[Path, Sequence[Prediction]]:
    """The objects in each image that can be read, printed as they are found, the surest first.

    Writes into the new folder `options.out`, if there is one, NAME.jpg for each image, with what was found in it drawn,
    and coco.json, the results of all in COCO's format.
    """
    network, found, arguments = read_model(model, weights)
    count = arguments.get("num_classes", argument_defaults(model).get("num_classes"))
    names = class_names(found.classes, count)
    if options.out:
        options.out.mkdir()
    objects: dict[Path, Sequence[Prediction]] = {}
    results = []
    least = MIN_SCORE if options.score is None else options.score
    with ThreadPoolExecutor(1) as pool:
        for pictures in read_in_batches(paths, 1, pool):
            for path, picture in pictures.items():
                with others_go_on(path):
                    (one,) = detect(
                        network,
                        [np.asarray(picture)],
                        canvas=options.canvas or "buckets",
                        min_score=least,
                        max_detections=options.max_detections,
                    )
                    objects[path] = _predictions(one, names)
                    _show(path, objects[path], least)
                    if options.out:
                        drawn(picture, one, names).save(unused(options.out / f"{path.stem}.jpg"), quality=90)
                        results += coco_results(path, one)
    if options.out:
        (options.out / RESULTS).write_text(json.dumps(results) + "\n")
    return objects


def class_names(known: Sequence[str] | None, count: int | None) -> Sequence[str]:
    """The name of every label of a detector for `count` classes: 0 is background, but of 20, which are YOLOv1's."""
    if known and count in (None, len(known)):
        return known
    if known and count == len(known) + 1:
        return ["background", *known]
    usual = (COCO_CATEGORIES, VOC_CLASSES, VOC_CLASSES[1:], COCO_CATEGORIES[:2])
    return next((names for names in usual if count == len(names)), [f"class {i}" for i in range(count or 1)])


def view(model: nnx.Module, preprocess: DetectionTransform, picture: Image.Image) -> View:
    image = preprocess(picture)
    size = image.shape[:2]
    images, sizes = batched([image], preprocess.canvas([size], buckets=True))
    return View((images, sizes), picture.resize(size[::-1], Image.Resampling.BILINEAR))


def targets(
    outputs: Mapping[str, jax.Array], names: Sequence[str], labels: Sequence[int], box: np.ndarray | None
) -> list[Target]:
    """The best object of each class, or of all classes; or the one whose box is nearest to `box`."""
    found = {name: np.asarray(rows[0]) for name, rows in outputs.items()}
    targets = []
    for label in labels or [None]:
        rows = np.flatnonzero(found["valid"] & ((found["labels"] == label) if labels else True))
        if not len(rows):
            targets.append(Target(f"no {'object' if label is None else names[label]} found", None))
            continue
        place = rows[found["scores"][rows].argmax()]
        if box is not None:
            place = rows[np.asarray(box_iou(jnp.asarray(box[None]), jnp.asarray(found["boxes"][rows]))).argmax()]
        at, label = found["boxes"][place], found["labels"][place]
        text = f"{names[label]} ({label}) {100 * found['scores'][place]:.1f} %"
        targets.append(Target(text, Partial(box_score, box=at, label=label), at))
    return targets


def coco_results(path: Path, found: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """An image's objects as COCO's format for results has them; the image's id is its name, a number if it is one."""
    image = int(path.stem) if path.stem.isdecimal() else path.stem
    results = []
    for i, (label, score) in enumerate(zip(found["labels"].tolist(), found["scores"].tolist(), strict=True)):
        result = {"image_id": image, "category_id": label, "bbox": _corner_and_size(found["boxes"][i]), "score": score}
        if "masks" in found:
            mask = found["masks"][i, 0]
            result["segmentation"] = {"size": mask.shape, "counts": compressed(mask > INSIDE)}
        if "keypoints" in found:
            result["keypoints"] = np.round(found["keypoints"][i].astype(float), 2).ravel().tolist()
        results.append(result)
    return results


def _corner_and_size(box: np.ndarray) -> list[float]:
    x1, y1, x2, y2 = box.astype(float)
    return [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)]


def _predictions(found: Mapping[str, np.ndarray], names: Sequence[str]) -> list[Prediction]:
    rows = zip(found["labels"].tolist(), found["boxes"], found["scores"].tolist(), strict=True)
    return [Prediction(label, names[label], *_corner_and_size(box), score) for label, box, score in rows]


def _show(path: Path, objects: Sequence[Prediction], least: float) -> None:
    print(path)
    if not objects:
        print(f"   no object of {100 * least:g} % or more")
    for p in objects:
        place = f"{p.width:.0f} × {p.height:.0f} pixels at {p.x:.0f}, {p.y:.0f}"
        print(f"{100 * p.score:8.2f} %  {p.name} ({p.index}), {place}")
