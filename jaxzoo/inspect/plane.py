"""Feature vectors of images: laid out in a plane, and the nearest to one."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from jaxzoo.errors import UsageError

PAGE = 1200  # pixels of a plane's longer side


def principal_plane(vectors: np.ndarray) -> np.ndarray:
    """The first two principal components (N, 2) of vectors (N, D), N and D at least 2; of each the sign makes the
    largest loading positive, as scikit-learn's."""
    x = vectors - vectors.mean(0)
    u, s, v = np.linalg.svd(np.asarray(x, np.float64), full_matrices=False)
    signs = np.sign(v[np.arange(2), np.abs(v[:2]).argmax(1)])
    return u[:, :2] * s[:2] * signs


def tsne_plane(vectors: np.ndarray, seed: int = 0) -> np.ndarray:
    """t-SNE (van der Maaten and Hinton 2008) of vectors (N, D) in a plane (N, 2), by scikit-learn from PCA.

    Raises:
      UsageError: scikit-learn is not installed.
    """
    try:
        from sklearn.manifold import TSNE
    except ModuleNotFoundError:
        raise UsageError("t-SNE needs scikit-learn: pip install 'jaxzoo-vision[embed]'; PCA needs nothing") from None
    perplexity = min(30, (len(vectors) - 1) / 3)
    return TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(np.asarray(vectors, np.float32))


def nearest(vectors: np.ndarray, query: np.ndarray) -> list[tuple[int, float]]:
    """The places of vectors (N, D) by the cosine of their angle to a query (D,), the nearest first, with it."""
    x, y = np.asarray(vectors, np.float64), np.asarray(query, np.float64)
    cosines = x @ y / np.maximum(np.linalg.norm(x, axis=1) * np.linalg.norm(y), 1e-12)
    return [(int(place), float(cosines[place])) for place in np.argsort(-cosines, kind="stable")]


def thumbnails(places: np.ndarray, pictures: Sequence[Image.Image], side: int) -> Image.Image:
    """Pictures at their places (N, 2) in a plane, at most `side` pixels; the first coordinate to the right, the second
    up, both on one scale."""
    low = places.min(0)
    extent = np.maximum(np.ptp(places, 0), 1e-12)
    scale = (PAGE - 2 * side) / extent.max()
    width, height = (extent * scale + 2 * side).astype(int)
    sheet = Image.new("RGB", (int(width), int(height)), "white")
    for (x, y), picture in zip((places - low) * scale + side, pictures, strict=True):
        small = picture.copy()
        small.thumbnail((side, side))
        sheet.paste(small, (round(x - small.width / 2), round(height - y - small.height / 2)))
    return sheet
