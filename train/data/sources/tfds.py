"""`tfds:NAME[:SPLIT]`: a data set of tensorflow-datasets, read without TensorFlow.

tfds:cifar10                            train, and held out what it calls validation or else test
tfds:cifar10:train[:10%]                a part of it
tfds:cifar10:train[:90%],train[90%:]    to train on, and to hold out

Where neither validation nor test is left, a part of every class is held out by --val-fraction and --seed. A data set
that is not on this machine is downloaded and prepared.
"""

import functools
import io
import logging
import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxzoo.errors import UsageError, nearest
from jaxzoo.home import check_home
from jaxzoo.images import read_image
from train.data import Data, stratified_split
from train.reporting.progress import say

# A name may have a configuration and a version: "mnist_corrupted/identity:1.0.0".
_NAME_AND_SPLIT = re.compile(r"([^:]+(?::[\d*]+\.[\d*]+\.[\d*]+[^:]*)?)(?::(.+))?")


class Records:
    """Some records of a split, their images decoded when read."""

    def __init__(self, records: Sequence[dict[str, Any]], indices: Sequence[int], title: str):
        self.records, self.indices, self.title = records, indices, title

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        record = self.records[int(self.indices[index])]
        return read_image(io.BytesIO(record["image"]), name=self.name(index)), int(record["label"])

    def name(self, index: int) -> str:
        return f"image {int(self.indices[index])} of {self.title}"

    @functools.cached_property
    def labels(self) -> np.ndarray:
        return np.array([int(self.records[int(index)]["label"]) for index in self.indices])


def load(name: str, *, val_fraction: float, seed: int) -> Data:
    """Opens NAME[:SPLIT], or downloads it first; images are read when their turn comes.

    Raises:
      UsageError: unknown data set or split, cannot be prepared here, or without images and class labels.
    """
    name, chosen, builder = opened(name)
    features = builder.info.features
    if not {"image", "label"} <= set(features) or not hasattr(features["label"], "names"):
        raise UsageError(f"{name} has {', '.join(features)}; classification needs an image and a class label")
    parts = divided(builder, name, chosen, ("image",), label="label", val_fraction=val_fraction, seed=seed)
    return Data(*(Records(*part) for part in parts), classes=list(features["label"].names))


def opened(name: str) -> tuple[str, str | None, Any]:
    """Of NAME[:SPLIT] the name, the split if one is given, and the data set. Raises UsageError."""
    name, chosen = _NAME_AND_SPLIT.fullmatch(name).groups() if _NAME_AND_SPLIT.fullmatch(name) else (name, None)
    return name, chosen, _builder(name)


Part = tuple[Sequence, Sequence[int], str]


def divided(
    builder: Any,
    name: str,
    chosen: str | None,
    encoded: Sequence[str],
    *,
    label: str | None = None,
    val_fraction: float,
    seed: int,
) -> tuple[Part, Part]:
    """What to train on and what to hold out, each as records, indices among them and a title; prepared if need be.

    Args:
      chosen: the splits that were asked for.
      encoded: features that stay the bytes of a file.
      label: the feature that says an item's class; where a part is held out it is one of every class.

    Raises:
      UsageError: unknown split, or the data set cannot be prepared here.
    """
    _prepare(builder, name)
    splits = list(builder.info.splits)
    train, _, other = map(str.strip, (chosen or "train").partition(","))
    if not chosen and "train" not in splits:
        raise UsageError(f"{name} has no split named train; choose of {', '.join(splits)}: --data tfds:{name}:SPLIT")
    used = set(re.findall(r"\w+(?=\[|\+|$)", train))
    other = other or next((split for split in ("validation", "test") if split in splits and split not in used), None)

    records = _records(builder, name, train, encoded)
    if other:
        held_out = _records(builder, name, other, encoded)
        ours, theirs = np.arange(len(records)), np.arange(len(held_out))
    else:
        labels = [int(records[i][label]) if label else 0 for i in range(len(records))]
        held_out, (ours, theirs) = records, stratified_split(labels, val_fraction, seed)
    return (records, ours, f"{name}, {train}"), (held_out, theirs, f"{name}, {other or train}")


def _builder(name: str) -> Any:
    logging.getLogger("absl").addFilter(_without_variants)
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name)
    except tfds.core.DatasetNotFoundError:
        known = nearest(re.split("[/:]", name)[0], tfds.list_builders(with_community_datasets=False))
        raise UsageError(f"tensorflow-datasets knows no data set {name!r}{known}") from None
    except Exception as error:  # whatever a data set's own code raises
        raise UsageError(f"tensorflow-datasets cannot open {name!r}: {_first_line(error)}") from None


def _prepare(builder: Any, name: str) -> None:
    """Downloads and prepares what is not there yet. Raises UsageError with the commands that do it elsewhere."""
    if builder.info.splits:
        return
    check_home(builder.data_dir, "TFDS_DATA_DIR")
    say(f"downloading and preparing {name} in {builder.data_dir}")
    try:
        _reach(builder)
        builder.download_and_prepare(file_format="array_record")
    except Exception as error:  # whatever a data set's own code raises: no network, no TensorFlow, by hand only, ...
        raise UsageError(
            f"{name} is not in {builder.data_dir} and cannot be prepared here ({_first_line(error)}); where there is "
            'a network and TensorFlow, this prepares it: python -c "import tensorflow_datasets as tfds; '
            f"tfds.builder('{name}').download_and_prepare(file_format='array_record')\"; "
            "TFDS_DATA_DIR says where data sets lie"
        ) from None


def _reach(builder: Any) -> None:
    """Raises OSError if none of the hosts of the downloads has an address here; tfds would ask them for minutes.

    Not where the files may be here already, or come by a proxy.
    """
    hosts = sorted({urllib.parse.urlsplit(url).hostname for url in builder.url_infos or ()} - {None})
    here = builder.MANUAL_DOWNLOAD_INSTRUCTIONS or any(Path(builder.data_dir_root, "downloads").rglob("*.INFO"))
    if hosts and not here and not urllib.request.getproxies() and not any(map(_has_address, hosts)):
        raise OSError(f"{hosts[0]} is not reachable")


def _has_address(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, None))
    except OSError:
        return False


def _records(builder: Any, name: str, split: str, encoded: Sequence[str]) -> Sequence:
    import tensorflow_datasets as tfds

    try:
        records = builder.as_data_source(split, decoders={key: tfds.decode.SkipDecoding() for key in encoded})
    except NotImplementedError:
        raise UsageError(
            f"{name} is prepared as {builder.info.file_format.value}, which has no random access; with TensorFlow, "
            f"this adds array_record: tfds convert_format --dataset_version_dir={Path(builder.data_dir)} "
            "--out_file_format=array_record"
        ) from None
    except (ValueError, AssertionError, KeyError) as error:
        known = ", ".join(builder.info.splits)
        raise UsageError(f"{name} has no split {split!r} ({_first_line(error)}); it has {known}") from None
    if not len(records):
        raise UsageError(f"the split {split!r} of {name} is empty")
    return records


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _without_variants(record: logging.LogRecord) -> bool:
    return "Variant folder" not in str(record.msg)  # said of every data set that is not prepared, as we do in our words
