"""Augmentation for detection, on the host: image, boxes, masks and keypoints move together.

Images are PIL RGB images. At the same parameters, and at the same draws, all of it equals torchvision.transforms.v2 on
PIL images, and where that knows nothing of a transform or of keypoints, torchvision's references/detection. Chance
comes from a given generator alone, and is asked for in torchvision's order.

Objects that a crop leaves nothing of vanish; an image that loses them all is background. Keypoints that a crop leaves
outside become (0, 0, 0), which COCO writes for one that is not annotated. Crowds stay crowds.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
from PIL import Image

from jaxzoo.detection.transform import resize_boxes, resize_keypoints, resize_masks
from jaxzoo.errors import UsageError
from train.augment.pil_ops import adjusted
from train.data.objects import Objects, Skeleton

Item = tuple[Image.Image, Objects]
Size = tuple[int, int]  # height and width in pixels
Color = tuple[int, int, int]

PRESETS = ("none", "hflip", "lsj", "multiscale", "ssd", "ssdlite")
FLIPPED = 0.5  # the part of the images
SMALLEST = 1.0  # pixels, of a box's sides: v2.SanitizeBoundingBoxes

# Liu et al., "SSD", 2016, section 2.2, as torchvision has it.
DISTORTED = 0.5  # the part of the images that each of these changes
DISTORTION = {"brightness": (0.875, 1.125), "contrast": (0.5, 1.5), "saturation": (0.5, 1.5), "hue": (-0.05, 0.05)}
ZOOMED, FARTHEST = 0.5, 4.0  # the part of the images, and how much larger the canvas is than the image
OVERLAPS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)  # the least IoU of a crop with some box; 1 takes the whole image
TRIES = 40
CROP_SIDES = (0.3, 1.0)  # in parts of the image's
CROP_SHAPES = (0.5, 2.0)  # width by height

# Ghiasi et al., "Simple Copy-Paste", 2021, section 3: large-scale jitter.
LSJ_SIDE, LSJ_SCALES = 1024, (0.1, 2.0)
MULTISCALE_SIDES, MULTISCALE_LONGEST = tuple(range(480, 801, 32)), 1333


def preset(name: str) -> Callable[..., Item]:
    """What torchvision's references do to training images with `--data-augmentation` of this name, or "none".

    Returns:
      A function of (image, objects, rng, skeleton, fill) that gives the image and its objects. Boxes with a side below
      a pixel are left out. `skeleton` says which keypoints change sides, None that there are none; `fill` is the
      colour (R, G, B), 0 to 255, of what lies outside an image.

    Raises:
      UsageError: there is no such preset.
    """
    if name not in PRESETS:
        raise UsageError(f"unknown --data-augmentation {name!r}; it is one of {', '.join(PRESETS)}")
    return functools.partial(_augmented, name)


def _augmented(
    name: str, image: Image.Image, objects: Objects, rng: np.random.Generator, skeleton: Skeleton | None, fill: Color
) -> Item:
    match name:
        case "lsj":
            image, objects = scale_jitter(image, objects, rng)
            image, objects = fixed_size_crop(image, objects, rng, fill=fill)
        case "multiscale":
            image, objects = random_shortest_side(image, objects, rng)
        case "ssd":
            image, objects = zoom_out(photometric_distortion(image, rng), objects, rng, fill)
            image, objects = iou_crop(image, objects, rng)
        case "ssdlite":
            image, objects = iou_crop(image, objects, rng)
    if name != "none" and rng.random() < FLIPPED:
        image, objects = mirrored(image, objects, skeleton)
    return image, objects.some(valid(objects.boxes))


# Without chance


def mirrored(image: Image.Image, objects: Objects, skeleton: Skeleton | None = None) -> Item:
    """Left and right change places, in keypoints too."""
    width, masks, keypoints = image.width, objects.masks, objects.keypoints
    boxes = objects.boxes[:, [2, 1, 0, 3]]
    boxes[:, ::2] = width - boxes[:, ::2]
    if masks is not None:
        masks = np.ascontiguousarray(masks[:, :, ::-1])
    if keypoints is not None:
        keypoints = keypoints[:, list(skeleton.mirrored)] if skeleton else keypoints.copy()
        keypoints[..., 0] = width - keypoints[..., 0]
        keypoints = annotated(keypoints, keypoints[..., 2] > 0)
    moved = dataclasses.replace(objects, boxes=boxes, masks=masks, keypoints=keypoints)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), moved


def resized(image: Image.Image, objects: Objects, size: Size) -> Item:
    """The image bilinear, antialiased; masks by their nearest pixels."""
    own = image.height, image.width
    if size == own:
        return image, objects
    masks, keypoints = objects.masks, objects.keypoints
    moved = dataclasses.replace(
        objects,
        boxes=resize_boxes(objects.boxes, own, size),
        area=objects.area * np.float32(size[0] * size[1] / (own[0] * own[1])),
        masks=None if masks is None else resize_masks(masks, size),
        keypoints=None if keypoints is None else resize_keypoints(keypoints, own, size),
    )
    return image.resize(size[::-1], Image.Resampling.BILINEAR), moved


def window(image: Image.Image, objects: Objects, corner: tuple[int, int], size: Size, fill: Color = (0, 0, 0)) -> Item:
    """What lies in a window, which overlaps with the image: a crop, a canvas around the image, or both.

    Args:
      corner: row and column of the window's first pixel in the image, which may be negative.
      size: the window's.
      fill: the colour of what is outside the image.

    Returns:
      The image of that size, and the objects whose boxes reach into it, clipped, with the parts of their areas.
    """
    (top, left), (height, width) = corner, size
    rows = slice(max(top, 0), min(top + height, image.height))
    columns = slice(max(left, 0), min(left + width, image.width))
    down, across = max(-top, 0), max(-left, 0)
    seen = image.crop((columns.start, rows.start, columns.stop, rows.stop))
    if seen.size != (width, height):
        canvas = Image.new("RGB", (width, height), fill)
        canvas.paste(seen, (across, down))
        seen = canvas
    corners = np.array([left, top], np.float32)
    boxes = np.clip(objects.boxes - np.tile(corners, 2), 0, np.array([width, height] * 2, np.float32))
    kept = np.flatnonzero((boxes[:, :2] < boxes[:, 2:]).all(1))
    boxes, masks, keypoints = boxes[kept], objects.masks, objects.keypoints
    if masks is not None:
        canvas = np.zeros((len(kept), height, width), np.uint8)
        inside = masks[kept, rows, columns]
        canvas[:, down : down + inside.shape[1], across : across + inside.shape[2]] = inside
        masks = canvas
    if keypoints is not None:
        keypoints = keypoints[kept]
        keypoints[..., :2] -= corners
        places = keypoints[..., :2]
        inside = ((places >= 0) & (places <= np.array([width, height]))).all(-1)
        keypoints = annotated(keypoints, inside & (keypoints[..., 2] > 0))
    area = objects.area[kept] * _areas(boxes) / _areas(objects.boxes[kept])
    return seen, Objects(boxes, objects.labels[kept], objects.crowd[kept], area, masks, keypoints)


def valid(boxes: np.ndarray) -> np.ndarray:
    """Which boxes (M, 4) are as wide and high as a pixel at least."""
    return (boxes[:, 2:] - boxes[:, :2] >= SMALLEST).all(1)


def annotated(keypoints: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Keypoints (M, K, 3), those that are not among `which` (M, K) as ones that nobody annotated."""
    return np.where(which[..., None], keypoints, np.float32(0))


# By chance


def photometric_distortion(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """SSD's: brightness, contrast (second or last), saturation, hue, and the order of colours; each sometimes."""
    factors = {name: rng.uniform(*ends) for name, ends in DISTORTION.items() if rng.random() < DISTORTED}
    order = [*DISTORTION] if rng.random() < 0.5 else ["brightness", "saturation", "hue", "contrast"]
    image = adjusted(image, [(name, factors[name]) for name in order if name in factors])
    if rng.random() < DISTORTED:
        bands = image.split()
        image = Image.merge("RGB", [bands[i] for i in rng.permutation(3)])
    return image


def zoom_out(image: Image.Image, objects: Objects, rng: np.random.Generator, fill: Color = (0, 0, 0)) -> Item:
    """SSD's: half of the images somewhere on a canvas of the same shape, up to four times as wide."""
    if rng.random() >= ZOOMED:
        return image, objects
    factor = 1 + rng.random() * (FARTHEST - 1)
    width, height = int(image.width * factor), int(image.height * factor)
    across, down = rng.random(2)
    corner = -int((height - image.height) * down), -int((width - image.width) * across)
    return window(image, objects, corner, (height, width), fill)


def iou_crop(image: Image.Image, objects: Objects, rng: np.random.Generator) -> Item:
    """SSD's: a part of the image with the centre of some object, whose box it overlaps with as much as is drawn.

    Objects whose centres are outside vanish. A crowd is no reason for a crop.
    """
    wanted = objects.boxes[~objects.crowd]
    low, high = CROP_SIDES
    while len(wanted) and (least := OVERLAPS[int(rng.integers(0, len(OVERLAPS)))]) < 1:
        for _ in range(TRIES):
            across, down = low + (high - low) * rng.random(2)
            width, height = int(image.width * across), int(image.height * down)
            if not height or not CROP_SHAPES[0] <= width / height <= CROP_SHAPES[1]:
                continue
            across, down = rng.random(2)
            left, top = int((image.width - width) * across), int((image.height - height) * down)
            crop = np.array([left, top, left + width, top + height], np.float32)
            inside = _centred(wanted, crop)
            if inside.any() and _overlaps(wanted[inside], crop).max() >= np.float32(least):
                return window(image, objects.some(_centred(objects.boxes, crop)), (top, left), (height, width))
    return image, objects


def scale_jitter(
    image: Image.Image,
    objects: Objects,
    rng: np.random.Generator,
    side: int = LSJ_SIDE,
    scales: tuple[float, float] = LSJ_SCALES,
) -> Item:
    """As large as fits into a square of `side` pixels, times a random factor."""
    scale = scales[0] + rng.random() * (scales[1] - scales[0])
    return resized(image, objects, _scaled(image, min(side / image.height, side / image.width) * scale))


def fixed_size_crop(
    image: Image.Image, objects: Objects, rng: np.random.Generator, side: int = LSJ_SIDE, fill: Color = (0, 0, 0)
) -> Item:
    """A square of `side` pixels, somewhere on the image's diagonal; `fill` is right of and below smaller images."""
    room = max(image.height - side, 0), max(image.width - side, 0)
    place = rng.random() if any(room) else 0
    return window(image, objects, (int(room[0] * place), int(room[1] * place)), (side, side), fill)


def random_shortest_side(
    image: Image.Image,
    objects: Objects,
    rng: np.random.Generator,
    sides: tuple[int, ...] = MULTISCALE_SIDES,
    longest: int = MULTISCALE_LONGEST,
) -> Item:
    """The shorter side resized to one of `sides`, or less where the longer one would exceed `longest`."""
    side = sides[rng.integers(0, len(sides))]
    return resized(image, objects, _scaled(image, min(side / min(image.size), longest / max(image.size))))


def random_resize(image: Image.Image, objects: Objects, rng: np.random.Generator, low: int, high: int) -> Item:
    """The shorter side resized to one of `low` pixels up to `high` - 1."""
    side = int(rng.integers(low, high))
    short = min(image.size)
    return resized(image, objects, tuple(int(side * length / short) for length in (image.height, image.width)))


def _scaled(image: Image.Image, factor: float) -> Size:
    return max(1, int(image.height * factor)), max(1, int(image.width * factor))


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _centred(boxes: np.ndarray, crop: np.ndarray) -> np.ndarray:
    centres = 0.5 * (boxes[:, :2] + boxes[:, 2:])
    return ((crop[:2] < centres) & (centres < crop[2:])).all(1)


def _overlaps(boxes: np.ndarray, crop: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (M, 4) that all overlap with a crop (4,)."""
    common = _areas(np.concatenate([np.maximum(boxes[:, :2], crop[:2]), np.minimum(boxes[:, 2:], crop[2:])], 1))
    return common / (_areas(boxes) + _areas(crop[None]) - common)
