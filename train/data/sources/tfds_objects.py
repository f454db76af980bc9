"""`tfds:NAME[:SPLIT]` for detection: images and boxes of a tensorflow-datasets data set, split as in `tfds`.

Such as voc, coco and wider_face: a sequence of objects with `bbox`, and `label` where there are several kinds. What is
called is_crowd, is_difficult or invalid is a crowd. All records are read once, as sizes and boxes lie within them.
"""

import functools
import io
from typing import Any

from PIL import Image

from jaxzoo.errors import UsageError
from jaxzoo.images import read_image
from train.data import Data
from train.data.annotated import AnnotatedImage, AnnotatedImages, Annotation, annotated, as_data
from train.data.masks import image_size
from train.data.objects import Problem, with_background
from train.data.sources import tfds

CROWDS = ("is_crowd", "is_difficult", "invalid")


def load(name: str, *, val_fraction: float = 0.2, seed: int = 0) -> Data:
    """Opens NAME[:SPLIT], or downloads it first.

    Raises:
      UsageError: unknown data set or split, cannot be prepared here, or without images and boxes.
    """
    name, chosen, builder = tfds.opened(name)
    features = builder.info.features
    key = next((key for key, feature in features.items() if "bbox" in (getattr(feature, "feature", None) or ())), None)
    if "image" not in features or key is None:
        raise UsageError(f"{name} has {', '.join(features)}; detection needs an image, and objects with a bbox")
    kinds = features[key].feature
    if (form := getattr(kinds["bbox"], "bbox_format", None)) and form.name != "REL_YXYX":
        raise UsageError(f"{name} has boxes as {form.name}; those in parts of the image, REL_YXYX, are read")
    # faces are of one kind, which has the name of the feature
    names = kinds["label"].names if "label" in kinds else [key.removesuffix("s")]
    classes = with_background(names, name)
    numbers = [classes.index(name) if name in classes else 0 for name in names]
    parts = tfds.divided(builder, name, chosen, ("image",), val_fraction=val_fraction, seed=seed)
    found = (_images(part, key, numbers) for part in parts)
    return as_data(*found, classes, name, val_fraction=val_fraction, seed=seed)


def _images(part: tfds.Part, key: str, numbers: list[int]) -> AnnotatedImages:
    records, indices, title = part
    found: list[AnnotatedImage] = []
    problems: list[Problem] = []
    for index in map(int, indices):
        record, name = records[index], f"image {index} of {title}"
        try:
            size = image_size(record["image"])
        except UsageError as error:
            problems.append(Problem(name, str(error)))
            continue
        columns = record[key]
        entries = [
            (f"object {i} of {name}", {kind: values[i] for kind, values in columns.items()})
            for i in range(len(columns["bbox"]))
        ]
        annotation = functools.partial(_annotation, size=size, numbers=numbers)
        read = functools.partial(_read, records, index, name)
        found.append(annotated(name, read, size, entries, annotation, problems))
    return AnnotatedImages(found, problems)


def _read(records: Any, index: int, name: str) -> Image.Image:
    return read_image(io.BytesIO(records[index]["image"]), name=name)


def _annotation(entry: dict[str, Any], size: tuple[int, int], numbers: list[int]) -> Annotation:
    """Raises ValueError, in words, if there is no class."""
    (y1, x1, y2, x2), (height, width) = map(float, entry["bbox"]), size
    label = int(entry.get("label", 0))
    if label not in range(len(numbers)) or not numbers[label]:
        raise ValueError(f"its label is no class ({label})")
    crowd = any(entry.get(kind) for kind in CROWDS)
    return Annotation((x1 * width, y1 * height, x2 * width, y2 * height), numbers[label], crowd, entry.get("area"))
