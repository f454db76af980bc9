"""`python -m jaxzoo inspect cam`: the places in images that speak for a class."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Literal

import jax
import numpy as np
import tyro
from PIL import Image, ImageDraw

from jaxzoo import inspect
from jaxzoo.commands.inspect.sight import Sight, check_outputs, draw_rows, run
from jaxzoo.commands.pictures import image_paths
from jaxzoo.commands.tasks import Target, View, class_index
from jaxzoo.errors import UsageError
from jaxzoo.inspect.drawing import overlaid
from jaxzoo.registry import card

SMALLEST, SIDE = 144, 288  # pixels of a picture's longer side
WITHOUT_CLASS = ("eigen-cam", "attention-rollout")


def cam(
    images: tyro.conf.Positional[tuple[Path, ...]],
    /,
    model: str,
    weights: str,
    out: Annotated[Path, tyro.conf.arg(aliases=("--output",))],
    layer: str | None = None,
    classes: Annotated[tuple[str, ...], tyro.conf.arg(name="class")] = (),
    box: tuple[float, float, float, float] | None = None,
    method: Literal["grad-cam", "grad-cam++", "layer-cam", "eigen-cam", "attention-rollout"] = "grad-cam",
    arrays: Path | None = None,
) -> int:
    """Draw the places in images that speak for a class: of the image, of its pixels, or of an object in it.

    A sheet has a row for each image: as the network sees it, and with a map for each class over it, from blue to red.
    Images that cannot be read are named on stderr and left out; the exit code is 1 then.

    Args:
        images: Image files, or folders, of which all images are taken, subfolders too.
        model: Model, such as resnet50; `jaxzoo list` shows all.
        weights: Those that `jaxzoo predict` takes.
        out: New PNG file for the sheet.
        layer: Path of a module that gives a map, such as layer3; `jaxzoo info NAME` shows all. Default: the last map.
        classes: Names of classes, or distinct parts of them, or numbers. Default: the one that is found.
        box: Left, upper, right and lower side in pixels of the image: the object that is nearest to it (detection), or
            the pixels whose class counts (segmentation).
        method: How maps are made. Eigen-CAM and attention rollout (ViT) know no class.
        arrays: New .npz file for the maps, as they come from the layer.
    """
    check_outputs(out, arrays)
    if method in WITHOUT_CLASS and (classes or box):
        raise UsageError(f"{method} shows what stands out, and knows no class: leave out --class and --box")
    if method == "attention-rollout" and layer:
        raise UsageError("attention rollout is of all layers: leave out --layer")
    paths = image_paths(images)
    sight = Sight.of(model, weights)
    labels = list(dict.fromkeys(class_index(asked, sight.class_names) for asked in classes))
    layer = layer or card(model).cam_layer
    rows, kept, read = [], {}, 0
    with ThreadPoolExecutor(1) as pool:
        for path, picture, view in sight.views(paths, pool):
            read += 1
            print(path)
            if method in WITHOUT_CLASS:
                targets = [Target(method, None)]
            else:
                outputs = jax.device_get(run(sight.model, view.inputs))
                targets = sight.handler.targets(outputs, sight.class_names, labels, view.box(box, picture))
            rows.append([(view.picture, path.name)])
            for number, target in enumerate(targets):
                values = maps(sight, view, target, layer, method)
                words = said(target, values)
                print(f"  {words}")
                rows[-1].append((drawn(view, target, values), words))
                if values is not None:
                    kept[f"{path}:{labels[number] if labels else number}"] = values
    if not read:
        return 2
    largest = max(max(picture.size) for row in rows for picture, _ in row)
    draw_rows(rows, f"{model}, {method}", out, side=min(SIDE, max(SMALLEST, largest)))
    if arrays:
        np.savez_compressed(arrays, **kept)
    shapes = sorted({f", {values.shape[0]} × {values.shape[1]}" for values in kept.values()})
    at = layer or inspect.cam_layer(sight.model, view.inputs) if method != "attention-rollout" else "all layers"
    print(f"{out}: {method} of {at}{''.join(shapes)}")
    return 0 if read == len(paths) else 1


def maps(sight: Sight, view: View, target: Target, layer: str | None, method: str) -> np.ndarray | None:
    """The map (h, w) of a target, if that is there."""
    if method == "attention-rollout":
        found = inspect.attention_rollout(sight.model, view.inputs)
    elif target.score is None and method not in WITHOUT_CLASS:
        return None
    else:
        found = inspect.cam(sight.model, view.inputs, target.score, layer=layer, method=method)
    return np.asarray(found[0], np.float32)


def said(target: Target, values: np.ndarray | None) -> str:
    return target.text if values is None or values.any() else f"{target.text}, for which nothing in this layer speaks"


def drawn(view: View, target: Target, values: np.ndarray | None) -> Image.Image:
    """The picture under the map, and the target's box on it."""
    if values is None:
        return view.picture
    canvas, (width, height) = view.inputs[0].shape[1:3], view.picture.size
    heat = np.asarray(inspect.heatmap(values[None], canvas)[0])[:height, :width]
    sheet = overlaid(view.picture, heat)
    if target.box is not None:
        line = max(2, round(max(sheet.size) / 150))
        ImageDraw.Draw(sheet).rectangle(tuple(np.round(target.box).tolist()), outline="white", width=line)
    return sheet
