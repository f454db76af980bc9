"""Augmentation: `host` changes one PIL image at a time, `device` a batch under jit."""

import dataclasses

FIRST = 1 / 3  # Dropout and RandAugment begin with this part of their strength: EfficientNetV2's table 6.


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random changes of training images for classification; without arguments, none.

    Args:
      flip: half of the images are flipped horizontally.
      crop_area: the smallest part of the image's area that a random resized crop takes; 1 for no random crop.
      shift: pixels by which images are moved at most, in each direction.
      color_jitter: most that brightness, contrast, saturation and hue change by, as in torchvision's ColorJitter.
      auto_augment: a policy, `none`, `autoaugment`, `randaugment` (with `ra_ops` and `ra_magnitude`) or
        `trivialaugment`.
      random_erase: probability that a random rectangle is erased.
      mixup, cutmix: alpha of each, 0 for none.
    """

    flip: bool = False
    crop_area: float = 1.0
    shift: int = 0
    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    auto_augment: str = "none"
    ra_ops: int = 2
    ra_magnitude: int = 9
    random_erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0


def strengths(count: int) -> list[float]:
    """How much of the regularisation each of so many stages has; one stage has all of it."""
    return [FIRST + (1 - FIRST) * stage / (count - 1) for stage in range(count)] if count > 1 else [1.0]
