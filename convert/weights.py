"""The weights of a model of the zoo."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from convert import store
from jaxzoo import card
from jaxzoo.preprocess import Preparation, from_dict


@dataclasses.dataclass
class Weights:
    """A state_dict by torch's names, with its origin and the facts that came with it."""

    path: Path
    tensors: dict[str, np.ndarray]
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)  # of create_model
    classes: list[str] | None = None
    preprocess: dict[str, Any] | None = None
    versions: dict[str, int] = dataclasses.field(default_factory=dict)  # of torch's layout
    dialect: str = ""  # whose names they bore: "", "timm", …
    outside: list[str] = dataclasses.field(default_factory=list)  # tensors of the file that lie beside the network
    header: bytes = b""  # of a Darknet file
    pairs: list[tuple[str, str]] = dataclasses.field(default_factory=list)  # torch's name and theirs, matched by order

    def source(self) -> dict[str, str]:
        """Where these came from, for a manifest."""
        path, _ = store.part_of(self.path)
        file = path / store.MANIFEST if path.is_dir() else path
        return {"path": str(self.path), "sha256": store.file_digest(file)}


def preprocess_of(name: str, weights: Weights, arguments: Mapping[str, Any], model: nnx.Module) -> Preparation:
    """How inputs are prepared for these weights, in a model that was built with these arguments.

    A model that holds its own preparation, as `transform`, got it from the arguments. Otherwise the weights' manifest
    says it, or, as a file does not, it is that of the published weights of that image size, the default ones first.
    """
    if hasattr(model, "transform"):
        return model.transform
    base = from_dict(weights.preprocess) if weights.preprocess else card(name).preprocess
    size = arguments.get("image_size")
    if size is None:
        return base
    published = [] if weights.preprocess else [w.preprocess for w in card(name).weights.values()]
    return next((p for p in published if p.crop == size), base.at(size))
