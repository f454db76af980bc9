"""Where weights come from: a file, a converted directory, a training run, or the name of published ones."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convert import darknet, files, published, rules, store
from convert.names import located, match_by_order
from convert.shapes import abstract, shapes_at
from convert.weights import Weights
from jaxzoo import UsageError, card
from jaxzoo.preprocess import to_dict


def read_weights(
    name: str, weights: str | Path, *, match: str = "names", arguments: Mapping[str, Any] | None = None
) -> Weights:
    """Reads any source of weights that `load` takes; the tensors of a file are views of it, so copy them soon.

    Args:
      arguments: of the model, which decide where the tensors of a file without names begin.

    Raises UsageError.
    """
    if match not in ("names", "order"):
        raise UsageError(f"match is {match!r}; it must be 'names' or 'order'")
    known = card(name).weights
    path = Path(weights)
    directory, part = store.part_of(path)
    if directory.is_dir():
        return _from_directory(name, directory, part)
    if match == "order":
        contents = files.contents(path)
        return match_by_order(name, contents.path, contents.tensors)
    if path.exists() or path.suffix or os.sep in str(weights) or "#" in str(weights):
        key, classes = published.published_as(name, path)
    else:
        path, key, classes = published.download(name, str(weights))
    found = _from_file(name, path, arguments or {})
    found.classes = classes
    if key in known:
        found.preprocess = to_dict(known[key].preprocess)
        found.arguments = dict(known[key].arguments)
    return found


def _from_file(name: str, path: Path, arguments: Mapping[str, Any]) -> Weights:
    if darknet.is_darknet(path):
        tensors, header = darknet.read(path, shapes_at(name, arguments))
        files.warn_not_finite(path, tensors)
        return Weights(path, tensors, header=header)
    contents = files.contents(path)
    return located(name, Weights(contents.path, contents.tensors))


def _from_directory(name: str, path: Path, part: str = "") -> Weights:
    path = store.checkpoint_in(path)
    arrays, manifest = store.load(path, prefix="model/")
    if manifest["model"] != name:
        raise UsageError(f"{path} holds {manifest['model']}, not {name}")
    if part:
        arrays |= _average(path, part)  # frozen parameters have none
    arguments = dict(manifest["arguments"])
    model = abstract(name, **arguments)
    known = {leaf.path for leaf in rules.leaves(model)}
    tensors = rules.torch_arrays(model, arrays, copy=False) | {key: a for key, a in arrays.items() if key not in known}
    if "train" in manifest:  # JAX counts in int32, torch in int64
        tensors = {key: rules.as_torch(array) for key, array in tensors.items()}
    about = manifest.get("classes"), manifest.get("preprocess")
    header = bytes.fromhex(manifest.get("darknet", ""))
    where = Path(f"{path}#{part}") if part else path
    return Weights(where, tensors, arguments, *about, rules.versions(model), header=header)


def _average(path: Path, part: str) -> dict[str, np.ndarray]:
    if part != "ema":
        raise UsageError(f"{path} has no part {part!r}; {path}#ema is the average of its weights")
    if not any(file.startswith(f"{store.ARRAYS}/ema/") for file in store.read_manifest(path)["files"]):
        raise UsageError(f"{path} holds no average of its weights: it was trained without --ema; leave out #ema")
    return store.load(path, prefix="ema/")[0]
