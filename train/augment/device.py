"""Augmentation on the device: pure functions of a batch and a key, for use under jit.

Images are (N, H, W, 3) of any floating dtype, normalised, so that 0 is the mean colour. Reference training flips,
erases and mixes in this order. Boxes are (left, top, right, bottom) in pixels, right and bottom excluded.

References: torchvision's RandomHorizontalFlip, RandomErasing, transforms.v2.MixUp, CutMix and RandomChoice of both.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

Scalar = float | jax.Array

TRIES = 10  # of RandomErasing, which gives up then


def normalised(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """uint8 images as float32 `(x / 255 - mean) / std`, by RGB channel."""
    mean, std = (jnp.asarray(values, jnp.float32) for values in (mean, std))
    return (images / jnp.float32(255) - mean) / std


def flipped(images: jax.Array, key: jax.Array) -> jax.Array:
    """Each image mirrored left to right with probability 1/2; any dtype."""
    mirrored = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def erased(images: jax.Array, key: jax.Array, probability: float) -> jax.Array:
    """Each image, with `probability`, with a random rectangle of the mean colour; see `erasing_boxes`."""
    choosing, drawing = jax.random.split(key)
    chosen = jax.random.bernoulli(choosing, probability, (len(images),))
    boxes = erasing_boxes(drawing, len(images), *images.shape[1:3])
    return erase(images, jnp.where(chosen[:, None], boxes, 0))


def erasing_boxes(
    key: jax.Array,
    count: int,
    height: int,
    width: int,
    area: tuple[float, float] = (0.02, 0.33),
    ratio: tuple[float, float] = (0.3, 3.3),
) -> jax.Array:
    """Boxes to erase, int32 (count, 4), as torchvision's RandomErasing draws them, with its defaults.

    Ten tries at a part of the image's area and a height-to-width ratio (uniform in the logarithm) within these ranges,
    for a box that is smaller than the image in both directions; an empty box if none is.
    """
    sizing, shaping, placing = jax.random.split(key, 3)
    tries = (count, TRIES)
    areas = height * width * jax.random.uniform(sizing, tries, jnp.float32, *area)
    ratios = jnp.exp(jax.random.uniform(shaping, tries, jnp.float32, *map(math.log, ratio)))
    heights, widths = (jnp.round(jnp.sqrt(x)).astype(jnp.int32) for x in (areas * ratios, areas / ratios))
    fits = (heights < height) & (widths < width)
    first = fits.argmax(1, keepdims=True)
    h, w = (jnp.where(fits.any(1), jnp.take_along_axis(sizes, first, 1)[:, 0], 0) for sizes in (heights, widths))
    down, right = jax.random.split(placing)
    top = jax.random.randint(down, (count,), 0, height - h + 1, jnp.int32)
    left = jax.random.randint(right, (count,), 0, width - w + 1, jnp.int32)
    return jnp.stack([left, top, left + w, top + h], 1)


def erase(images: jax.Array, boxes: jax.Array) -> jax.Array:
    """The images with 0 inside each one's box of `boxes` (N, 4)."""
    return jnp.where(_inside(boxes, *images.shape[1:3])[..., None], 0, images)


def mixed(
    images: jax.Array, targets: jax.Array, key: jax.Array, mixup: float, cutmix: float
) -> tuple[jax.Array, jax.Array]:
    """The batch mixed with itself moved on by one image: by mixup or by cutmix, with even chances if both are on.

    One draw for the whole batch, which therefore has to be in random order.

    Args:
      targets: probabilities (N, classes). Label smoothing before mixing or after is the same: smoothing takes every
        target the same way towards the same point. torchvision smooths in the loss, after.
      mixup, cutmix: the parameter of the symmetric Beta distribution that the shares come from; 0 for none.

    Returns:
      Images and targets, in the dtypes they had.
    """
    if not (mixup or cutmix):
        return images, targets
    choosing, drawing, down, across = jax.random.split(key, 4)
    cut = jax.random.bernoulli(choosing) if mixup and cutmix else bool(cutmix)
    share = sample_lambda(drawing, jnp.where(cut, cutmix, mixup))
    if not cutmix:
        return mix_images(images, targets, share)
    height, width = images.shape[1:3]
    x, y = (jax.random.randint(k, (), 0, n, jnp.int32) for k, n in ((across, width), (down, height)))
    pasted = paste_boxes(images, targets, cut_box(share, x, y, height, width))
    if not mixup:
        return pasted
    # Both, and then one of them, without a branch: all is elementwise, and compiles to one pass over the images.
    return jax.tree.map(lambda a, b: jnp.where(cut, a, b), pasted, mix_images(images, targets, share))


def sample_lambda(key: jax.Array, alpha: Scalar, shape: tuple[int, ...] = ()) -> jax.Array:
    """Draws from Beta(alpha, alpha), alpha > 0, float32.

    From two uniform numbers, by way of Student's t (Devroye, "Random variate generation in one line of code", 1996).
    `jax.random.beta` rejects in loops, which take a second to compile.
    """
    size, angle = jax.random.uniform(key, (2, *shape), jnp.float32)
    ratio = jnp.expm1(jnp.minimum(-jnp.log(size) / alpha, 80))  # finite: beyond that the share is 0 or 1 anyway
    cosine = jnp.cos(2 * math.pi * angle)
    return (0.5 + 0.5 * jnp.sign(cosine) / jnp.sqrt(1 + 1 / (ratio * cosine**2))).astype(jnp.float32)


def mix_images(images: jax.Array, targets: jax.Array, share: Scalar) -> tuple[jax.Array, jax.Array]:
    """`share` of each image and target, and the rest of the one before it in the batch: `MixUp` at a given lambda."""
    return _blended(images, share), _blended(targets, share)


def paste_boxes(images: jax.Array, targets: jax.Array, box: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Each image with the box (4,) of the one before it in the batch pasted in, targets by area: `CutMix` at a box."""
    height, width = images.shape[1:3]
    left, top, right, bottom = box
    inside = _inside(jnp.asarray(box), height, width)[None, ..., None]
    share = 1 - (right - left) * (bottom - top) / (height * width)
    return jnp.where(inside, jnp.roll(images, 1, 0), images), _blended(targets, share)


def cut_box(share: Scalar, x: Scalar, y: Scalar, height: int, width: int) -> jax.Array:
    """The box that cutmix pastes, int32 (4,): 1 - `share` of the image around pixel (x, y), cut off at the border."""
    half = 0.5 * jnp.sqrt(1 - share)
    w, h = (half * width).astype(jnp.int32), (half * height).astype(jnp.int32)
    box = [jnp.maximum(x - w, 0), jnp.maximum(y - h, 0), jnp.minimum(x + w, width), jnp.minimum(y + h, height)]
    return jnp.stack([jnp.asarray(edge, jnp.int32) for edge in box])


def _blended(values: jax.Array, share: Scalar) -> jax.Array:
    """Computed in the dtype of the share at least: bfloat16 would round it to eight bits."""
    return (jnp.roll(values, 1, 0) * (1 - share) + values * share).astype(values.dtype)


def _inside(boxes: jax.Array, height: int, width: int) -> jax.Array:
    """Which pixels are in the box: (..., H, W) for boxes (..., 4)."""
    left, top, right, bottom = (boxes[..., i, None, None] for i in range(4))
    y, x = jnp.arange(height)[:, None], jnp.arange(width)
    return (top <= y) & (y < bottom) & (left <= x) & (x < right)
