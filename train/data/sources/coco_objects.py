"""`coco:PATH` for detection: objects in COCO's format (see `coco_files`), with masks and keypoints where there are any.

Boxes are (x, y, width, height) in pixels, from the upper left corner of the image. Where one is missing it is the one
around the object's polygons. Crowds stay crowds, and areas what the file says.
"""

import functools
from pathlib import Path

from jaxzoo.coco import PERSON_KEYPOINTS
from jaxzoo.errors import UsageError
from train.data import Data, drawn
from train.data.annotated import AnnotatedImages, Annotation, annotated, read_as
from train.data.masks import image_size
from train.data.objects import PERSON_SIGMAS, Problem, Skeleton, mirrored
from train.data.outlines import box_around, polygons_of
from train.data.sources.coco_files import classes_of, content_of, files_of, id_of, number_of, places_of


def load(path: str | Path, *, val_fraction: float = 0.2, seed: int = 0) -> Data:
    """Reads the annotations; images are opened only whose size the file does not say.

    Raises:
      UsageError: no such folder, no annotation file or several, one that is not COCO's, no image that is there, other
        categories in one part than in the other.
    """
    train, held_out, root = files_of(path)
    contents = {file: content_of(file) for file in (train, held_out) if file}
    classes, values = classes_of(contents)
    skeletons = [found for content in contents.values() if (found := skeleton_of(content["categories"]))]
    skeleton = skeletons[0] if skeletons else None
    points = len(skeleton.names) if skeleton else 0
    parts = {file: _images(root, file, content, values, points) for file, content in contents.items()}
    if held_out:
        return Data(parts.get(train, AnnotatedImages([])), parts[held_out], classes, skeleton=skeleton)
    whole = parts[train]
    indices = drawn(range(len(whole)), [image.name for image in whole.images], val_fraction, seed, train)
    return Data(*map(whole.some, indices), classes, skeleton=skeleton)
