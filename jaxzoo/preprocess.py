"""How inputs are prepared for a network that is evaluated, as the reference's published weights ask for."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import numpy as np
from PIL import Image

from jaxzoo.errors import UsageError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Preparation(Protocol):
    """A frozen dataclass of plain values: all of one kind of input, such as single images."""

    kind: ClassVar[str]
    """The kind's name in manifests, and in `KINDS`."""

    def __call__(self, item: Any) -> Any:
        """One item, as a source of data gives it, as the network takes it: float32 arrays without the batch's axis."""

    def at(self, size: int) -> "Preparation":
        """The same for images of another size, in pixels."""

    @property
    def side(self) -> int:
        """That size."""

    def size_text(self) -> str:
        """In words, such as `224 x 224 pixels`."""


KINDS: dict[str, type[Preparation]] = {}
T = TypeVar("T", bound=type[Preparation])


def register_preparation(preparation: T) -> T:
    """Class decorator that enters a `Preparation` into `KINDS`, so that manifests can name it."""
    KINDS[preparation.kind] = preparation
    return preparation


def to_dict(preparation: Preparation) -> dict[str, Any]:
    """For a manifest; single images are not called so, as they are not in older ones."""
    kind = {} if preparation.kind == Preprocess.kind else {"kind": preparation.kind}
    return kind | dataclasses.asdict(preparation)


def from_dict(values: Mapping[str, Any]) -> Preparation:
    """The inverse of `to_dict`. Raises UsageError for a kind that is not in `KINDS`."""
    kind = values.get("kind", Preprocess.kind)
    if kind not in KINDS:
        raise UsageError(f"unknown preparation of inputs {kind!r}: import the module that defines it")
    plain = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}  # JSON knows no tuples
    return KINDS[kind](**{name: value for name, value in plain.items() if name != "kind"})


@register_preparation
@dataclasses.dataclass(frozen=True)
class Preprocess:
    """The eval transform of one image: shorter side to `resize`, centre `crop`, then `(x / 255 - mean) / std`.

    Sizes are in pixels, mean and std those of each RGB channel. Segmentation crops nothing, and with a `resize` of 0
    sees images at their own size.
    """

    crop: int
    resize: int | None = None  # the crop's size unless given
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    kind: ClassVar[str] = "image"

    def __call__(self, image: Image.Image) -> np.ndarray:
        """`eval_transform`."""
        return eval_transform(image, self)

    def at(self, size: int) -> "Preprocess":
        """The same with a crop of `size` pixels; resize and crop keep their proportion."""
        return dataclasses.replace(self, crop=size, resize=round(size * (self.resize or self.crop) / self.crop))

    @property
    def side(self) -> int:
        return self.crop

    def size_text(self) -> str:
        return f"{self.crop} x {self.crop} pixels"

    def described(self, *, crops: bool = True) -> str:
        """In words; whether it `crops` is up to the task."""
        crop = f"centre crop of {self.crop}, " if crops else ""
        short = f"shorter side to {self.resize or self.crop} ({self.interpolation})"
        return f"{short}, {crop}mean {self.mean}, std {self.std}"


@register_preparation
@dataclasses.dataclass(frozen=True)
class Pixels:
    """Images as numbers from 0 to 1: the central square at `crop` × `crop` pixels; grey unless `channels` is 3."""

    crop: int
    channels: Literal[1, 3] = 1
    kind: ClassVar[str] = "pixels"

    def __call__(self, image: Image.Image) -> np.ndarray:
        """float32 (crop, crop, channels)."""
        return self.uint8(image).astype(np.float32) / 255

    def uint8(self, image: Image.Image) -> np.ndarray:
        """The same from 0 to 255; grey as Pillow mixes it."""
        image = resize_and_crop(image, Preprocess(self.crop))
        return np.asarray(image.convert("L" if self.channels == 1 else "RGB")).reshape(*image.size, self.channels)

    def at(self, size: int) -> "Pixels":
        return dataclasses.replace(self, crop=size)

    @property
    def side(self) -> int:
        return self.crop

    def size_text(self) -> str:
        return f"{self.crop} x {self.crop} pixels"

    def described(self) -> str:
        """In words."""
        return f"central square at {self.crop}, {'grey' if self.channels == 1 else 'RGB'}, from 0 to 1"


def resize_and_crop(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    """The geometry of the eval transform: shorter side to `resize` (antialiased), then the central `crop` pixels."""
    width, height = image.size
    short = preprocess.resize or preprocess.crop
    size = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    if size != image.size:
        image = image.resize(size, getattr(Image.Resampling, preprocess.interpolation.upper()))
    left, top = (_start(length, preprocess.crop) for length in image.size)
    return image.crop((left, top, left + preprocess.crop, top + preprocess.crop))  # black beyond the border


def _start(length: int, crop: int) -> int:
    """Where a centred crop starts; torchvision rounds one way to cut and the other way to pad."""
    return round((length - crop) / 2) if length >= crop else -((crop - length) // 2)


def eval_transform(image: Image.Image, preprocess: Preprocess) -> np.ndarray:
    """An RGB image as the network wants it: float32, (crop, crop, 3), normalised; equal to torchvision's transform."""
    return normalised(resize_and_crop(image, preprocess), preprocess)


def normalised(image: Image.Image, preprocess: Preprocess) -> np.ndarray:
    """An RGB image's pixels, float32 (H, W, 3): `(x / 255 - mean) / std` of each channel."""
    pixels = np.asarray(image, np.float32) / 255
    return (pixels - np.asarray(preprocess.mean, np.float32)) / np.asarray(preprocess.std, np.float32)
