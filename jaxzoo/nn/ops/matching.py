"""Which anchors learn from which boxes: torchvision.models.detection._utils, with masks in place of shorter lists."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxzoo.nn.ops.static import Static

BELOW_LOW_THRESHOLD = -1
BETWEEN_THRESHOLDS = -2


class Matcher(Static):
    """Assigns to every anchor the ground truth that it overlaps most, or a negative number, as torchvision's `Matcher`.

    An anchor whose best IoU is below `low_threshold` gets -1 (background), one between the thresholds -2 (ignored). Of
    equal overlaps the first ground truth counts. Ground truths that pad an image are left out, also of the low-quality
    matches, where a row of zeros would match everything. An image without any has -1 everywhere.

    >>> iou = jnp.array([[0.9, 0.4, 0.1], [0.2, 0.5, 0.0]])
    >>> Matcher(0.7, 0.3)(iou)
    Array([ 0, -2, -1], dtype=int32)
    >>> Matcher(0.7, 0.3, allow_low_quality_matches=True)(iou)
    Array([ 0,  1, -1], dtype=int32)

    Args:
      allow_low_quality_matches: an anchor that is a ground truth's best, or equals it, is matched whatever its overlap;
        and to the ground truth that it overlaps most, which need not be the same.
    """

    def __init__(self, high_threshold: float, low_threshold: float, allow_low_quality_matches: bool = False):
        if low_threshold > high_threshold:
            raise ValueError(f"low_threshold {low_threshold} is above high_threshold {high_threshold}")
        self.high_threshold, self.low_threshold = high_threshold, low_threshold
        self.allow_low_quality_matches = allow_low_quality_matches

    def __call__(self, quality: jax.Array, valid: jax.Array | None = None) -> jax.Array:
        """IoU (M ground truths, N anchors) to the index of a ground truth, -1 or -2 for each anchor, (N,) int32.

        Args:
          valid: (M,) True for ground truths that are no padding.
        """
        if 0 in quality.shape:
            return jnp.full(quality.shape[1:], BELOW_LOW_THRESHOLD, jnp.int32)
        quality, valid = _hidden(quality, valid)
        best, matches = quality.max(0), quality.argmax(0).astype(jnp.int32)
        result = jnp.where(best < self.high_threshold, BETWEEN_THRESHOLDS, matches)
        result = jnp.where(best < self.low_threshold, BELOW_LOW_THRESHOLD, result)
        if self.allow_low_quality_matches:
            chosen = (quality == quality.max(1, keepdims=True)) & valid[:, None]
            result = jnp.where(chosen.any(0), matches, result)
        return result


class SSDMatcher(Matcher):
    """As `Matcher` with one threshold; then every ground truth takes its best anchor: torchvision's `SSDMatcher`.

    Of ground truths that want the same anchor the last has it; of equal anchors the first is taken.
    """

    def __init__(self, threshold: float):
        super().__init__(threshold, threshold)

    def __call__(self, quality: jax.Array, valid: jax.Array | None = None) -> jax.Array:
        result = super().__call__(quality, valid)
        if 0 in quality.shape:
            return result
        quality, valid = _hidden(quality, valid)
        truths, anchors = quality.shape
        wanted = jnp.where(valid, quality.argmax(1), anchors)
        last = jnp.full(anchors, -1, jnp.int32).at[wanted].max(lax.iota(jnp.int32, truths), mode="drop")
        return jnp.where(last >= 0, last, result)


def _hidden(quality: jax.Array, valid: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Overlaps in which ground truths that do not count are below all others."""
    valid = jnp.ones(quality.shape[0], bool) if valid is None else valid
    return jnp.where(valid[:, None], quality, -1), valid


class BalancedPositiveNegativeSampler(Static):
    """Chooses anchors to learn from, of which at most a fixed share is positive: torchvision's sampler of this name.

    Negatives fill what positives leave of `batch_size_per_image`. With a key the choice is random, each set as likely
    as any other; without one it is that of the lowest indices.

    >>> labels = jnp.array([1, 0, -1, 1, 0, 1])
    >>> positive, negative = BalancedPositiveNegativeSampler(4, 0.5)(labels)
    >>> positive, negative.sum()
    (Array([ True, False, False,  True, False, False], dtype=bool), Array(2, dtype=int32))
    """

    def __init__(self, batch_size_per_image: int, positive_fraction: float):
        self.batch_size_per_image, self.positive_fraction = batch_size_per_image, positive_fraction

    def __call__(self, labels: jax.Array, key: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """Labels (N,), ≥ 1 positive, 0 negative, others ignored, to masks (N,) of chosen positives and negatives."""
        positive, negative = labels >= 1, labels == 0
        most_positive = int(self.batch_size_per_image * self.positive_fraction)
        chosen = _choose(positive, most_positive, key if key is None else jax.random.fold_in(key, 0))
        most = self.batch_size_per_image - chosen.sum()
        negative = _choose(
            negative, self.batch_size_per_image, key if key is None else jax.random.fold_in(key, 1), most
        )
        return chosen, negative


def _choose(candidates: jax.Array, limit: int, key: jax.Array | None, most: jax.Array | int | None = None) -> jax.Array:
    """A mask of `most` of the candidates, `limit` unless given and at most: the first, or random ones."""
    most = limit if most is None else most
    if key is None:
        return candidates & (jnp.cumsum(candidates) <= most)
    # The largest of random numbers, which top_k finds sooner than a sort shuffles hundreds of thousands of anchors.
    draw = jnp.where(candidates, jax.random.uniform(key, candidates.shape, jnp.float32), -1)
    limit = min(limit, len(candidates))
    places = lax.top_k(draw, limit)[1]
    return candidates & jnp.zeros(len(candidates), bool).at[places].set(lax.iota(jnp.int32, limit) < most)
