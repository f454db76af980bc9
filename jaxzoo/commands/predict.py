"""`python -m jaxzoo predict`: the contents of images."""

import csv as tables
import dataclasses
import json as texts
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import tyro

from jaxzoo.commands import tasks
from jaxzoo.commands.pictures import check_new, image_paths
from jaxzoo.errors import UsageError


def predict(
    images: tyro.conf.Positional[tuple[Path, ...]],
    /,
    model: str,
    weights: str,
    top: int | None = None,
    temperature: float | None = None,
    batch_size: int = 16,
    annotate: Path | None = None,
    out: Path | None = None,
    crf: bool = False,
    score: float | None = None,
    max_detections: int | None = None,
    canvas: Literal["exact", "buckets"] | None = None,
    json: Path | None = None,
    csv: Path | None = None,
) -> int:
    """Classify images, with probabilities; or segment them, or find objects in them, with a model for that.

    Images are prepared exactly as the weights were evaluated. Those that cannot be read are named on stderr and left
    out; the exit code is 1 then, or 2 if none could be read.

    Args:
        images: Image files, or folders, of which all images are taken, subfolders too.
        model: Model, such as resnet50; `jaxzoo list` shows all.
        weights: A .pth, .pt or .safetensors file, a converted directory, the folder of a training run, or the name of
            published weights to download, such as DEFAULT.
        top: Number of classes to print for each image. Default: 5 (not for detection).
        temperature: Divisor of the logits before the softmax; above 1 the probabilities get closer to each other.
            Default: 1 (not for detection).
        batch_size: Images per forward pass of a classifier; other models take one at a time.
        annotate: New folder for a copy of each image with its classes written below it (classification).
        out: New folder for each image's mask as a palette PNG, and for the mask drawn over the image (segmentation,
            which needs it); or for each image with its objects drawn, and their list in COCO's format (detection).
        crf: Refine the mask's borders by a fully connected CRF (segmentation).
        score: Least score of an object. Default: 0.5 (detection).
        max_detections: Most objects of an image; the model has a limit of its own (detection).
        canvas: Whether each image is padded as in torchvision, or to one of a few sizes, so that fewer programs are
            compiled, where results of images of unusual shapes change a little. Default: buckets (detection).
        json: New JSON file for the results.
        csv: New CSV file for the results, with one row for each class of each image.
    """
    if min(1 if top is None else top, batch_size) < 1 or not 0 < (1 if temperature is None else temperature) < math.inf:
        raise UsageError("--top and --batch-size must be at least 1, and --temperature a number above 0")
    for path in filter(None, (annotate, out, json, csv)):
        check_new(path)
    paths = image_paths(images)
    handler = tasks.of_model(model)
    options = tasks.PredictOptions(top, temperature, batch_size, annotate, out, crf, score, max_detections, canvas)
    handler.check(model, options)
    found = handler.predict(paths, model, weights, options)
    if json:
        _write_json(json, found, model=model, weights=weights, temperature=temperature or 1.0)
    if csv:
        _write_csv(csv, found, [field.name for field in dataclasses.fields(handler.Prediction)])
    return 0 if len(found) == len(paths) else 1 if found else 2


Found = Mapping[Path, Sequence[Any]]  # of the task's predictions


def _write_json(path: Path, found: Found, **about: str | float) -> None:
    rows = [{"image": str(image), "top": [dataclasses.asdict(p) for p in top]} for image, top in found.items()]
    path.write_text(texts.dumps(about | {"images": rows}, indent=1) + "\n")


def _write_csv(path: Path, found: Found, fields: Sequence[str]) -> None:
    """One row for each prediction; the name of a class is in the column "class"."""
    with path.open("w", newline="") as file:
        writer = tables.writer(file)
        writer.writerow(["image", "rank", *("class" if field == "name" else field for field in fields)])
        for image, top in found.items():
            writer.writerows([image, rank, *dataclasses.astuple(p)] for rank, p in enumerate(top, 1))
