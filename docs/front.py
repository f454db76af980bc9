"""Draws the picture on the README's front: what a photograph shows, which pixels of a scene are which digit, where its
digits are, and the places that speak for a cat.

    python docs/front.py LITE0 SEGMENTER DETECTOR docs/front.jpg

LITE0 is a converted directory of efficientnet_lite0's published weights; the others are the folders of the runs that
`python -m train --model deeplabv3_mobilenet_v3_large` and `... --model ssdlite320_mobilenet_v3_large` leave.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

import train.data
from jaxzoo import card, read_image
from jaxzoo.__main__ import main
from jaxzoo.inspect import heatmap
from jaxzoo.inspect.drawing import overlaid
from jaxzoo.preprocess import resize_and_crop

HEIGHT, GAP, SIDE = 300, 12, 128  # pixels; SIDE is a scene's
SEGMENTER, DETECTOR = ["--model", "deeplabv3_mobilenet_v3_large"], ["--model", "ssdlite320_mobilenet_v3_large"]


def draw(lite0: str, segmenter: str, detector: str, out: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        Image.fromarray(skimage.data.coffee()).save(at / "coffee.png")
        Image.fromarray(skimage.data.chelsea()).save(at / "chelsea.png")
        train.data.load("scenes", "segmentation").held_out[1][0].save(at / "scene.png")
        train.data.load("scenes", "detection").held_out[2][0].resize((384, 384)).save(at / "digits.png")
        classifier = ["--model", "efficientnet_lite0", "--weights", lite0]
        main(["predict", f"{at}/coffee.png", *classifier, "--top", "2", "--annotate", f"{at}/classes"])
        main(["predict", f"{at}/scene.png", *SEGMENTER, "--weights", segmenter, "--out", f"{at}/masks"])
        main(["predict", f"{at}/digits.png", *DETECTOR, "--weights", detector, "--out", f"{at}/objects"])
        cat = ["--class", "tabby", "--out", f"{at}/cam.png", "--arrays", f"{at}/cam.npz"]
        main(["inspect", "cam", f"{at}/chelsea.png", *classifier, *cat])
        paths = ("classes/coffee.jpg", "masks/scene-overlay.jpg", "objects/digits.jpg")
        pictures = [Image.open(at / path).convert("RGB") for path in paths]
        left = (pictures[1].width - SIDE) // 2
        pictures[1] = pictures[1].crop((left, 0, left + SIDE, SIDE))  # without its legend
        (values,) = np.load(at / "cam.npz").values()
        cat = resize_and_crop(read_image(at / "chelsea.png"), card("efficientnet_lite0").preprocess)
        pictures.append(overlaid(cat, np.asarray(heatmap(values[None], cat.size[::-1])[0])))
        pictures = [one.resize((round(one.width * HEIGHT / one.height), HEIGHT)) for one in pictures]
    strip = Image.new("RGB", (sum(one.width + GAP for one in pictures) - GAP, HEIGHT), "white")
    left = 0
    for one in pictures:
        strip.paste(one, (left, 0))
        left += one.width + GAP
    strip.save(out, quality=88)


if __name__ == "__main__":
    draw(*sys.argv[1:])
