"""`tfds:NAME`: a data set that tensorflow-datasets has prepared on this machine, read without TensorFlow."""

import io
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxzoo.errors import UsageError, nearest
from jaxzoo.preprocess import read_image
from train.data import Data


class Records:
    """Some records of a split, their images decoded when read."""

    def __init__(self, records: Sequence[dict[str, Any]], indices: Sequence[int], name: str):
        self.records, self.indices, self.name = records, indices, name

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        index = int(self.indices[index])
        record = self.records[index]
        return read_image(io.BytesIO(record["image"]), name=f"image {index} of {self.name}"), int(record["label"])


def load(name: str, *, val_fraction: float, seed: int) -> Data:
    """The splits `train` and `validation` or `test`; a part of `train` is held out if it is the only one.

    Raises:
      UsageError: unknown data set, not prepared yet, or without images and class labels.
    """
    logging.getLogger("absl").addFilter(_without_variants)
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name)
    except tfds.core.DatasetNotFoundError:
        known = nearest(re.split("[/:]", name)[0], tfds.list_builders(with_community_datasets=False))
        raise UsageError(f"tensorflow-datasets knows no data set {name!r}{known}") from None
    except Exception as error:  # whatever a data set's own code raises
        raise UsageError(f"tensorflow-datasets cannot open {name!r}: {error}") from None
    splits, features = builder.info.splits, builder.info.features
    prepare = (
        'prepare it with: python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder('{name}', file_format='array_record').download_and_prepare()\""
    )
    if not splits:
        raise UsageError(f"{name} is not prepared in {Path(builder.data_dir).parent}; {prepare}")
    if not {"image", "label"} <= set(features) or not isinstance(features["label"], tfds.features.ClassLabel):
        raise UsageError(f"{name} has {', '.join(features)}; classification needs an image and a class label")
    if "train" not in splits:
        raise UsageError(f"{name} has no split named train; it has {', '.join(splits)}")

    def records(split: str) -> Sequence:
        try:
            return builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        except NotImplementedError:
            raise UsageError(
                f"{name} is prepared as {builder.info.file_format.value}, not as array_record; {prepare}"
            ) from None

    train = records("train")
    other = next((split for split in ("validation", "test") if split in splits), None)
    if other:
        held_out = records(other)
        ours, theirs = np.arange(len(train)), np.arange(len(held_out))
    else:
        order = np.random.default_rng(seed).permutation(len(train))
        count = max(1, round(val_fraction * len(train)))
        held_out, ours, theirs = train, np.sort(order[count:]), np.sort(order[:count])
    return Data(
        Records(train, ours, f"{name}, train"),
        Records(held_out, theirs, f"{name}, {other or 'train'}"),
        classes=list(features["label"].names),
    )


def _without_variants(record: logging.LogRecord) -> bool:
    return "Variant folder" not in str(record.msg)  # said of every data set that is not prepared, as we do in our words
