"""`python -m jaxzoo inspect embed`: images as vectors, in a plane, and the nearest ones."""

import functools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import jax
import numpy as np
import tyro
from PIL import Image

from jaxzoo.commands.inspect.sight import Sight, check_outputs, draw_rows
from jaxzoo.commands.pictures import check_new, image_paths, read_in_batches
from jaxzoo.errors import UsageError
from jaxzoo.inspect import embed as embed_images
from jaxzoo.inspect.plane import nearest, principal_plane, thumbnails, tsne_plane

THUMBNAIL, SIDE = 64, 160  # pixels of the longer side, in a plane and in a row


def embed(
    images: tyro.conf.Positional[tuple[Path, ...]],
    /,
    model: str,
    weights: str,
    out: Annotated[Path | None, tyro.conf.arg(aliases=("--output",))] = None,
    picture: Path | None = None,
    projection: Literal["pca", "tsne"] = "pca",
    query: Annotated[Path | None, tyro.conf.arg(name="nearest")] = None,
    count: int = 5,
    layer: str | None = None,
    batch_size: int = 16,
    seed: int = 0,
) -> int:
    """Compute a feature vector of each image: what the model's last layer is given.

    Images that cannot be read are named on stderr and left out; the exit code is 1 then.

    Args:
        images: Image files, or folders, of which all images are taken, subfolders too.
        model: Model, such as resnet50; `jaxzoo list` shows all.
        weights: Those that `jaxzoo predict` takes.
        out: New .npz or .parquet file for the vectors and the paths of the images.
        picture: New PNG file for thumbnails in a plane; with --nearest, for the query and those that are nearest.
        projection: How vectors are laid in the plane: by their two principal components, or by t-SNE.
        query: Image file, of which the nearest of the others are printed, by the cosine of the angle.
        count: So many of the nearest.
        layer: Path of a module whose output to take instead, averaged over places.
        batch_size: Images per forward pass, where they have one size.
        seed: Of t-SNE.
    """
    check_outputs(picture)
    if out:
        check_new(out)
        check_format(out)
    if not (out or picture or query):
        raise UsageError("name what to make: --out FILE.npz, --picture FILE.png, --nearest IMAGE")
    if batch_size < 1 or count < 1:
        raise UsageError("--batch-size and --count must be at least 1")
    paths = image_paths(images)
    if query:
        paths = [*(path for path in paths if path != query), *image_paths([query])]
    sight = Sight.of(model, weights)
    vectors, shown = vectors_of(sight, paths, layer, batch_size)
    if not vectors or (query and (query not in vectors or len(vectors) < 2)):
        raise UsageError("there are no images to compare" if query else "no image can be read")
    table = np.stack([*vectors.values()])
    print(f"{len(table)} images, {table.shape[1]} features each")
    if out:
        write(out, [*map(str, vectors)], table)
    if query:
        names = [*vectors][:-1]
        found = nearest(table[:-1], table[-1])[:count]
        for place, likeness in found:
            print(f"{likeness:8.3f}  {names[place]}")
        if picture:
            row = [(shown[query], query.name)] + [(shown[names[i]], f"{names[i].name} {c:.3f}") for i, c in found]
            draw_rows([row], f"nearest to {query.name}, by {model}", picture, side=SIDE)
    elif picture:
        if len(table) < 3:
            raise UsageError(f"a plane takes at least 3 images, not {len(table)}")
        plane = tsne_plane(table, seed) if projection == "tsne" else principal_plane(table)
        thumbnails(plane, [*shown.values()], THUMBNAIL).save(picture)
    return 0 if len(vectors) == len(paths) else 1


def vectors_of(
    sight: Sight, paths: Sequence[Path], layer: str | None, batch_size: int
) -> tuple[dict[Path, np.ndarray], dict[Path, Image.Image]]:
    """The vector of each image that can be read, and a thumbnail."""
    run = jax.jit(functools.partial(embed_images, layer=layer))
    vectors, shown = {}, {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for pictures in read_in_batches(paths, batch_size, pool):
            view = functools.partial(sight.handler.view, sight.model, sight.preprocess)
            views = dict(zip(pictures, pool.map(view, pictures.values()), strict=True))
            alike = len({tuple(part.shape for part in one.inputs) for one in views.values()}) == 1
            for group in [list(views)] if alike else [[path] for path in views]:
                parts = zip(*(views[path].inputs for path in group), strict=True)
                inputs = tuple(map(np.concatenate, parts))
                vectors |= dict(zip(group, np.asarray(run(sight.model, inputs)), strict=True))
            for path, picture in pictures.items():
                picture.thumbnail((SIDE, SIDE))
                shown[path] = picture
    return vectors, shown


def check_format(out: Path) -> None:
    """Raises UsageError for a file that is neither .npz nor .parquet, or one for which a package is missing."""
    if out.suffix.lower() not in (".npz", ".parquet"):
        raise UsageError(f"{out} must be a .npz or a .parquet file")
    if out.suffix.lower() == ".parquet" and not find_spec("pyarrow"):
        raise UsageError(f"{out} needs pyarrow: pip install 'jaxzoo-vision[embed]'; a .npz file needs nothing")


def write(out: Path, paths: Sequence[str], vectors: np.ndarray) -> None:
    """Columns `path` and `vector` of a Parquet file; arrays `paths` (N,) and `vectors` (N, D) of NumPy's."""
    if out.suffix.lower() == ".npz":
        return np.savez_compressed(out, paths=np.array(paths), vectors=vectors)
    import pyarrow
    from pyarrow import parquet

    rows = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.ravel()), vectors.shape[1])
    return parquet.write_table(pyarrow.table({"path": list(paths), "vector": rows}), out)
