"""`tfds:NAME[:SPLIT]` for segmentation: images and masks of a tensorflow-datasets data set, split as in `tfds`.

Masks are images with one channel. Classes have the names that the data set has for them, or are called 0, 1, … up to
the largest index in all masks.
"""

import io
from typing import Any

from jaxzoo.errors import UsageError
from jaxzoo.images import read_image
from train.data import Data
from train.data.masks import Item, checked, image_size, read_mask, turned_like, values_of
from train.data.sources import tfds
from train.reporting.progress import say

IMAGES = ("image", "image_left")
MASKS = ("segmentation_mask", "segmentation_label", "label_map", "mask", "annotation")


class MaskedRecords:
    """Some records of a split; image and mask are decoded when read."""

    def __init__(self, part: tfds.Part, image: str, mask: str, classes: int):
        (self.records, self.indices, self.title), self.image, self.mask_name = part, image, mask
        self.classes = classes

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Item:
        record, name = self._record(index), self.name(index)
        image = read_image(io.BytesIO(record[self.image]), name=name)
        mask = turned_like(self._mask(record, name), image, record[self.image])
        return image, checked(mask, image, self.classes, f"of {name}", name)

    def name(self, index: int) -> str:
        return f"image {int(self.indices[index])} of {self.title}"

    def size(self, index: int) -> tuple[int, int]:
        """Height and width in pixels. Raises UsageError."""
        return image_size(self._record(index)[self.image])

    def largest(self) -> int:
        """The largest class in any mask; those that cannot be read do not count."""
        most = 0
        for index in range(len(self)):
            try:
                most = max([most, *values_of(self._mask(self._record(index), self.name(index)))])
            except UsageError:  # said when its turn comes
                continue
        return most

    def _record(self, index: int) -> dict[str, Any]:
        return self.records[int(self.indices[index])]

    def _mask(self, record: dict[str, Any], name: str) -> Any:
        return read_mask(io.BytesIO(record[self.mask_name]), f"the mask of {name}")


def load(name: str, *, val_fraction: float, seed: int) -> Data:
    """Opens NAME[:SPLIT], or downloads it first.

    Raises:
      UsageError: unknown data set or split, cannot be prepared here, or without images and masks.
    """
    name, chosen, builder = tfds.opened(name)
    features = builder.info.features
    image, mask = (next((key for key in known if key in features), None) for known in (IMAGES, MASKS))
    if not (image and mask and len(features[mask].shape) == 3 and features[mask].shape[-1] == 1):
        raise UsageError(
            f"{name} has {', '.join(features)}; segmentation needs an image, and a mask with one channel, "
            f"called {', '.join(MASKS[:-1])} or {MASKS[-1]}"
        )
    parts = tfds.divided(builder, name, chosen, (image, mask), val_fraction=val_fraction, seed=seed)
    classes = list(getattr(features[mask], "names", None) or [])
    if not classes:
        most = max(MaskedRecords(part, image, mask, 255).largest() for part in parts)
        if not most:
            raise UsageError(f"the masks of {name} hold no class but 0")
        say(f"{name} has no names for its classes: they are the numbers 0 to {most}, the largest in its masks")
        classes = [str(value) for value in range(most + 1)]
    return Data(*(MaskedRecords(part, image, mask, len(classes)) for part in parts), classes=classes)
